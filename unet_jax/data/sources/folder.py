"""A folder of your own images and masks."""

import dataclasses
import hashlib
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from unet_jax.data.case import Case
from unet_jax.data.sources.case_files import (
    ReadOptions,
    read_case_image,
    read_case_label,
)
from unet_jax.data.sources.folder_layout import Layout
from unet_jax.data.sources.folder_scan import CaseTraits, scan
from unet_jax.data.sources.label_map import Entry, LabelMap, listed
from unet_jax.data.sources.layouts import find_layout
from unet_jax.data.sources.splits import (
    SPLITS,
    Part,
    Splits,
    draw_splits,
    named_splits,
    read_splits,
    split_folders,
)
from unet_jax.errors import InputError

_MAX_CLASSES = 64


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
        test_share: share of the groups that is drawn for the test split.
        validation_share: share of the groups that is drawn for validation.
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
    test_share: float = 0.2
    validation_share: float = 0.2
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
        if _is_whole(part):
            return Case(traits.id, image, label, spacing, group)
        axis, start, stop = self._slab(index)
        cut = (*(slice(None),) * axis, slice(start, stop))
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
        if _is_whole(part):
            return traits.id
        axis, start, stop = self._slab(index)
        return f"{traits.id}[{'xyz'[axis]} {start}-{stop}]"

    def _slab(self, index: int) -> tuple[int, int, int]:
        """Return the axis that a slab is cut along, and its first and last plane."""
        traits, part = self._cases[index]
        axis = _cut_axis(traits.shape, self._options.slice_axis)
        size = traits.shape[axis]
        return axis, round(part.start * size), max(round(part.stop * size), 1)


def _is_whole(part: Part) -> bool:
    """Whether a part of a case is all of it."""
    return (part.start, part.stop) == (0.0, 1.0)


def _cut_axis(shape: Sequence[int], slice_axis: int) -> int:
    """Choose the axis that slabs are cut along."""
    if len(shape) == 3 and shape[slice_axis] >= 10:
        return slice_axis
    return int(np.argmax(shape))


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
        InputError: with one line in ``details`` for each fault of the data.
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
    traits, faults = scan(
        layout.pairs, _read_options(options), num_threads=num_threads, cache=scan_cache
    )
    faults += [
        f"{file}: has no image; expected one of its name" for file in layout.orphans
    ]
    faults += _mixed(traits)
    groups, wrong = _groups(layout, options.group_regex)
    named, unknown = _named_splits(layout, groups, options)
    unsplit = wrong + unknown
    if not traits:
        _raise(faults + unsplit, options.path)
    names, label_map, notes, wrong = _classes(traits, options)
    faults += unsplit + wrong
    if unsplit or wrong:
        _raise(faults, options.path)
    splits = _split(named, groups, options, seed)
    faults += _split_faults(traits, splits, names, label_map)
    _raise(faults, options.path)
    left_out = len(traits) - len({p.id for ps in splits.parts.values() for p in ps})
    if left_out:
        notes += (f"{left_out} cases are in no split and are left out",)
    return FolderDataset(
        traits,
        splits,
        class_names=names,
        label_map=label_map,
        groups=groups,
        options=options,
        notes=(layout.note, f"splits: {splits.note}", *notes),
    )


def _named_splits(
    layout: Layout, groups: dict[str, str], options: FolderOptions
) -> tuple[dict[str, list[str]] | None, list[str]]:
    """Take the splits of a file, or of folders called train, val and test.

    What a file says of groups is put into ``groups``.
    """
    ids = [pair.id for pair in layout.pairs]
    if not options.splits:
        named = split_folders(ids)
        if named is None:
            return None, []
        if not options.group_regex:
            # The folder of a split is no patient; one inside it is.
            for pair in layout.pairs:
                groups[pair.id] = pair.patient.partition("/")[2] or pair.id
        return named, _cut_groups(named, groups, Path(options.path))
    path = Path(options.splits).expanduser()
    given, file_groups = read_splits(path, fold=options.fold)
    found, faults = _resolved(given, ids, path)
    for one, group in file_groups.items():
        renamed, _ = _resolved({"group": [one]}, ids, path)
        groups |= dict.fromkeys(renamed["group"], group)
    return found or None, faults + _cut_groups(found, groups, path)


