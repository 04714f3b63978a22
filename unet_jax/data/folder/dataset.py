"""A folder of your own images and masks."""

import dataclasses
import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from unet_jax.data.case import Case
from unet_jax.data.folder.checks import (
    missing_class_problems,
    mixed_problems,
    same_image_problems,
)
from unet_jax.data.folder.classes import Classes, find_classes, orphan_problems
from unet_jax.data.folder.find import Layout, Pair
from unet_jax.data.folder.groups import NamedSplits, find_groups, find_splits
from unet_jax.data.folder.label_map import Entry, LabelMap
from unet_jax.data.folder.layouts import find_layout
from unet_jax.data.folder.read import (
    ReadOptions,
    file_with_values,
    read_case_image,
    read_case_label,
)
from unet_jax.data.folder.scan import Scan, scan
from unet_jax.data.folder.slabs import cut_axis, shared_out, slab_of
from unet_jax.data.folder.splits import Part, Splits, draw_splits, named_splits
from unet_jax.data.folder.traits import CaseTraits
from unet_jax.errors import InputError


@dataclasses.dataclass(frozen=True)
class FolderOptions:
    """How a folder is read and split; the names are the config's, under ``data``.

    Attributes:
        path: the folder.
        images: its folder of images; "" to find it.
        masks: its folder of masks; "" to find it.
        mask_suffix: of masks beside their images; "" to find it.
        stack: the pictures of a patient's folder are slices of one volume.
        known_spacing: mm on each axis of cases whose files say none; () for none.
        palette: colours of colour masks; the index of an entry is the stored value.
        palette_tolerance: largest difference of a channel that is forgiven.
        label_map: stored values and their classes; () to find them.
        tiff_axes: axes of TIFF files; "" as they say.
        class_names: of each class; None to find them.
        group_regex: finds the patient in an id; "" for the folder it lies in.
        splits: JSON or CSV file with the ids of each split; "" to draw them.
        fold: which of the folds validates; -1 for none.
        folds: parts of a cross-validation.
        test_fraction: share of the groups that is drawn for the test split.
        validation_fraction: share of the groups that is drawn for validation.
        slice_axis: axis for the pages of TIFF stacks, and that slabs are cut along.
    """

    path: str
    images: str = ""
    masks: str = ""
    mask_suffix: str = ""
    stack: bool = False
    known_spacing: tuple[float, ...] = ()
    palette: tuple[tuple[int, int, int], ...] = ()
    palette_tolerance: float = 0.0
    label_map: tuple[Entry, ...] = ()
    tiff_axes: str = ""
    class_names: tuple[str, ...] | None = None
    group_regex: str = ""
    splits: str = ""
    fold: int = -1
    folds: int = 5
    test_fraction: float = 0.2
    validation_fraction: float = 0.2
    slice_axis: int = 2


class FolderDataset:
    """All cases of a folder, and their splits."""

    def __init__(
        self,
        traits: Sequence[CaseTraits],
        splits: Splits,
        *,
        class_names: tuple[str, ...],
        label_map: tuple[Entry, ...],
        groups: Mapping[str, str],
        options: FolderOptions,
        notes: tuple[str, ...],
    ) -> None:
        """Keep what `open_folder` found."""
        self.traits = tuple(traits)
        self.class_names = class_names
        self.label_map = label_map
        self.notes = notes
        self._splits = splits
        self._groups = groups
        self._options = options

    @property
    def fingerprint(self) -> dict[str, Any]:
        """Ids and a hash of the pixels of each split, for ``config.json``."""
        by_id = {case.id: case for case in self.traits}
        result: dict[str, Any] = {}
        for split, parts in self._splits.parts.items():
            digest = hashlib.sha256()
            for part in parts:
                case = by_id[part.id]
                digest.update(f"{part} {case.digest} {case.label_digest}".encode())
            ids = [part.id for part in parts]
            result[split] = {"ids": ids, "sha256": digest.hexdigest()}
        return result

    def source(self, split: str) -> "FolderSource":
        """Return the cases of one split.

        Args:
            split: "train", "validation" or "test".

        Returns:
            Its cases, read when they are asked for.
        """
        by_id = {case.id: case for case in self.traits}
        parts = self._splits.parts[split]
        return FolderSource(
            [(by_id[part.id], part) for part in parts],
            LabelMap(self.label_map, num_classes=len(self.class_names)),
            groups=self._groups,
            options=self._options,
        )


