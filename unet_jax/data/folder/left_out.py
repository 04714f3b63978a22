"""Finds what a folder holds beside its cases, and where their spacing is from."""

import os
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from unet_jax.data.case_traits import CaseTraits
from unet_jax.data.files.formats import SUFFIXES, format_of
from unet_jax.data.folder.find import MASK_WORDS
from unet_jax.data.folder.options import ReadOptions
from unet_jax.data.folder.pairing import Layout
from unet_jax.errors import setting

_MOST_NAMES = 8
"""Largest number of folders or suffixes on a line."""


class LeftOut(NamedTuple):
    """What a folder holds beside the files of its cases.

    Attributes:
        folders: number of images by folder in the folder; "" for none.
        suffixes: number of other files by suffix, the most frequent first.
    """

    folders: dict[str, int]
    suffixes: dict[str, int]


def find_left_out(path: Path, layout: Layout) -> LeftOut:
    """Find the files in a folder that belong to no case; hidden ones do not count."""
    cases = (*layout.pairs, *layout.orphans)
    used = {str(file) for case in cases for file in (*case.images, *case.masks)}
    folders: Counter[str] = Counter()
    suffixes: Counter[str] = Counter()
    for file in _files(path):
        if str(file) in used or str(file.parent) in used:  # or a slice of a series
            continue
        if file.name.lower().endswith(SUFFIXES):
            folders[_top(file, path)] += 1
        else:
            suffixes[file.suffix.lower() or "no suffix"] += 1
    return LeftOut(dict(sorted(folders.items())), dict(suffixes.most_common()))


def describe_left_out(found: LeftOut, *, cases: int) -> list[str]:
    """Write which folders, suffixes and files were left out."""
    lines = []
    for folder, count in list(found.folders.items())[:_MOST_NAMES]:
        many = f", as many as there are cases ({cases})" if count >= cases else ""
        place = f"the folder {folder}/" if folder else "files beside the folders"
        images = f"{count} image" + "s" * (count > 1)
        lines.append(f"{place}: {images}{many}")
    if len(found.folders) > _MOST_NAMES:
        lines.append(f"{len(found.folders) - _MOST_NAMES} more folders of images")
    if others := [f"{count} of {end}" for end, count in found.suffixes.items()]:
        more = len(others) - _MOST_NAMES
        listed = ", ".join(others[:_MOST_NAMES]) + f" and {more} more" * (more > 0)
        lines.append(f"files that are no images: {listed}")
    return [f"left out: {line}" for line in lines or ["nothing"]]


def two_kinds_of_masks(path: Path, layout: Layout, found: LeftOut) -> list[str]:
    """Refuse a folder of masks beside another one that has a mask for every case.

    A field of view and the vessels in it are both masks of the same images.
    """
    chosen = {_top(mask, path) for pair in layout.pairs for mask in pair.masks}
    images = {_top(image, path) for pair in layout.pairs for image in pair.images}
    places = chosen | images
    if len(chosen) != 1 or len(images) != 1 or len(places) == 1 or "" in places:
        return []
    masks = sum(len(pair.masks) for pair in layout.pairs)
    others = [
        name
        for name, count in found.folders.items()
        if count >= masks and set(re.split(r"[^a-z]+", name.lower())) & MASK_WORDS
    ]
    if not others:
        return []
    names = [*chosen, *others]
    settings = " or ".join(setting("data.masks", name) for name in names)
    return [
        f"data.masks: {path} has masks in {', '.join(names)}, {masks} or more in each; "
        f"expected one folder of them; name it: {settings}"
    ]


def spacing_origin(cases: Sequence[CaseTraits], options: ReadOptions) -> str:
    """Write where the spacing of the cases comes from."""
    known = "data.known_spacing"
    found = set()
    for case in cases:
        file = format_of(Path(case.images[0]))
        if case.spacing is None:
            found.add("no file states one, and distances are in pixels")
        elif case.kind != "slices" and file.volumes:
            found.add(f"from {file.name.removeprefix('gzip-compressed ')} headers")
        elif case.kind != "slices" and file.pages:
            stated = "from OME or ImageJ metadata"
            found.add(f"{stated}, or {known}" if options.known_spacing else stated)
        else:
            found.add(f"from {known}")
    return f"spacing: {'; '.join(sorted(found))}"


def _files(path: Path) -> Iterable[Path]:
    """List the files of a folder and its subfolders, without hidden ones."""
    for place, inside, files in os.walk(path):
        inside[:] = [name for name in inside if not name.startswith(".")]
        yield from (Path(place, name) for name in files if not name.startswith("."))


def _top(file: Path, path: Path) -> str:
    """Return the folder in ``path`` that a file is in; "" for none."""
    parts = file.relative_to(path).parts if file.is_relative_to(path) else ()
    return parts[0] if len(parts) > 1 else ""