def _read_options(options: FolderOptions) -> ReadOptions:
    """Take those that say how files are read."""
    return ReadOptions(
        palette=tuple(options.palette),
        palette_tolerance=options.palette_tolerance,
        tiff_axes=options.tiff_axes,
        slice_axis=options.slice_axis,
        known_spacing=tuple(options.known_spacing),
    )


def _raise(faults: Sequence[str], path: str) -> None:
    """Report all faults together."""
    if not faults:
        return
    count = "1 fault" if len(faults) == 1 else f"{len(faults)} faults"
    raise InputError(f"data.path {path}: {count} in the data; mend them all:", faults)


def _mixed(traits: Sequence[CaseTraits]) -> list[str]:
    """Name cases that one network cannot take together."""
    faults = []
    for what, of in (
        ("channels", lambda case: case.channels),
        ("spatial axes", lambda case: len(case.shape)),
        ("a known spacing", lambda case: case.spacing is not None),
    ):
        kinds: dict[Any, list[CaseTraits]] = {}
        for case in traits:
            kinds.setdefault(of(case), []).append(case)
        if len(kinds) > 1:
            most = max(kinds, key=lambda kind: len(kinds[kind]))
            for kind, cases in kinds.items():
                if kind != most:
                    files = _named([case.images[0] for case in cases])
                    faults.append(
                        f"{files}: {what}: {kind} in {len(cases)} cases; expected "
                        f"{most} as in the others; convert or remove them"
                    )
    return faults


def _groups(layout: Layout, regex: str) -> tuple[dict[str, str], list[str]]:
    """Return the patient of each case."""
    if not regex:
        return {pair.id: pair.patient or pair.id for pair in layout.pairs}, []
    try:
        pattern = re.compile(regex)
    except re.error as error:
        raise InputError(f"data.group_regex: {regex!r}: {error}") from None
    groups, faults = {}, []
    for pair in layout.pairs:
        match = pattern.search(pair.id)
        if match is None:
            faults.append(
                f"{pair.images[0]}: data.group_regex {regex!r} is not in its id "
                f"{pair.id!r}; mend the expression"
            )
            continue
        groups[pair.id] = match[1] if pattern.groups else match[0]
    return groups, faults


def _resolved(
    named: Mapping[str, Sequence[str]], ids: Sequence[str], path: Path
) -> tuple[dict[str, list[str]], list[str]]:
    """Find the case of each name in a file of splits: its id, its end, or its file."""
    ends: dict[str, list[str]] = {}
    for one in ids:
        ends.setdefault(one.rpartition("/")[2], []).append(one)
    known = set(ids)
    result: dict[str, list[str]] = {}
    faults = []
    for split, names in named.items():
        result[split] = []
        for name in names:
            stem = re.sub(r"(_0000)?\.(nii\.gz|\w+)$", "", name)
            candidates = [one for one in (name, stem) if one in known]
            candidates += ends.get(name, []) or ends.get(stem.rpartition("/")[2], [])
            if not candidates or (
                candidates[0] not in (name, stem) and len(candidates) > 1
            ):
                what = "is in no file's name" if not candidates else "is ambiguous"
                faults.append(
                    f"{path}: {name!r} under {split} {what}; expected ids such as "
                    f"{ids[0]!r}"
                )
                continue
            result[split].append(candidates[0])
    return result, faults


def _cut_groups(
    named: Mapping[str, Sequence[str]], groups: Mapping[str, str], path: Path
) -> list[str]:
    """Name groups and cases that a file of splits has in two of them."""
    seen: dict[str, tuple[str, str]] = {}
    faults = []
    for split, ids in named.items():
        for one in ids:
            group = groups.get(one, one)
            other, first = seen.setdefault(group, (split, one))
            if other != split:
                what = f"case {one!r}" if one == first else f"group {group!r}"
                faults.append(
                    f"{path}: {what} is in {other} ({first}) and in {split} ({one}); "
                    "expected a group in one split; move it"
                )
    return faults