class FolderSource:
    """The cases of one split."""

    def __init__(
        self,
        cases: Sequence[tuple[CaseTraits, Part]],
        classes: LabelMap,
        *,
        groups: Mapping[str, str],
        options: FolderOptions,
    ) -> None:
        """Keep the names of the files."""
        self._cases = list(cases)
        self._classes = classes
        self._groups = groups
        self._options = options

    def __len__(self) -> int:
        """Return the number of cases."""
        return len(self._cases)

    def __getitem__(self, index: int) -> Case:
        """Read one case.

        Raises:
            InputError: its files changed since the folder was opened.
        """
        if not 0 <= index < len(self):
            raise IndexError(f"case {index} of {len(self)}")
        traits, part = self._cases[index]
        reading = _read_options(self._options)
        image, spacing, _ = read_case_image(traits.images, reading, kind=traits.kind)
        stored, _ = read_case_label(
            traits.masks,
            reading,
            kind=traits.kind,
            painted=traits.painted,
            shape=traits.shape,
        )
        if stored.shape != traits.shape or image.shape != (
            *traits.shape,
            traits.channels,
        ):
            raise InputError(
                f"{traits.images[0]}: changed while the run went on (size "
                f"{image.shape}, was {(*traits.shape, traits.channels)}); put it back"
            )
        label = self._classes(stored, where=traits.masks[0])
        group = self._groups[traits.id]
        slab = slab_of(part, traits.shape, self._options.slice_axis)
        if slab is None:
            return Case(traits.id, image, label, spacing, group)
        axis = cut_axis(traits.shape, self._options.slice_axis)
        cut = (*(slice(None),) * axis, slab)
        name = self._id(index)
        return Case(name, image[cut], label[cut], spacing, group, traits.reference)

    def where(self, index: int) -> str:
        """Name one case and its file without reading it."""
        files = self._cases[index][0].images
        more = f" and {len(files) - 1} more" if len(files) > 1 else ""
        return f"case {self._id(index)!r}, {files[0]}{more}"

    def _id(self, index: int) -> str:
        """Return the id of a case; a slab's says where it lies."""
        traits, part = self._cases[index]
        slab = slab_of(part, traits.shape, self._options.slice_axis)
        if slab is None:
            return traits.id
        axis = cut_axis(traits.shape, self._options.slice_axis)
        return f"{traits.id}[{'xyz'[axis]} {slab.start}-{slab.stop}]"


def open_folder(
    options: FolderOptions, *, seed: int, num_threads: int, scan_cache: Path | None
) -> FolderDataset:
    """Find, read and check all cases of a folder, and split them.

    Args:
        options: how to read and split.
        seed: of the split, where it is drawn.
        num_threads: cases that are read at a time.
        scan_cache: file that keeps what was found; None for none.

    Returns:
        The data set.

    Raises:
        InputError: with one line in ``details`` for each problem of the data.
    """
    layout = find_layout(
        Path(options.path).expanduser(),
        images=options.images,
        masks=options.masks,
        mask_suffix=options.mask_suffix,
        stack=options.stack,
    )
    options = dataclasses.replace(
        options,
        palette=options.palette or layout.palette,
        class_names=options.class_names or layout.class_names,
    )
    scanned = scan(
        [*layout.pairs, *layout.orphans],
        _read_options(options),
        num_threads=num_threads,
        cache=scan_cache,
    )
    problems = [*layout.problems, *scanned.problems]
    problems += mixed_problems(scanned.images)
    groups, wrong = find_groups(layout, options.group_regex)
    named = find_splits(
        layout,
        groups,
        path=Path(options.path),
        file=options.splits,
        fold=options.fold,
        by_regex=bool(options.group_regex),
    )
    problems += wrong + named.problems
    values, alone = _values(layout.pairs, scanned), _values(layout.orphans, scanned)
    if not values:
        _raise(problems, options.path)
    classes = _find_classes(values, layout, options)
    problems += classes.problems
    if classes.names and not classes.problems:
        problems += orphan_problems(classes, alone)
    splits = _split(named, groups, options, seed, problems)
    if splits is not None:
        parts = shared_out(splits.parts, scanned.traits, options.slice_axis)
        splits = splits._replace(parts=parts)
        problems += same_image_problems(scanned.images, splits)
    if classes.names:
        problems += missing_class_problems(
            _trained_values(None if named.problems else splits, scanned, options),
            names=classes.names,
            label_map=classes.label_map,
        )
    _raise(problems, options.path)
    assert splits is not None, "without problems there are splits"
    return FolderDataset(
        scanned.traits,
        splits,
        class_names=classes.names,
        label_map=classes.label_map,
        groups=groups,
        options=options,
        notes=(
            layout.note,
            f"splits: {splits.note}",
            *classes.notes,
            *_left_out_note(splits, scanned),
        ),
    )


