"""Pairs images with their masks by the names of their files."""

import itertools
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from pathlib import Path
from typing import NamedTuple

from unet_jax.data.files.formats import stem_of
from unet_jax.data.folder.channels import (
    CHANNEL,
    by_channel,
    channel_problems,
    incomplete_images,
    proposed_channels,
    same_form,
)
from unet_jax.data.folder.listing import list_files, stem_in
from unet_jax.data.label_map import Entry
from unet_jax.data.regions import Region
from unet_jax.errors import InputError, named_files, setting

_WORDS = (
    *("mask", "masks", "label", "labels", "labelmap", "seg", "segmentation", "gt"),
    *("groundtruth", "ground_truth", "annotation", "annotations", "lesion", "roi"),
    *("instances", "truth", "manual"),
)
MASK_SUFFIXES = tuple(f"{mark}{word}" for word in _WORDS for mark in "_-.")
_IMAGE_SUFFIXES = (
    *("", "_image", "_img", "_raw", "_0000", "-image", "-img"),
    *("_volume", "-volume", "_training", "_test"),
)

_NUMBER = re.compile(r"[ _.-]*\(?\d+\)?$")
"""Number at the end of a name, as in ``_mask_1``, ``_mask2`` or ``_mask (2)``."""


class Pair(NamedTuple):
    """The files of one case.

    Attributes:
        id: path inside the folder of images, without the suffix.
        patient: folder of the case; "" for none.
        images: the image file, or one file per channel or slice.
        masks: the mask file, or one file per slice or class, or several files whose
            union is the label; () if there is none.
        kind: meaning of several files, one of ``read.KINDS``.
        painted: for "parts", the value that each mask stands for.
    """

    id: str
    patient: str
    images: tuple[Path, ...]
    masks: tuple[Path, ...]
    kind: str = "channels"
    painted: tuple[int, ...] = ()


class Layout(NamedTuple):
    """Files of a folder.

    Attributes:
        pairs: images with their masks, by id.
        orphans: masks without an image; they are examined too.
        class_names: class names of a published set; None if they are unknown.
        palette: colours of its masks, in the order of the classes; () if none.
        label_map: stored values and their classes; () if they are unknown.
        intensity: normalisation that the set states for all channels; None for none.
        channel_names: names of the channels that the set states; () for none.
        splits_file: file of splits that lies beside the set; "" for none.
        test: ids of its test split; () to draw one.
        regions: regions that it is segmented into; () for its classes.
        segments: names of the segments of its DICOM masks that are read; () for other
            masks.
    """

    pairs: tuple[Pair, ...]
    orphans: tuple[Pair, ...]
    note: str
    class_names: tuple[str, ...] | None = None
    palette: tuple[tuple[int, int, int], ...] = ()
    problems: tuple[str, ...] = ()
    label_map: tuple[Entry, ...] = ()
    intensity: str | None = None
    channel_names: tuple[str, ...] = ()
    splits_file: str = ""
    test: tuple[str, ...] = ()
    regions: tuple[Region, ...] = ()
    segments: tuple[str, ...] = ()


class Naming(NamedTuple):
    """How the names of files are read.

    Attributes:
        mask_suffix: suffix of masks; "" finds it.
        channels: endings of the files that are the channels of an image; () for images
            of one file, or of files that end in ``_0000``, ``_0001`` and so on.
        join_masks: whether several masks of an image are parts of one label.
    """

    mask_suffix: str = ""
    channels: tuple[str, ...] = ()
    join_masks: bool = False


def mask_alone(mask: Path) -> Pair:
    """Make a case of a mask without an image; its path is an id that is unique."""
    return Pair(str(mask), "", (), (mask,))


def pair_folders(images: Path, masks: Path, naming: Naming) -> Layout:
    """Pair the files of two folders by their names."""
    pictures = {file: stem_in(file, images) for file in list_files(images)}
    labels = {file: stem_in(file, masks) for file in list_files(masks)}
    endings = [naming.mask_suffix] if naming.mask_suffix else ["", *MASK_SUFFIXES]
    if naming.channels:
        cut_images = {"": set(by_channel(pictures, naming.channels))}
    else:
        cut_images = _cut(pictures.values(), _IMAGE_SUFFIXES)
    for number in (None, _NUMBER):  # "_mask_1" only where there is no "_mask"
        cut_masks = _cut(labels.values(), endings, number)
        counts = {
            (image, mask): len(cut_images[image] & cut_masks[mask])
            for mask in endings
            for image in cut_images
        }
        best = max(counts, key=lambda pair: counts[pair])
        if counts[best]:
            break
    else:  # 21_training and 21_manual1: endings that all images, and all masks, have
        shared = shared_ending(pictures.values()), shared_ending(labels.values())
        image, mask = (
            _cut(stems.values(), [ending])[ending]
            for stems, ending in zip((pictures, labels), shared, strict=True)
        )
        best = shared if image & mask and not naming.channels else best
    layout = join(pictures, labels, *best, naming=naming)
    note = f"images in {images.name}/, masks in {masks.name}/"
    if best[1]:
        note += f" with the suffix {best[1]}"
    return layout._replace(note=note + layout.note)


