"""Builds the TFDS set of the CT sample in the tptbox package."""

from collections.abc import Iterator
from pathlib import Path

import nibabel
import numpy as np
import tensorflow_datasets as tfds

from unet_jax.datasets.slices import installed_folder, read_volume, slice_features
from unet_jax.errors import InputError

CLASS_NAMES = ("background", "posterior parts", "body shell", "body core")

SLABS = {"train": ((0, 10), (35, 46)), "validation": ((13, 20),), "test": ((23, 32),)}
"""First and last index of each slab along axis 1 of the stored array, both inclusive.

That axis runs down the spine in slices of 1.5 mm. Two slices between slabs are omitted,
because neighbouring slices are nearly equal. Training slabs are on both sides of the
others. Each slab has every class; the test slab reaches from the middle of a vertebral
body through its lower end plate into the disc.
"""

SLICE_AXIS = 2
"""Inferior-superior axis of the volume in RAS order, axis 1 of the stored array."""

_SHAPE = (73, 47, 73)
_ORIENTATION = ("P", "I", "R")
_SPACING_MM = 1.5

_PARTS = {1: range(41, 49), 2: (49,), 3: (50,)}
"""Class and the values of the sample's mask: arch, spinous, transverse and articular
processes; border of the vertebral body; inside of the vertebral body."""

_FIX = "run `pip install --no-deps --force-reinstall tptbox`"

_DESCRIPTION = """\
A CT of the lumbar spine, 1.5 mm a voxel, in Hounsfield units: the third vertebra with
parts of its neighbours, as the tptbox package carries it for its own tests. The label
is made of that package's mask of vertebral parts: "posterior parts" (arch and
processes), "body shell" (border of the vertebral body) and, nested in it, "body core".

It stands in for a femur: a bone with a dense shell around a spongy core.

This is one scan of one person. Its splits are slabs of that scan: a score on the test
slab is no claim about new people. How the mask was made, the package does not say.

Source: tptbox (`TPTBox/tests/sample_ct`), Apache-2.0,
https://github.com/Hendrik-code/TPTBox
"""

_CITATION = """\
@article{graf2026tptbox,
  title = {TPTBox: a torso processing toolbox},
  author = {Graf, Robert and others},
  journal = {SoftwareX},
  doi = {10.1016/j.softx.2026.103055},
}
"""


def part_labels(mask: np.ndarray) -> np.ndarray:
    """Compute the class of every voxel from the mask of vertebral parts.

    Args:
        mask: integers of any shape: 0, or values of the package's numbering.

    Returns: uint8 indices into ``CLASS_NAMES``, with the shape of the mask.
    Raises: InputError: a value is no part of a vertebra.
    """
    labels = np.zeros(mask.shape, np.uint8)
    for index, values in _PARTS.items():
        labels[np.isin(mask, list(values))] = index
    unknown = np.unique(mask[(labels == 0) & (mask != 0)])
    if len(unknown):
        raise InputError(
            f"vertebra_ct: the mask has the values {unknown.tolist()}, expected 0 and "
            f"41 to 50; {_FIX}"
        )
    return labels


def load_sample() -> tuple[np.ndarray, np.ndarray]:
    """Read the sample from the installed tptbox package, which is not imported.

    Returns: The CT, ``(73, 47, 73)`` int16 in Hounsfield units, and the class of every
        voxel, uint8, both in stored order: posterior, inferior, right.
    Raises: InputError: tptbox is not installed, or has another sample.
    """
    folder = installed_folder("TPTBox")
    if folder is None:
        raise InputError(
            "vertebra_ct: the package tptbox, which carries the CT, is not installed; "
            "run `pip install --no-deps tptbox` (or install the extra 'bone')"
        )
    sample = folder / "tests" / "sample_ct"
    image = _load(sample / "sub-ct_label-22_ct.nii.gz")
    mask = _load(sample / "sub-ct_seg-subreg_label-22_msk.nii.gz")
    return image.astype(np.int16), part_labels(mask)


def _load(path: Path) -> np.ndarray:
    """Read one volume of the sample in stored order; refuse an unknown one."""
    volume, voxels = read_volume(path, fix=_FIX)
    axes = nibabel.aff2axcodes(volume.affine)
    spacing = volume.header.get_zooms()
    if (
        voxels.shape != _SHAPE
        or axes != _ORIENTATION
        or not np.allclose(spacing, _SPACING_MM)
    ):
        raise InputError(
            f"{path}: shape {voxels.shape}, axes {''.join(axes)}, spacing "
            f"{tuple(float(part) for part in spacing)}; expected {_SHAPE}, "
            f"{''.join(_ORIENTATION)}, {_SPACING_MM} mm; {_FIX}"
        )
    return voxels


def to_ras(stored: np.ndarray) -> np.ndarray:
    """Turn a volume from posterior-inferior-right to right-anterior-superior order.

    Args:
        stored: ``(73, 47, 73)`` in stored order.

    Returns: A view ``(73, 73, 47)``.
    """
    return stored.transpose(2, 0, 1)[:, ::-1, ::-1]


class VertebraCt(tfds.core.GeneratorBasedBuilder):
    """Slices of a CT of a vertebra with its parts."""

    VERSION = tfds.core.Version("1.0.0")
    RELEASE_NOTES = {"1.0.0": "First release."}  # noqa: RUF012, TFDS's own form

    def _info(self) -> tfds.core.DatasetInfo:
        """Describe the features."""
        return tfds.core.DatasetInfo(
            builder=self,
            description=_DESCRIPTION,
            features=slice_features((_SHAPE[2], _SHAPE[0]), np.int16),
            supervised_keys=("image", "label"),
            homepage="https://github.com/Hendrik-code/TPTBox",
            license="Apache-2.0",
            citation=_CITATION,
            # The order of writing is the order of the slices, the same on every run.
            disable_shuffling=True,
        )

    def _split_generators(self, dl_manager: object) -> dict[str, Iterator]:
        """Cut the sample into the slabs; nothing is downloaded."""
        image, label = (to_ras(stored) for stored in load_sample())
        return {
            split: self._generate_examples(image, label, slabs)
            for split, slabs in SLABS.items()
        }

    def _generate_examples(
        self, image: np.ndarray, label: np.ndarray, slabs: tuple[tuple[int, int], ...]
    ) -> Iterator[tuple[int, dict]]:
        """Yield the slices of one split, lowest first."""
        last = image.shape[SLICE_AXIS] - 1
        indices = (last - place for a, b in slabs for place in range(a, b + 1))
        for index in sorted(indices):
            yield (
                index,
                {
                    "image": np.ascontiguousarray(image[:, :, index, None]),
                    "label": np.ascontiguousarray(label[:, :, index]),
                    "volume": "vertebra",
                    "slice_index": index,
                    "slice_axis": SLICE_AXIS,
                    "spacing": np.full(3, _SPACING_MM, np.float32),
                },
            )