def _values(pairs: Sequence[Pair], scanned: Scan) -> dict[str, dict[int, int]]:
    """Return the stored values of those masks that could be read, by id."""
    found = scanned.values
    return {pair.id: found[pair.id] for pair in pairs if pair.id in found}


def _find_classes(
    values: Mapping[str, Mapping[int, int]], layout: Layout, options: FolderOptions
) -> Classes:
    """Find the classes in the masks that could be read."""
    masks = {pair.id: pair.masks for pair in layout.pairs}
    reading = _read_options(options)
    return find_classes(
        values,
        class_names=options.class_names,
        label_map=tuple(options.label_map),
        file_of=lambda one, values: file_with_values(masks[one], values, reading),
    )


def _read_options(options: FolderOptions) -> ReadOptions:
    """Take those that say how files are read."""
    return ReadOptions(
        palette=tuple(options.palette),
        palette_tolerance=options.palette_tolerance,
        tiff_axes=options.tiff_axes,
        slice_axis=options.slice_axis,
        known_spacing=tuple(options.known_spacing),
    )


def _raise(problems: Sequence[str], path: str) -> None:
    """Report all problems together; one alone is a line by itself."""
    if len(problems) == 1:
        raise InputError(problems[0])
    if problems:
        head = f"data.path {path}: {len(problems)} problems; fix them all:"
        raise InputError(head, problems)


def _split(
    named: NamedSplits,
    groups: Mapping[str, str],
    options: FolderOptions,
    seed: int,
    problems: list[str],
) -> Splits | None:
    """Make the splits; None, and one more problem, where that cannot be done."""
    if named.ids is not None and not named.ids.get("train"):
        return None  # its ids are among the problems
    try:
        if named.ids is None:
            return draw_splits(
                groups,
                seed=seed,
                test_fraction=options.test_fraction,
                validation_fraction=options.validation_fraction,
                fold=named.fold,
                folds=options.folds,
            )
        return named_splits(
            named.ids,
            groups,
            seed=seed,
            validation_fraction=options.validation_fraction,
            fold=named.fold,
            folds=options.folds,
        )
    except InputError as error:
        if not problems:
            raise
        problems.append(str(error))
        return None


def _trained_values(
    splits: Splits | None, scanned: Scan, options: FolderOptions
) -> set[int]:
    """Return the stored values of the training split; of all cases without splits."""
    if splits is None:
        return {value for values in scanned.values.values() for value in values}
    found: set[int] = set()
    for part in splits.parts["train"]:
        inside = _slab_values(part, scanned, options)
        found |= set(scanned.values.get(part.id, ())) if inside is None else inside
    return found


def _left_out_note(splits: Splits, scanned: Scan) -> tuple[str, ...]:
    """Say how many cases the splits do not name, if any."""
    chosen = {part.id for parts in splits.parts.values() for part in parts}
    left_out = len(scanned.traits) - len(chosen)
    return (f"{left_out} cases are in no split and are left out",) * bool(left_out)


def _slab_values(part: Part, scanned: Scan, options: FolderOptions) -> set[int] | None:
    """Read the stored values of a slab; None for a whole case, or one with problems."""
    traits = {case.id: case for case in scanned.traits}.get(part.id)
    if traits is None:
        return None
    slab = slab_of(part, traits.shape, options.slice_axis)
    if slab is None:
        return None
    label, _ = read_case_label(
        traits.masks,
        _read_options(options),
        kind=traits.kind,
        painted=traits.painted,
        shape=traits.shape,
    )
    axis = cut_axis(traits.shape, options.slice_axis)
    cut = (*(slice(None),) * axis, slab)
    return set(np.unique(label[cut]).tolist())