def pair_beside(files: Mapping[Path, str], naming: Naming) -> Layout | None:
    """Pair files that lie beside each other, by the ending of the masks.

    Args:
        files: path in the folder of each file, without the suffix.

    Returns:
        The pairs; None if no ending of masks fits.
    """
    endings = [naming.mask_suffix] if naming.mask_suffix else list(MASK_SUFFIXES)
    stems = {same_form(stem) for stem in files.values()}
    image_endings: Sequence[str] = _IMAGE_SUFFIXES
    if naming.channels:
        stems |= set(by_channel(files, naming.channels))
        image_endings = ("",)
    for number in (None, _NUMBER):  # "_mask_1" only where there is no "_mask"
        cut = _cut(files.values(), endings, number)
        counts = {
            (image, ending): sum(base + image in stems for base in cut[ending])
            for image in image_endings
            for ending in endings
        }
        image, best = max(counts, key=lambda pair: counts[pair])
        if counts[image, best]:
            break
    else:
        return None

    def is_mask(stem: str) -> bool:
        numbered = _without_number(stem, best)
        return _ends(stem, best) or (numbered is not None and numbered + image in stems)

    masks = {file: stem for file, stem in files.items() if is_mask(same_form(stem))}
    images = {file: stem for file, stem in files.items() if file not in masks}
    layout = join(images, masks, image, best, naming=naming)
    note = f"masks beside the images, with the suffix {best}"
    return layout._replace(note=note + layout.note)


def join(
    images: Mapping[Path, str],
    masks: Mapping[Path, str],
    ending: str,
    mask_ending: str,
    *,
    naming: Naming,
) -> Layout:
    """Join images and masks of equal names.

    Args:
        images: path in its folder of each image, without the suffix.
        masks: path in its folder of each mask.
        ending: suffix of images that masks lack.
        mask_ending: suffix of masks.

    Returns:
        The pairs, the masks without an image, and a note to append.
    """
    ids, groups, problems, note = group_images(images, ending, naming)
    found: dict[str, list[Path]] = {}
    orphans = []
    for file, stem in masks.items():
        key = _image_of(same_form(stem), mask_ending, groups.keys())
        if key is None:
            orphans.append(mask_alone(file))
        else:
            found.setdefault(key, []).append(file)
    if not naming.channels and len(found) < len(groups):
        refuse_channels(images.values(), masks.values(), mask_ending)
    pairs = []
    for key in sorted(groups):
        labels, twice = _once(found.get(key, []))
        problems += twice
        patient = key.rpartition("/")[0]
        pairs.append(make_pair(ids[key], patient, groups[key], labels))
    problems += several_masks(pairs, naming)
    if naming.channels:  # the others are among the problems
        pairs = [pair for pair in pairs if len(pair.images) == len(naming.channels)]
    return Layout(tuple(pairs), tuple(orphans), note, problems=tuple(problems))


def group_images(
    images: Mapping[Path, str], ending: str, naming: Naming
) -> tuple[dict[str, str], dict[str, list[Path]], list[str], str]:
    """Group the files of each image by the part of their names that a mask has too.

    Returns:
        The id and the files of each image, the problems, and a note.
    """
    if naming.channels:
        channels = by_channel(images, naming.channels)
        problems = incomplete_images(channels, naming.channels)
        groups = {key: [file for _, file in found] for key, found in channels.items()}
        others = len(images) - sum(map(len, groups.values()))
        note = f"; {others} files that are none of data.channels are left out"
        return {key: key for key in groups}, groups, problems, note if others else ""
    ids: dict[str, str] = {}
    groups, problems = {}, []
    for file, stem in images.items():
        numbered = ending == "_0000"
        name = CHANNEL.sub("", stem) if numbered else _without(stem, ending)
        ids.setdefault(same_form(name), name)
        groups.setdefault(same_form(name), []).append(file)
    for key, files in groups.items():
        files.sort()
        if ending == "_0000":
            problems += channel_problems(key, files)
        elif len(files) > 1:
            names = " and ".join(file.name for file in files[:2])
            problems.append(
                f"{files[0].parent}: {names} have the same name; expected one image; "
                "remove or rename one"
            )
            del files[1:]
    return ids, groups, problems, ""


def make_pair(
    name: str, patient: str, images: Sequence[Path], masks: Sequence[Path]
) -> Pair:
    """Make a case of an image; several masks are the parts of its label."""
    kind = "union" if len(masks) > 1 else "channels"
    return Pair(name, patient, tuple(images), tuple(masks), kind)


def several_masks(pairs: Iterable[Pair], naming: Naming) -> list[str]:
    """Refuse several masks of an image, unless they are to be joined."""
    several = [pair for pair in pairs if pair.kind == "union"]
    if naming.join_masks or not several:
        return []
    first, *others = several[0].masks
    names = [str(mask) for pair in several for mask in pair.masks[1:]]
    return [
        f"{named_files(names, 'more masks')}: a second mask of its image, such as "
        f"{others[0].name} beside {first.name} for {several[0].images[0].name}; "
        "expected one mask for each image; to join the masks of an image into one "
        f"label, set {setting('data.join_masks', True)}"
    ]


