"""Opens a folder of images and masks: finds, reads, checks and splits its cases."""

import dataclasses
from collections.abc import Hashable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from pathlib import Path

import numpy as np

from unet_jax.data.case import IGNORE
from unet_jax.data.case_traits import CaseTraits, ImageTraits
from unet_jax.data.folder.channels import same_form
from unet_jax.data.folder.checks import (
    missing_class_problems,
    mixed_problems,
    same_image_problems,
    same_images,
)
from unet_jax.data.folder.classes import Classes, find_classes, orphan_problems
from unet_jax.data.folder.dataset import FolderDataset
from unet_jax.data.folder.dicom_sets import with_segments
from unet_jax.data.folder.division import Division, RecordedSplits, divide
from unet_jax.data.folder.find import as_stored
from unet_jax.data.folder.groups import cut_groups, describe_groups
from unet_jax.data.folder.labelled import (
    describe_labelled,
    find_labelled,
    names_of,
    unlabelled_problems,
)
from unet_jax.data.folder.layouts import find_label_maps, find_layout
from unet_jax.data.folder.left_out import (
    LeftOut,
    describe_left_out,
    find_left_out,
    spacing_origin,
    two_kinds_of_masks,
)
from unet_jax.data.folder.meaning import (
    nodata_problems,
    orientation_problems,
    palette_problems,
    undeclared_problems,
)
from unet_jax.data.folder.options import FolderOptions
from unet_jax.data.folder.pairing import Layout, Naming, Pair
from unet_jax.data.folder.read import file_with_values, image_of_mask, read_case_label
from unet_jax.data.folder.scan import Scan, memory_key, scan
from unet_jax.data.folder.slabs import fit_slabs, slab_index
from unet_jax.data.folder.splits import Part, Splits
from unet_jax.data.folder.watch import Watch
from unet_jax.data.label_map import LabelMap
from unet_jax.data.memory import CaseMemory
from unet_jax.errors import InputError, named_files
from unet_jax.runtime.home import expanded


def open_folder(
    options: FolderOptions,
    *,
    seed: int,
    num_threads: int,
    scan_cache: Path | None,
    memory: CaseMemory | None = None,
    recorded: RecordedSplits | None = None,
    watch: Watch | None = None,
) -> FolderDataset:
    """Find, read and check all cases of a folder, and split them.

    Args:
        seed: seed of drawn splits.
        scan_cache: file that keeps the facts of the cases; None for none.
        memory: memory for the training cases, so that preparing them reads no file
            again; None for none.
        recorded: splits that the workdir keeps; other cases are left out. None to take
            or draw splits.
        watch: is told what is read and found, also if there are problems.

    Raises:
        InputError: the data have problems; ``details`` has one line for each.
    """
    memory, watch = memory or CaseMemory(0), watch or Watch()
    layout, beside = _found(options, may_ask=recorded is None)
    options = _stated(options, layout, may_split=recorded is None)
    division = divide(layout, options, recorded)
    ids = [pair.id for pair in layout.pairs]
    layout = _named(layout, division.used_ids)
    scanned = scan(
        [*layout.pairs, *layout.orphans],
        options.reading,
        num_threads=num_threads,
        cache=scan_cache,
        memory=memory,
        keep=division.trainable_ids,
        watch=watch,
    )
    watch.groups = division.groups.of
    splits, classes = _check(layout, scanned, division, options, seed, watch)
    labelled = find_labelled(
        options.labelled_classes, ids=ids, class_names=classes.names
    )
    watch.labelled = {
        one: names_of(found, classes.names) for one, found in labelled.items()
    }
    trained = [part.id for part in splits.parts["train"]]
    _raise(unlabelled_problems(labelled, trained, classes.names), options.path)
    kept_for_nothing = division.trainable_ids - {p.id for p in splits.parts["train"]}
    for pair in layout.pairs:
        if pair.id in kept_for_nothing:
            memory.release(memory_key(pair, options))
    return FolderDataset(
        scanned.traits,
        splits,
        class_names=classes.names,
        label_map=classes.label_map,
        groups=division.groups.of,
        options=options,
        notes=(
            *_notes(layout, splits, classes, division, scanned.traits),
            *describe_left_out(beside, cases=len(layout.pairs)),
            spacing_origin(scanned.traits, options),
            *describe_labelled(
                labelled,
                scanned.traits,
                class_names=classes.names,
                label_map=classes.label_map,
            ),
        ),
        memory=memory,
        intensity=layout.intensity,
        channel_names=layout.channel_names,
        labelled=labelled,
        regions=layout.regions if classes.label_map == layout.label_map else (),
    )


def _found(options: FolderOptions, *, may_ask: bool) -> tuple[Layout, LeftOut]:
    """Find images and masks, and what is beside them.

    Args:
        may_ask: whether a second folder of masks is a problem.
    """
    path = as_stored(Path(expanded(options.path)))
    if options.labels_only:
        layout = find_label_maps(path, masks=options.masks, stack=options.stack)
        return layout, find_left_out(path, layout)
    layout = find_layout(
        path,
        images=options.images,
        masks=options.masks,
        naming=Naming(
            same_form(options.mask_suffix), options.channels, options.join_masks
        ),
        stack=options.stack,
    )
    layout = with_segments(layout, options)
    beside = find_left_out(path, layout)
    if may_ask and not options.masks:
        doubts = two_kinds_of_masks(path, layout, beside)
        layout = layout._replace(problems=(*layout.problems, *doubts))
    return layout, beside


