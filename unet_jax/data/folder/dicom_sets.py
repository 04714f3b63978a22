"""Pairs DICOM masks with their series, and finds the classes that they have."""

import os
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from unet_jax.data.files.dicom import mask_kind, series_of
from unet_jax.data.files.dicom_masks import referred_series, segment_names
from unet_jax.data.files.formats import DICOM, format_of
from unet_jax.data.folder.channels import same_form
from unet_jax.data.folder.listing import list_files, stem_in, walk_once
from unet_jax.data.folder.options import FolderOptions
from unet_jax.data.folder.pairing import Layout, Naming, make_pair, several_masks
from unet_jax.errors import InputError, named_files, setting


def dicom_layout(path: Path, naming: Naming) -> Layout | None:
    """Pair masks with the series that they refer to, wherever the files lie.

    Returns:
        The pairs; None for a folder with other files, or without such masks.
    """
    masks = _masks(path)
    images = [one for one in list_files(path) if one not in masks] if masks else []
    if not images or not all(format_of(one) is DICOM for one in images):
        return None
    by_series: dict[str, Path] = {}
    patients: dict[Path, str] = {}
    for image in images:
        uid, patients[image] = series_of(image)
        if by_series.setdefault(uid, image) != image:
            return None
    found: dict[Path, list[Path]] = {}
    lost = []
    for mask in masks:
        here = sorted(referred_series(mask) & by_series.keys())
        if here:
            found.setdefault(by_series[here[0]], []).append(mask)
        else:
            lost.append(str(mask))
    if not found:
        return None
    # Those who take names out of files may write one id into all of them.
    known = len({patients[image] for image in found}) > 1
    top = Path(os.path.commonpath([str(one.parent) for one in found]))
    pairs = [
        make_pair(
            stem_in(image, top),
            same_form(patients[image]) if known else "",
            [image],
            drawn,
        )
        for image, drawn in sorted(found.items())
    ]
    problems = several_masks(pairs, naming)
    if lost:
        problems.append(
            f"{named_files(lost)}: the series that the mask refers to is not in "
            f"{path}; expected it beside the mask; add it, or move the mask away"
        )
    note = f"DICOM masks by the series that they refer to ({len(pairs)})"
    if others := len(images) - len(found):
        note += f"; {others} series without a mask are left out"
    return Layout(tuple(pairs), (), note, problems=tuple(problems))


def _masks(path: Path) -> list[Path]:
    """List the DICOM masks of a folder and its subfolders."""
    found = [
        file
        for place, names in walk_once(path)
        for name in names
        if not name.startswith(".") and mask_kind(file := Path(place, name))
    ]
    return sorted(found)


def with_segments(layout: Layout, options: FolderOptions) -> Layout:
    """Add the classes of the DICOM masks of a layout; others stay as they are.

    The classes are ``data.segments``; or the names of ``data.class_names`` if they name
    all segments; or the segments of the case that has those of all others.

    Raises:
        InputError: a segment is none of the classes, or no case has all segments.
    """
    files = [mask for pair in layout.pairs for mask in pair.masks]
    kinds = Counter(mask_kind(file) for file in files)
    if not set(kinds) - {""}:
        return layout
    if "" in kinds:
        others = [str(file) for file in files if not mask_kind(file)]
        raise InputError(
            f"{named_files(others)}: a mask that is no DICOM file, beside "
            f"{len(files) - len(others)} that are; expected masks of one format; "
            "convert the others"
        )
    names = {file: segment_names(file) for file in files}
    regions = options.regions
    segments = tuple(one.name for one in regions) or _classes(names, options)
    _check_known(names, segments, options)
    counts = Counter(name for found in names.values() for name in set(found))
    listed = ", ".join(f"{one!r} in {counts[one]}" for one in segments)
    note = f"{layout.note}; segments of {len(files)} DICOM masks: {listed}"
    layout = layout._replace(note=note, segments=segments)
    classes = list(segments)
    if regions:
        last = max(max(one.classes) for one in regions)
        classes = [f"class_{index}" for index in range(1, last + 1)]
    return layout._replace(
        class_names=("background", *classes),
        label_map=tuple((index, index) for index in range(len(classes) + 1)),
    )


def _classes(names: dict[Path, list[str]], options: FolderOptions) -> tuple[str, ...]:
    """Return the segments that are classes, in their order."""
    if options.segments:
        return tuple(options.segments)
    union = tuple(dict.fromkeys(name for found in names.values() for name in found))
    given = tuple(options.class_names or ())[1:]
    if given:
        return given
    richest = max(names.values(), key=len)
    if set(union) - set(richest):
        rare = [name for name in union if name not in richest]
        files = [str(one) for one, found in names.items() if set(rare) & set(found)]
        raise InputError(
            f"{named_files(files)}: the segments {', '.join(map(repr, rare))} are not "
            f"among those of {_file_with(names, richest)} "
            f"({', '.join(map(repr, richest))}); expected a mask with all segments, or "
            "their names; name those that are classes, in this order or another: "
            f"{setting('data.segments', union)}"
        )
    return tuple(richest)


def _file_with(names: dict[Path, list[str]], segments: Sequence[str]) -> str:
    """Return the first file that has some segments."""
    return next(str(file) for file, found in names.items() if found == segments)


def _check_known(
    names: dict[Path, list[str]], segments: Sequence[str], options: FolderOptions
) -> None:
    """Refuse segments that are no class, unless ``data.segments`` leaves them out."""
    if options.segments:
        found = {name for one in names.values() for name in one}
        if missing := [one for one in segments if one not in found]:
            raise InputError(
                f"data.segments: no mask has {', '.join(map(repr, missing))}; expected "
                f"names among {', '.join(map(repr, sorted(found)))}; fix the names"
            )
        return
    for file, found_here in names.items():
        if unknown := [one for one in found_here if one not in segments]:
            raise InputError(
                f"{file}: the segments {', '.join(map(repr, unknown))} are no class; "
                f"expected some of {', '.join(map(repr, segments))}; to leave others "
                f"out, set {setting('data.segments', tuple(segments))}"
            )
