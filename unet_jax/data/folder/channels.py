"""Finds the files that are the channels of one image, by their names."""

import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from unet_jax.data.files.formats import stem_of
from unet_jax.errors import named_files

_MOST_CHANNELS = 16

CHANNEL = re.compile(r"_(\d{4})$")
"""Ending of the name of a file that is one channel of an image."""


def same_form(name: str) -> str:
    """Return the one Unicode form (NFC) in which names are compared.

    A Mac may store ``ü`` as ``u`` and two dots; both look the same.
    """
    return unicodedata.normalize("NFC", name)


def image_and_channel(stem: str, channels: Sequence[str]) -> tuple[str, int] | None:
    """Find the image that a file belongs to, and its channel.

    Args:
        stem: path of the file in its folder, without the suffix.
        channels: endings of the files, such as ``"_t1"``; an entry that ends in "/" is
            a folder. Of endings that fit, the longest counts.

    Returns:
        The path without the ending or the folder, and the number of the channel; None
        if no entry fits.
    """
    best: tuple[str, int] | None = None
    length = -1
    for index, entry in enumerate(map(same_form, channels)):
        if len(entry) <= length:
            continue
        if entry.endswith("/"):
            parted = f"/{stem}".lower().rpartition(f"/{entry}".lower())
            if parted[1]:
                at = len(parted[0])
                best, length = (stem[:at] + stem[at + len(entry) :], index), len(entry)
        elif stem.lower().endswith(entry.lower()):
            best, length = (stem[: len(stem) - len(entry)], index), len(entry)
    return None if best is None else (best[0].rstrip("/"), best[1])


def by_channel(
    files: Mapping[Path, str], channels: Sequence[str]
) -> dict[str, list[tuple[int, Path]]]:
    """Group files by their image.

    Args:
        files: path in the folder of each file, without the suffix.

    Returns:
        Number of the channel and file, in the order of the channels, by the common part
        of the names; other files are left out.
    """
    groups: dict[str, list[tuple[int, Path]]] = {}
    for file, stem in files.items():
        found = image_and_channel(same_form(stem), channels)
        if found is not None:
            groups.setdefault(found[0], []).append((found[1], file))
    return {key: sorted(found) for key, found in groups.items()}


def incomplete_images(
    groups: Mapping[str, Sequence[tuple[int, Path]]], channels: Sequence[str]
) -> list[str]:
    """Describe the images that lack a channel, or have one twice."""
    wrong: dict[str, list[str]] = {}
    for found in groups.values():
        counts = Counter(index for index, _ in found)
        for index, entry in enumerate(channels):
            if counts[index] != 1:
                what = f"{counts[index] or 'no'} files for the channel {entry!r}"
                wrong.setdefault(what, []).append(str(found[0][1]))
    return [
        f"{named_files(files)}: {what} of the image; expected one for each of "
        f"data.channels={tuple(channels)}; add or remove files"
        for what, files in wrong.items()
    ]


def channel_problems(key: str, files: Sequence[Path]) -> list[str]:
    """Check that the channels of an image are called ``_0000``, ``_0001``, ..."""
    matches = [CHANNEL.search(stem_of(file)) for file in files]
    numbers = sorted(int(match[1]) if match else -1 for match in matches)
    if numbers == list(range(len(files))):
        return []
    names = ", ".join(sorted(file.name for file in files)[:20])
    return [
        f"{files[0].parent}: the channels of {key} are {names}; expected _0000, _0001 "
        "and so on, each once; add, remove or renumber files"
    ]


def proposed_channels(
    images: Iterable[str], masks: Sequence[str]
) -> tuple[str, ...] | None:
    """Propose the endings of channels, where several images begin as a mask does.

    Args:
        images: paths of the images without a mask, and of those with one.
        masks: paths of the masks, without the word that makes them masks.

    Returns:
        Endings that more than half of the masks have an image of; None if these are
        fewer than two.
    """
    known = {same_form(mask) for mask in masks}
    counts: Counter[str] = Counter()
    for image in map(same_form, images):
        folder = image.rpartition("/")[0]
        starts = [image[:end] for end in range(len(image), len(folder), -1)]
        start = next((one for one in (*starts, f"{folder}/") if one in known), None)
        if start is None:
            continue
        ending = image[len(start) :]
        # "img_12" is no channel of "img_1".
        if not ending or start.endswith("/") or ending[0] in " _.-":
            counts[ending] += 1
    common = sorted(one for one, count in counts.items() if 2 * count > len(known))
    return tuple(common) if 1 < len(common) <= _MOST_CHANNELS else None
