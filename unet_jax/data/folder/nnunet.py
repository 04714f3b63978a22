"""Finds the files of a data set of nnU-Net, or of the Medical Segmentation Decathlon.

Both have a ``dataset.json`` beside ``imagesTr`` and ``labelsTr``. It names the classes,
the value to ignore and the kind of each channel.
"""

import json
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from unet_jax.data.case import IGNORE
from unet_jax.data.files.formats import SUFFIXES, stem_of
from unet_jax.data.folder.channels import CHANNEL
from unet_jax.data.folder.listing import list_files, stem_in
from unet_jax.data.folder.pairing import (
    Layout,
    Naming,
    Pair,
    join,
    make_pair,
)
from unet_jax.data.folder.split_files import SPLITS_FILE
from unet_jax.data.label_map import Entry
from unet_jax.data.regions import Region
from unet_jax.errors import InputError

_INTENSITIES = {"ct": "percentile", "zscore": "zscore", "rgb_to_0_1": "full_range"}
"""Our normalisation for the channels that nnU-Net calls so; the data choose others."""


def nnunet_layout(path: Path) -> Layout | None:
    """Find the cases of a data set with a ``dataset.json``.

    Images and masks lie in ``imagesTr`` and ``labelsTr``, the channels of an image in
    files ``_0000``, ``_0001`` and so on, or in one file, as in the Decathlon; or the
    entry ``dataset`` lists the files of each case. Images of ``imagesTs`` that have a
    mask in ``labelsTs`` are the test split. Hidden files, such as ``._a.nii.gz``, are
    left out.

    Returns:
        The pairs, classes, label map and normalisation; None for another folder.

    Raises:
        InputError: ``dataset.json`` cannot be read or contradicts the files, or the
            folder holds several such sets.

    Source:
        ``documentation/dataset_format.md`` of nnU-Net 2.8.1; Antonelli et al. 2022,
        doi:10.1038/s41467-022-30695-9 (the Decathlon, whose form nnU-Net 1 has too)
    """
    file = path / "dataset.json"
    content = _read(file)
    if content is None:
        return None
    names, label_map, stored = stated_classes(content["labels"], file)
    regions, notes = stated_regions(stored, label_map, content, file)
    ending = str(content.get("file_ending", ""))
    layout = (
        _listed(content["dataset"], path, file)
        if isinstance(content.get("dataset"), dict)
        else _in_folders(path, "Tr", ending)
    )
    if not layout.pairs:
        raise InputError(
            f"{file}: there is no image {ending} in {path / 'imagesTr'}; expected "
            f"files of its file_ending, one of {' '.join(SUFFIXES)}; fix the entry, or "
            "copy the set again"
        )
    notes += _count_notes(content, len(layout.pairs), file)
    channels = _channels(content)
    intensity, note = _intensity(channels, file)
    notes += note
    splits = path / SPLITS_FILE
    if splits.is_file():
        notes.append(
            f"{SPLITS_FILE} has the folds, of which data.fold names one (or 0)"
        )
    layout = _with_test(layout, path, ending)
    first = f"nnU-Net's layout: {len(layout.pairs)} cases, {layout.note}"
    return layout._replace(
        note="; ".join([first, *notes]),
        class_names=names,
        label_map=label_map,
        regions=regions,
        intensity=intensity,
        channel_names=tuple(channels),
        splits_file=str(splits) if splits.is_file() else "",
        problems=(*layout.problems, *_channel_counts(layout.pairs, channels, file)),
    )


def _count_notes(content: Mapping[str, Any], found: int, file: Path) -> list[str]:
    """Write that another number of training cases is stated than was found."""
    stated = content.get("numTraining", content.get("training"))
    count = len(stated) if isinstance(stated, list) else stated
    if count is None or count == found:
        return []
    return [f"WARNING: {file.name} states {count} training cases"]


def _read(file: Path) -> dict[str, Any] | None:
    """Read a dataset.json; None if it describes something else."""
    if not file.is_file():
        _check_no_sets(file.parent)
        return None
    beside = (file.parent / "imagesTr").is_dir()
    try:
        content = json.loads(file.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError) as error:
        if not beside:
            return None
        raise InputError(
            f"{file}: is not JSON ({error}); expected nnU-Net's description of the "
            "set; fix it, or set data.images and data.masks to do without"
        ) from None
    known = isinstance(content, dict) and isinstance(content.get("labels"), dict)
    if not known or not (beside or isinstance(content.get("dataset"), dict)):
        return None
    return dict(content)


def _check_no_sets(path: Path) -> None:
    """Refuse a folder of data sets, such as nnUNet_raw itself."""
    sets = [
        one.name
        for one in (sorted(path.iterdir()) if path.is_dir() else ())
        if (one / "dataset.json").is_file() and (one / "imagesTr").is_dir()
    ]
    if sets:
        raise InputError(
            f"data.path: {path} holds the sets {', '.join(sets[:5])}; expected one "
            f"of them; name it, such as {path / sets[0]}"
        )


