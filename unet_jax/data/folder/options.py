"""Holds the options of a folder: how it is read and split."""

import dataclasses

import numpy as np

from unet_jax.data.files.canonical import Restore, as_case_image
from unet_jax.data.files.stored import StoredImage
from unet_jax.data.label_map import Entry
from unet_jax.data.regions import Region


@dataclasses.dataclass(frozen=True, kw_only=True)
class ReadOptions:
    """Says how files are read.

    Attributes:
        palette: colours of colour masks; the index of an entry is the stored value.
        palette_tolerance: largest difference of a colour channel from its entry.
        palette_indices: read the indices of palettes even where an index has another
            colour in another mask.
        orientation: "upright" undoes EXIF and TIFF orientations, "stored" ignores them,
            and leaves the axes of a NIfTI as they are;
            "" undoes them, and refuses a set of which it may be wrong.
        tiff_axes: axes of TIFF images; "" takes them from the file. Masks have no
            channels that could be mistaken for slices.
        slice_axis: axis for the pages of TIFF stacks, for slices that are files, and to
            cut slabs along.
        channels: endings of the names of the files that are the channels of an image,
            such as ``("_t1", "_t2")``; () for images of one file, or of ``_0000``,
            ``_0001`` and so on.
        known_spacing: millimetres on each axis of cases whose files have no spacing; ()
            if it is unknown.
        labels_only: whether every file is a label map without an image; the image of a
            case is then its stored values.
        segments: names of the segments of DICOM masks, in the order of their values
            from 1; () finds them.
        regions: regions with the names of segments that may overlap; () for segments
            that exclude each other.
    """

    palette: tuple[tuple[int, int, int], ...] = ()
    palette_tolerance: float = 0.0
    palette_indices: bool = False
    orientation: str = ""
    tiff_axes: str = ""
    slice_axis: int = 2
    channels: tuple[str, ...] = ()
    known_spacing: tuple[float, ...] = ()
    labels_only: bool = False
    segments: tuple[str, ...] = ()
    regions: tuple[Region, ...] = ()

    def as_case_image(
        self, stored: StoredImage
    ) -> tuple[np.ndarray, tuple[float, ...] | None, Restore]:
        """Reorient an image to the axes of a case (`canonical.as_case_image`)."""
        turned = self.orientation != "stored"
        return as_case_image(stored, self.slice_axis, turned=turned)


@dataclasses.dataclass(frozen=True, kw_only=True)
class FolderOptions(ReadOptions):
    """Says how a folder is read and split, with the names of the config's ``data``.

    Attributes:
        images: its folder of images; "" finds it.
        masks: its folder of masks; "" finds it.
        mask_suffix: suffix of masks that lie beside their images; "" finds it.
        join_masks: whether several masks of an image are joined to one label.
        stack: whether the pictures in a patient's folder are slices of one volume.
        label_map: stored values and their classes; () finds them.
        class_names: name of each class; None finds them.
        labelled_classes: CSV file, or rows, with the classes that are labelled in some
            cases; "" or () where all classes are labelled in all cases.
        group_regex: regular expression that finds the patient in an id; "" takes the
            folder of the case.
        splits: JSON or CSV file with the ids of each split; "" draws the splits.
        allow_duplicates: whether the same image may be in two splits.
        fold: the fold that validates; -1 for none.
        folds: number of folds; None for as many as there are groups, at most five.
        test_fraction: fraction of the groups to draw for the test split.
        validation_fraction: fraction of the groups to draw for validation.
    """

    path: str
    images: str = ""
    masks: str = ""
    mask_suffix: str = ""
    join_masks: bool = False
    stack: bool = False
    label_map: tuple[Entry, ...] = ()
    class_names: tuple[str, ...] | None = None
    labelled_classes: str | tuple[tuple[str, tuple[str, ...]], ...] = ""
    group_regex: str = ""
    splits: str = ""
    allow_duplicates: bool = False
    fold: int = -1
    folds: int | None = None
    test_fraction: float = 0.2
    validation_fraction: float = 0.2

    @property
    def reading(self) -> ReadOptions:
        """The options that say how files are read."""
        names = [field.name for field in dataclasses.fields(ReadOptions)]
        return ReadOptions(**{name: getattr(self, name) for name in names})
