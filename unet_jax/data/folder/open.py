"""Opens a folder of images and masks: finds, reads, checks and splits its cases."""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from unet_jax.data.folder.channels import same_form
from unet_jax.data.folder.checks import (
    missing_class_problems,
    mixed_problems,
    same_image_problems,
)
from unet_jax.data.folder.classes import Classes, find_classes, orphan_problems
from unet_jax.data.folder.dataset import FolderDataset
from unet_jax.data.folder.given_splits import GivenSplits, find_splits
from unet_jax.data.folder.groups import find_groups
from unet_jax.data.folder.layouts import find_layout
from unet_jax.data.folder.meaning import (
    nodata_problems,
    orientation_problems,
    palette_problems,
)
from unet_jax.data.folder.options import FolderOptions
from unet_jax.data.folder.pairing import Layout, Naming, Pair
from unet_jax.data.folder.read import file_with_values, read_case_label
from unet_jax.data.folder.scan import Scan, scan
from unet_jax.data.folder.slabs import fit_slabs, slab_index
from unet_jax.data.folder.splits import Part, Splits, draw_splits, named_splits
from unet_jax.data.folder.traits import CaseTraits
from unet_jax.data.memory import CaseMemory
from unet_jax.errors import InputError
from unet_jax.runtime.home import expanded


def open_folder(
    options: FolderOptions,
    *,
    seed: int,
    num_threads: int,
    scan_cache: Path | None,
    memory: CaseMemory | None = None,
) -> FolderDataset:
    """Find, read and check all cases of a folder, and split them.

    Args:
        scan_cache: file that keeps the facts of the cases; None for none.
        memory: memory for the training cases, so that preparing them reads no file
            again; None for none.

    Raises:
        InputError: the data have problems; ``details`` has one line for each.
    """
    memory = memory or CaseMemory(0)
    layout = find_layout(
        Path(expanded(options.path)),
        images=options.images,
        masks=options.masks,
        naming=Naming(
            same_form(options.mask_suffix), options.channels, options.join_masks
        ),
        stack=options.stack,
    )
    options = dataclasses.replace(
        options,
        palette=options.palette or layout.palette,
        class_names=options.class_names or layout.class_names,
    )
    division = _divide(layout, options, seed)
    layout = _named(layout, division.given, options)
    scanned = scan(
        [*layout.pairs, *layout.orphans],
        options.reading,
        num_threads=num_threads,
        cache=scan_cache,
        memory=memory,
        keep=division.training_ids,
    )
    splits, classes = _check(layout, scanned, division, options)
    return FolderDataset(
        scanned.traits,
        splits,
        class_names=classes.names,
        label_map=classes.label_map,
        groups=division.groups,
        options=options,
        notes=_notes(layout, splits, classes, scanned),
        memory=memory,
    )


def _named(layout: Layout, given: GivenSplits, options: FolderOptions) -> Layout:
    """Leave out the images and masks that a file of splits does not name."""
    if not options.splits or not given.ids or given.problems:
        return layout
    named = {one for ids in given.ids.values() for one in ids}
    pairs = tuple(pair for pair in layout.pairs if pair.id in named)
    note = layout.note
    for count, what in (
        (len(layout.pairs) - len(pairs), "images"),
        (len(layout.orphans), "masks without an image"),
    ):
        if count:
            note += f"; {count} {what} that data.splits does not name are left out"
    return layout._replace(pairs=pairs, orphans=(), note=note)


class _Division(NamedTuple):
    """Groups and splits, which names and not pixels decide.

    Attributes:
        splits: the splits; None if problems prevent them.
        given: whether a file or folders give splits, with what problems.
        split_problem: error of drawing the splits; "" for none.
    """

    groups: dict[str, str]
    splits: Splits | None
    given: GivenSplits
    problems: list[str]
    split_problem: str

    @property
    def training_ids(self) -> frozenset[str]:
        """Ids of the training cases."""
        if self.splits is None:
            return frozenset()
        return frozenset(part.id for part in self.splits.parts["train"])


def _divide(layout: Layout, options: FolderOptions, seed: int) -> _Division:
    """Find the groups, and take or draw the splits."""
    groups, problems = find_groups(layout, options.group_regex)
    given = find_splits(
        layout,
        groups,
        path=Path(options.path),
        file=options.splits,
        fold=options.fold,
        by_regex=bool(options.group_regex),
    )
    if given.ids is not None and not given.ids.get("train"):
        # The problems of the ids say why.
        return _Division(groups, None, given, problems, "")
    try:
        splits = _split(given, groups, options, seed)
    except InputError as error:
        return _Division(groups, None, given, problems, str(error))
    return _Division(groups, splits, given, problems, "")