def stated_classes(
    labels: Mapping[str, Any], file: Path
) -> tuple[tuple[str, ...], tuple[Entry, ...], dict[str, list[int]]]:
    """Take names, label map and the values of each name from the entry ``labels``.

    nnU-Net 2 has values by name, the Decathlon and nnU-Net 1 names by value.
    """
    try:
        if all(key.isdecimal() for key in labels):
            stored = {str(name): [int(key)] for key, name in labels.items()}
        else:
            stored = {
                name: [int(one) for one in value]
                if isinstance(value, list)
                else [int(value)]
                for name, value in labels.items()
            }
        ignored = {value for value in stored.pop("ignore", [])}
        values = sorted({one for found in stored.values() for one in found} - ignored)
        if values[0] != 0:
            raise ValueError("no class has the value 0")
    except (TypeError, ValueError, IndexError) as error:
        raise InputError(
            f"{file}: labels {dict(labels)} are no classes ({error}); expected a value "
            "for each name, such as background 0; fix the entry"
        ) from None
    alone = {found[0]: name for name, found in stored.items() if len(found) == 1}
    names = tuple(alone.get(value, f"value_{value}") for value in values)
    classes = [(value, index) for index, value in enumerate(values)]
    ignore = [(value, IGNORE) for value in sorted(ignored)]
    return names, (*classes, *ignore), stored


def stated_regions(
    stored: Mapping[str, Sequence[int]],
    label_map: Sequence[Entry],
    content: Mapping[str, Any],
    file: Path,
) -> tuple[tuple[Region, ...], list[str]]:
    """Take the regions of several values, in the order of writing; and a note.

    Where a name has several values, nnU-Net segments all names as regions.
    """
    if all(len(found) == 1 for found in stored.values()):
        return (), []
    index = dict(label_map)
    named = {name: found for name, found in stored.items() if set(found) != {0}}
    order = content.get("regions_class_order")
    if order is None:
        several = ", ".join(name for name, found in named.items() if len(found) > 1)
        return (), [
            f"{several} are regions of several values, but {file.name} has no "
            "regions_class_order; each value is a class"
        ]
    try:
        regions = tuple(
            Region(name, tuple(index[one] for one in found), index[int(written)])
            for (name, found), written in zip(named.items(), order, strict=True)
        )
    except (TypeError, ValueError, KeyError):
        raise InputError(
            f"{file}: regions_class_order is {order!r}; expected one of the values of "
            f"labels for each of {', '.join(named)}; fix the entry"
        ) from None
    return regions, [f"regions: {', '.join(named)}, as regions_class_order writes them"]


def _channels(content: Mapping[str, Any]) -> list[str]:
    """Return the names of the channels; nnU-Net 1 called them modalities."""
    channels = content.get("channel_names", content.get("modality"))
    return [str(one) for one in channels.values()] if isinstance(channels, dict) else []


def _intensity(channels: list[str], file: Path) -> tuple[str | None, list[str]]:
    """Return the normalisation of all channels, None if the data choose it; a note."""
    found = {_INTENSITIES.get(channel.lower()) for channel in channels}
    if len(found) > 1:
        what = f"{file.name} states several normalisations ({', '.join(channels)})"
        return None, [f"{what}; without model.plan all channels have one"]
    return next(iter(found), None), []


def _in_folders(path: Path, part: str, ending: str) -> Layout:
    """Pair the files of ``imagesTr`` and ``labelsTr``, or ``imagesTs``."""
    images, masks = (
        {
            file: stem_in(file, folder)
            for file in list_files(folder)
            if file.name.lower().endswith(ending.lower())
        }
        for folder in (path / f"images{part}", path / f"labels{part}")
    )
    # In the Decathlon the channels are in one file, whose name has no number.
    known, stems = set(masks.values()), images.values()
    numbered = {CHANNEL.sub("", stem) for stem in stems if CHANNEL.search(stem)}
    plain = len(known & set(stems))
    channel = "_0000" if numbered and len(known & numbered) >= plain else ""
    layout = join(images, masks, channel, "", naming=Naming())
    return layout._replace(note=f"images in images{part}/, masks in labels{part}/")


def _listed(dataset: Mapping[str, Any], path: Path, file: Path) -> Layout:
    """Take the cases that the entry ``dataset`` lists."""
    pairs = []
    for name, entry in sorted(dataset.items()):
        try:
            images = [path / os.path.expandvars(one) for one in entry["images"]]
            mask = path / os.path.expandvars(entry["label"])
        except (TypeError, KeyError):
            raise InputError(
                f"{file}: case {name!r} of dataset is {entry!r}; expected lists of "
                "images and a label; fix the entry"
            ) from None
        pairs.append(make_pair(name, "", images, (mask,)))
    return Layout(tuple(pairs), (), f"files as {file.name} lists them")


def _with_test(layout: Layout, path: Path, ending: str) -> Layout:
    """Add the images of ``imagesTs`` that have a mask, as the test split."""
    if not (path / "labelsTs").is_dir() or not (path / "imagesTs").is_dir():
        return layout
    found = _in_folders(path, "Ts", ending)
    known = {pair.id for pair in layout.pairs}
    test = [
        pair._replace(id=f"imagesTs/{pair.id}") if pair.id in known else pair
        for pair in found.pairs
        if pair.masks
    ]
    if not test:
        return layout
    note = f"{layout.note}; imagesTs/ is the test split ({len(test)} labelled)"
    return layout._replace(
        pairs=(*layout.pairs, *test),
        orphans=(*layout.orphans, *found.orphans),
        problems=(*layout.problems, *found.problems),
        note=note,
        test=tuple(pair.id for pair in test),
    )


def _channel_counts(
    pairs: Iterable[Pair], channels: list[str], file: Path
) -> list[str]:
    """Name the images that have not one file for each channel, nor one for all."""
    wrong = [
        f"{pair.images[0].parent / stem_of(pair.images[0])}"
        for pair in pairs
        if channels and len(pair.images) not in (1, len(channels))
    ]
    return [
        f"{one}: its image has another number of files than {file.name} has channels; "
        f"expected {len(channels)} ({', '.join(channels)}); add or remove files"
        for one in wrong
    ]