def _stated(
    options: FolderOptions, layout: Layout, *, may_split: bool
) -> FolderOptions:
    """Take what a published set states where the config says nothing.

    Args:
        may_split: whether a file of splits beside the set is taken.
    """
    names, label_map = options.class_names or layout.class_names, options.label_map
    if not label_map and len(names or ()) == len(layout.class_names or ()):
        label_map = layout.label_map
    splits, fold = options.splits, options.fold
    if layout.splits_file and not splits and may_split:
        splits, fold = layout.splits_file, max(fold, 0)
    return dataclasses.replace(
        options,
        palette=options.palette or layout.palette,
        class_names=names,
        label_map=label_map,
        splits=splits,
        fold=fold,
        segments=layout.segments,
        regions=options.regions if layout.segments else (),
    )


def _named(layout: Layout, used: AbstractSet[str] | None) -> Layout:
    """Leave out the images and masks that are in no split; None keeps all."""
    if used is None:
        return layout
    pairs = tuple(pair for pair in layout.pairs if pair.id in used)
    note = layout.note
    for count, what in (
        (len(layout.pairs) - len(pairs), "images"),
        (len(layout.orphans), "masks without an image"),
    ):
        if count:
            note += f"; {count} {what} that the splits do not name are left out"
    return layout._replace(pairs=pairs, orphans=(), note=note)


def _check(
    layout: Layout,
    scanned: Scan,
    division: Division,
    options: FolderOptions,
    seed: int,
    watch: Watch,
) -> tuple[Splits, Classes]:
    """Find the classes, place the slabs, and raise all problems together."""
    problems = _problems_of_files(layout, scanned, options)
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
    splits = None
    if division.has_training:  # else the problems of the ids say why there are none
        try:
            # With problems no run begins: splits are drawn to find more of them.
            features = {} if problems else _features(values, classes)
            splits = division.splits(features, options, seed=seed)
        except InputError as error:
            problems.append(str(error))
    if splits is not None:
        if not splits.placed:
            parts = fit_slabs(splits.parts, scanned.traits, options.slice_axis)
            splits = splits._replace(parts=parts, placed=True)
        watch.splits = splits
        # Label maps of simple shapes may be equal; the images that are drawn are not.
        if not (options.allow_duplicates or options.labels_only):
            problems += same_image_problems(scanned.images, splits)
    if classes.names and division.recorded is None:
        usable = None if division.given.problems else splits
        missing = missing_class_problems(
            _trained_values(usable, scanned, options),
            names=classes.names,
            label_map=classes.label_map,
        )
        if layout.label_map and classes.names == layout.class_names:
            # A class that the set states is no mistake of the config.
            classes = classes.noted(
                f"WARNING: {line.partition(';')[0]}" for line in missing
            )
        else:
            problems += missing
    _raise(problems, options.path)
    assert splits is not None, "without problems there are splits"
    return splits, classes


def _problems_of_files(
    layout: Layout, scanned: Scan, options: FolderOptions
) -> list[str]:
    """List what is wrong with files, and with their meaning against each other."""
    return [
        *layout.problems,
        *scanned.problems,
        *mixed_problems(scanned.images),
        *palette_problems(scanned.traits, options),
        *orientation_problems(scanned.traits, options),
        *undeclared_problems(scanned.traits),
    ]


def _values(pairs: Sequence[Pair], scanned: Scan) -> dict[str, dict[int, int]]:
    """Return the stored values of the readable masks, by id."""
    found = scanned.values
    return {pair.id: found[pair.id] for pair in pairs if pair.id in found}


def _features(
    values: Mapping[str, Mapping[int, int]], classes: Classes
) -> dict[str, set[Hashable]]:
    """Return the classes of each case, of which each split keeps a fraction."""
    if not classes.names or classes.problems:
        return {}
    known = LabelMap(classes.label_map, num_classes=len(classes.names))
    return {
        one: set(known(np.array(list(found), np.int64), where=one).tolist()) - {IGNORE}
        for one, found in values.items()
    }


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
    layout: Layout,
    splits: Splits,
    classes: Classes,
    division: Division,
    images: Sequence[ImageTraits],
) -> tuple[str, ...]:
    """Write how files were paired, groups and splits made and labels mapped."""
    ids = {split: [part.id for part in parts] for split, parts in splits.parts.items()}
    chosen = {one for of_split in ids.values() for one in of_split}
    used = {one: division.groups.of[one] for one in division.groups.of if one in chosen}
    notes = [
        layout.note,
        f"groups: {describe_groups(division.groups._replace(of=used))}",
        f"splits: {splits.note}",
        *classes.notes,
    ]
    if allowed := [case.images[0] for _, case, _, _ in same_images(images, splits)]:
        notes.append(f"images in two splits: {named_files(allowed)}")
    if left_out := len(layout.pairs) - len(chosen):
        notes.append(f"{left_out} cases are in no split and are left out")
    warning = cut_groups(division.groups, ids)
    return (*notes, warning) if warning else tuple(notes)


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
        grid=image_of_mask(traits.images, traits.masks),
        kind=traits.kind,
        painted=traits.painted,
        shape=traits.shape,
    )
    return set(np.unique(label[cut]).tolist())