def refuse_channels(images: Iterable[str], masks: Iterable[str], ending: str) -> None:
    """Refuse images of several files whose endings `proposed_channels` finds.

    Args:
        images, masks: paths in their folder.
        ending: suffix of masks; "" removes the word that makes them masks.
    """
    stems = [
        _without(mask, ending) if ending else _without_word(mask) for mask in masks
    ]
    shorter = [re.sub(r"[_.-][^/_.-]*$", "", stem) for stem in stems]
    images = list(images)
    endings = proposed_channels(images, stems)
    if endings is None and len({*shorter}) == len(stems) > 1:  # p_tumor_segmentation
        endings = proposed_channels(images, shorter)
    if endings is not None:
        raise InputError(
            f"data.path: there are several images for each mask, with the endings "
            f"{', '.join(map(repr, endings))}; expected one image for each mask; if "
            "they are the "
            f"channels of one image, set {setting('data.channels', endings)}; if not, "
            "move the others away"
        )


def mask_endings(images: Iterable[str], masks: Iterable[str]) -> tuple[str, ...]:
    """Return the endings of masks whose names begin as one of an image does.

    Args:
        images: paths of the images in their folder, without the suffix.
        masks: paths of the masks in theirs.

    Returns:
        The endings that more than half of the images have a mask of.

    Example:
        >>> mask_endings(["a", "b"], ["a_left", "a_right", "b_left", "b_right"])
        ('_left', '_right')
    """
    known = {same_form(image) for image in images}
    counts: Counter[str] = Counter()
    for mask in map(same_form, masks):
        marks = [match.start() for match in re.finditer(r"[_. -]", mask)]
        start = next((at for at in reversed(marks) if mask[:at] in known), None)
        if start is not None:
            counts[mask[start:]] += 1
    return tuple(sorted(one for one, n in counts.items() if 2 * n > len(known)))


def _image_of(stem: str, ending: str, images: AbstractSet[str]) -> str | None:
    """Return the image of a mask: of its name, its name without a number, or folder."""
    exact = _without(stem, ending)
    numbered = _without_number(stem, ending)
    folder = stem.rpartition("/")[0]
    return next((one for one in (exact, numbered, folder) if one in images), None)


def _once(files: Sequence[Path]) -> tuple[list[Path], list[str]]:
    """Leave out masks of one name in two formats, and describe them."""
    named: dict[str, Path] = {}
    problems = []
    for file in sorted(files, key=lambda file: (len(stem_of(file)), file)):
        name = str(file.with_name(stem_of(file)))
        other = named.setdefault(same_form(name), file)
        if other != file:
            problems.append(
                f"{file.parent}: {other.name} and {file.name} are masks of one image; "
                "expected one; remove one"
            )
    return list(named.values()), problems


def _without_number(stem: str, ending: str) -> str | None:
    """Remove the ending of a mask and the number after it; None without a number."""
    match = _NUMBER.search(stem)
    if match is None or not _ends(stem[: match.start()], ending):
        return None
    if not ending and match[0].isdecimal():
        return None  # "41" is no second mask of "4"
    return _without(stem[: match.start()], ending)


def _without_word(mask: str) -> str:
    """Remove the word that makes a file a mask; a name of that word alone goes."""
    ending = next((one for one in MASK_SUFFIXES if _ends(mask, one)), "")
    folder, slash, name = mask.rpartition("/")
    return folder + slash if name.lower() in _WORDS else _without(mask, ending)


def shared_ending(stems: Iterable[str]) -> str:
    """Return the ending after a mark that all of some names have; "" for none.

    Example:
        >>> shared_ending(["21_training", "31_training"])
        '_training'
    """
    columns = zip(*(stem[::-1] for stem in stems), strict=False)
    equal = itertools.takewhile(lambda letters: len(set(letters)) == 1, columns)
    found = "".join(letters[0] for letters in equal)[::-1]
    mark = re.search(r"[_. -]", found)
    return found[mark.start() :] if mark else ""


def _cut(
    stems: Iterable[str], endings: Iterable[str], number: re.Pattern[str] | None = None
) -> dict[str, set[str]]:
    """Return the stems that have an ending, without it and a number after it."""
    names: Iterable[str] = map(same_form, stems)
    if number is not None:
        names = (number.sub("", name) for name in names)
    both = [(name, name.lower()) for name in names]
    return {
        ending: {
            stem[: len(stem) - len(ending)]
            for stem, lower in both
            if lower.endswith(ending.lower())
        }
        for ending in endings
    }


def _ends(stem: str, ending: str) -> bool:
    """Tell whether a name has an ending, in upper or lower case."""
    return stem.lower().endswith(ending.lower())


def _without(stem: str, ending: str) -> str:
    """Remove an ending, if the name has it."""
    return stem[: len(stem) - len(ending)] if _ends(stem, ending) else stem