def _classes(
    traits: Sequence[CaseTraits], options: FolderOptions
) -> tuple[tuple[str, ...], tuple[Entry, ...], tuple[str, ...], list[str]]:
    """Find the classes: their names, the label map, what to print, and faults."""
    found = sorted({value for case in traits for value in case.values})
    names, pairs = options.class_names, tuple(options.label_map)
    note = ""
    if not pairs:
        if found in ([0, 255], [255]) and (names is None or len(names) == 2):
            pairs, note = ((0, 0), (255, 1)), "labels: 0 and 255 are classes 0 and 1"
        else:
            count = len(names) if names else found[-1] + 1
            plain = found[0] >= 0 and count <= _MAX_CLASSES
            if not names and not (plain and found == list(range(count))):
                return (), (), (), [_propose(found)]
            pairs = tuple((index, index) for index in range(count))
    given = bool(options.label_map)
    if names is None:
        count = 1 + max(int(index) for _, index in pairs)
        names = ("background", *(f"class_{index}" for index in range(1, max(count, 2))))
    classes = LabelMap(pairs if given or note else None, num_classes=len(names))
    unknown = set(classes.unknown(found))
    faults = []
    if unknown:
        files = [case.masks[0] for case in traits if unknown & case.values.keys()]
        faults.append(classes.refusal(found, _named(files)))
    return tuple(names), pairs, (note,) if note else (), faults


def _named(files: Sequence[str]) -> str:
    """Write a few file names, and how many more there are."""
    more = f" and {len(files) - 3} more" if len(files) > 3 else ""
    return ", ".join(files[:3]) + more


def _propose(found: Sequence[int]) -> str:
    """Say that the stored values are no classes, and propose a map."""
    if len(found) > _MAX_CLASSES or (len(found) > 16 and found[0] == 0):
        proposal: Any = ((0, 0), ((1, int(found[-1])), 1))
        what = "if they are instances of one class"
    else:
        proposal = tuple((int(value), index) for index, value in enumerate(found))
        what = "in this order, or another"
    return (
        f"masks: the values {listed(found)}; expected 0 to a largest class without a "
        f"gap, or a map, {what}: data.label_map={proposal}"
    )


def _split(
    named: Mapping[str, Sequence[str]] | None,
    groups: Mapping[str, str],
    options: FolderOptions,
    seed: int,
) -> Splits:
    """Make the splits."""
    if named is None:
        return draw_splits(
            groups,
            seed=seed,
            test_share=options.test_share,
            validation_share=options.validation_share,
            fold=options.fold,
            folds=options.folds,
        )
    return named_splits(
        named,
        groups,
        seed=seed,
        validation_share=options.validation_share,
        fold=options.fold,
        folds=options.folds,
    )


def _split_faults(
    traits: Sequence[CaseTraits],
    splits: Splits,
    names: Sequence[str],
    label_map: Sequence[Entry],
) -> list[str]:
    """Name images that are in two splits, and classes that training never sees."""
    by_id = {case.id: case for case in traits}  # without the cases that have faults
    faults = []
    seen: dict[str, tuple[str, Part]] = {}
    for split in SPLITS:
        for part in splits.parts[split]:
            if part.id not in by_id:
                continue
            case = by_id[part.id]
            other, first = seen.setdefault(case.digest, (split, part))
            if other != split and first.id != part.id:
                faults.append(
                    f"{case.images[0]}: the same image as {by_id[first.id].images[0]}, "
                    f"which is in {other}, while it is in {split}; remove one, or put "
                    "both into one group"
                )
    trained = {
        value
        for part in splits.parts["train"]
        if part.id in by_id
        for value in by_id[part.id].values
    }
    classes = LabelMap(label_map, num_classes=len(names))
    values = np.array(sorted(trained), np.int64)
    present = set(classes(values, where="masks").tolist())
    for index, name in enumerate(names):
        if index not in present:
            faults.append(
                f"class {index} ({name}): no training case has it; expected one; mend "
                "data.class_names, data.label_map or the split"
            )
    return faults