def _split(
    given: GivenSplits, groups: Mapping[str, str], options: FolderOptions, seed: int
) -> Splits:
    """Draw the splits, or complete the given ones."""
    if given.ids is None:
        return draw_splits(
            groups,
            seed=seed,
            test_fraction=options.test_fraction,
            validation_fraction=options.validation_fraction,
            fold=given.fold,
            folds=options.folds,
        )
    return named_splits(
        given.ids,
        groups,
        seed=seed,
        validation_fraction=options.validation_fraction,
        fold=given.fold,
        folds=options.folds,
    )


def _check(
    layout: Layout, scanned: Scan, division: _Division, options: FolderOptions
) -> tuple[Splits, Classes]:
    """Find the classes, place the slabs, and raise all problems together."""
    problems = [*layout.problems, *scanned.problems]
    problems += mixed_problems(scanned.images)
    problems += palette_problems(scanned.traits, options)
    problems += orientation_problems(scanned.traits, options)
    problems += division.problems + division.given.problems
    values, alone = _values(layout.pairs, scanned), _values(layout.orphans, scanned)
    if not values:
        _raise(problems, options.path)
    masks = {pair.id: pair.masks for pair in layout.pairs}
    classes = find_classes(
        values,
        class_names=options.class_names,
        label_map=tuple(options.label_map),
        file_of=lambda one, wanted: file_with_values(masks[one], wanted, options),
    )
    problems += classes.problems
    if classes.names and not classes.problems:
        problems += nodata_problems(
            scanned.traits, classes.label_map, options.label_map
        )
        problems += orphan_problems(classes, alone)
    splits = division.splits
    if splits is None:
        problems += [division.split_problem] * bool(division.split_problem)
    else:
        parts = fit_slabs(splits.parts, scanned.traits, options.slice_axis)
        splits = splits._replace(parts=parts)
        problems += same_image_problems(scanned.images, splits)
    if classes.names:
        usable = None if division.given.problems else splits
        trained = _trained_values(usable, scanned, options)
        problems += missing_class_problems(
            trained, names=classes.names, label_map=classes.label_map
        )
    _raise(problems, options.path)
    assert splits is not None, "without problems there are splits"
    return splits, classes


def _values(pairs: Sequence[Pair], scanned: Scan) -> dict[str, dict[int, int]]:
    """Return the stored values of the readable masks, by id."""
    found = scanned.values
    return {pair.id: found[pair.id] for pair in pairs if pair.id in found}


def _raise(problems: Sequence[str], path: str) -> None:
    """Raise all problems together; a single one is a line by itself."""
    if len(problems) == 1:
        raise InputError(problems[0])
    if problems:
        found = f"found {len(problems)} problems; please fix all of them:"
        raise InputError(f"data.path {path}: {found}", problems)


def _trained_values(
    splits: Splits | None, scanned: Scan, options: FolderOptions
) -> set[int]:
    """Return the stored values of the training split; of all cases without splits."""
    if splits is None:
        return {value for values in scanned.values.values() for value in values}
    found: set[int] = set()
    by_id = {case.id: case for case in scanned.traits}
    for part in splits.parts["train"]:
        inside = _slab_values(part, by_id.get(part.id), options)
        found |= set(scanned.values.get(part.id, ())) if inside is None else inside
    return found


def _notes(
    layout: Layout, splits: Splits, classes: Classes, scanned: Scan
) -> tuple[str, ...]:
    """Write how files were paired, splits made and labels mapped."""
    notes = [layout.note, f"splits: {splits.note}", *classes.notes]
    chosen = {part.id for parts in splits.parts.values() for part in parts}
    left_out = len(scanned.traits) - len(chosen)
    if left_out:
        notes.append(f"{left_out} cases are in no split and are left out")
    return tuple(notes)


def _slab_values(
    part: Part, traits: CaseTraits | None, options: FolderOptions
) -> set[int] | None:
    """Read the stored values of a slab; None for a whole case, or one with problems."""
    if traits is None:
        return None
    cut = slab_index(part, traits.shape, options.slice_axis)
    if cut is None:
        return None
    label, _ = read_case_label(
        traits.masks,
        options,
        kind=traits.kind,
        painted=traits.painted,
        shape=traits.shape,
    )
    return set(np.unique(label[cut]).tolist())
