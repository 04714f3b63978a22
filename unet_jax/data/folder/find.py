"""Finds the images of a folder, and the mask that belongs to each."""

import functools
import os
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from unet_jax.data.files.formats import SUFFIXES, stem_of
from unet_jax.errors import InputError
from unet_jax.runtime.home import expanded

IMAGE_FOLDERS = frozenset(
    {
        *("images", "image", "imgs", "img", "imagestr", "input", "inputs", "x", "raw"),
        *("frames", "frame", "photos", "pictures", "scans", "data", "volumes"),
    }
)
MASK_FOLDERS = frozenset(
    {
        *("masks", "mask", "labels", "label", "labelstr", "annotations", "annotation"),
        *("gt", "ground_truth", "groundtruth", "segmentation", "segmentations"),
        *("segs", "seg", "targets", "target", "y", "truth", "labelmaps", "manual"),
    }
)
MASK_WORDS = MASK_FOLDERS | {"instances", "lesion", "lesions", "roi"}
_WORDS = (
    *("mask", "masks", "label", "labels", "labelmap", "seg", "segmentation", "gt"),
    *("groundtruth", "ground_truth", "annotation", "annotations", "lesion", "roi"),
    *("instances", "truth", "manual"),
)
MASK_SUFFIXES = tuple(f"{mark}{word}" for word in _WORDS for mark in "_-.")
_IMAGE_SUFFIXES = (
    *("", "_image", "_img", "_raw", "_0000", "-image", "-img"),
    *("_volume", "-volume"),
)
CHANNEL = re.compile(r"_(\d{4})$")
"""Ending of the name of a file that is one channel of an image."""


class Pair(NamedTuple):
    """The files of one case.

    Attributes:
        id: path inside the folder of images, without the suffix.
        patient: folder of the case; "" for none.
        images: the image file, or one file per channel or slice.
        masks: the mask file, or one file per slice or class; () if there is none.
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
    """

    pairs: tuple[Pair, ...]
    orphans: tuple[Pair, ...]
    note: str
    class_names: tuple[str, ...] | None = None
    palette: tuple[tuple[int, int, int], ...] = ()
    problems: tuple[str, ...] = ()


def find_pairs(path: Path, *, images: str, masks: str, mask_suffix: str) -> Layout:
    """Find images and their masks.

    Returns:
        All pairs; images without a mask are among them, masks without an image are
        orphans.

    Raises:
        InputError: there is no such folder, no image in it, or more than one way to
            read it.
    """
    if not path.is_dir():
        found = "a file" if path.exists() else "nothing"
        raise InputError(
            f"data.path: {path} is {found}, expected a folder with images and masks"
        )
    folders = _two_folders(path, images, masks)
    if folders is not None:
        layout = _pair_folders(*folders, mask_suffix)
    else:
        layout = _pair_side_by_side(path, mask_suffix)
    if not any(pair.masks for pair in layout.pairs):
        known = ", ".join(SUFFIXES)
        raise InputError(
            f"data.path: {path} holds {len(layout.pairs)} images and "
            f"{len(layout.orphans)} masks ({layout.note}), but no image has a mask; "
            f"expected files ({known}) of equal names in two folders such as images/ "
            "and masks/, or masks with a suffix such as _mask; set data.images and "
            "data.masks, or data.mask_suffix"
        )
    return layout


def _two_folders(path: Path, images: str, masks: str) -> tuple[Path, Path] | None:
    """Return the folders of images and of masks, if there are two."""
    found = []
    for key, given, known in (
        ("images", images, IMAGE_FOLDERS),
        ("masks", masks, MASK_FOLDERS),
    ):
        if given:
            folder = path / expanded(given)
            if not folder.is_dir():
                raise InputError(
                    f"data.{key}: {folder} is no folder; expected a folder in data.path"
                )
            found.append([folder])
            continue
        inside = sorted(f for f in path.iterdir() if f.is_dir())
        found.append([f for f in inside if f.name.lower() in known])
    if any(len(folders) > 1 for folders in found):
        key, folders = (
            ("images", found[0]) if len(found[0]) > 1 else ("masks", found[1])
        )
        names = ", ".join(folder.name for folder in folders)
        raise InputError(
            f"data.{key}: {path} has the folders {names}; expected one; name it"
        )
    if found[0] and found[1] and found[0] != found[1]:
        return found[0][0], found[1][0]
    return None


def list_files(folder: Path) -> list[Path]:
    """List the image files of a folder and its subfolders, without hidden files.

    Links to folders are followed. Broken links are listed, so that reading them reports
    the problem.
    """
    found: list[Path] = []
    real = folder.resolve()
    above = {str(folder): frozenset(map(str, real.parents))}  # no link leads back there
    for place, inside, files in os.walk(folder, followlinks=True):
        seen = above.pop(place) | {os.path.realpath(place)}
        inside[:] = [
            name
            for name in inside
            if not name.startswith(".")
            and os.path.realpath(os.path.join(place, name)) not in seen
        ]
        above.update({os.path.join(place, name): seen for name in inside})
        found += [
            Path(place, name)
            for name in files
            if name.lower().endswith(SUFFIXES) and not name.startswith(".")
        ]
    return sorted(file for file in found if file.is_file() or not file.exists())


def stem_in(file: Path, folder: Path) -> str:
    """Return the path of a file inside a folder with slashes, without the suffix."""
    return file.relative_to(folder).with_name(stem_of(file)).as_posix()


def _pair_folders(images: Path, masks: Path, mask_suffix: str) -> Layout:
    """Pair the files of two folders by their names."""
    pictures = {file: stem_in(file, images) for file in list_files(images)}
    labels = {file: stem_in(file, masks) for file in list_files(masks)}
    endings = [mask_suffix] if mask_suffix else ["", *MASK_SUFFIXES]
    best = max(
        ((i, m) for m in endings for i in _IMAGE_SUFFIXES),
        key=lambda pair: len(
            set(_cut(pictures.values(), pair[0])) & set(_cut(labels.values(), pair[1]))
        ),
    )
    pairs, orphans, problems = _joined(pictures, labels, *best)
    note = f"images in {images.name}/, masks in {masks.name}/"
    if best[1]:
        note += f" with the suffix {best[1]}"
    return Layout(pairs, orphans, note, problems=problems)


def _joined(
    images: dict[Path, str], masks: dict[Path, str], ending: str, mask_ending: str
) -> tuple[tuple[Pair, ...], tuple[Pair, ...], tuple[str, ...]]:
    """Join images and masks of equal stems; find orphans and files of one name."""
    groups: dict[str, list[Path]] = {}
    channels = ending == "_0000"
    for file, stem in images.items():
        key = CHANNEL.sub("", stem) if channels else _without(stem, ending)
        groups.setdefault(key, []).append(file)
    problems = []
    named: dict[str, Path] = {}
    for file, stem in masks.items():
        other = named.setdefault(_without(stem, mask_ending), file)
        if other != file:
            problems.append(
                f"{file.parent}: {other.name} and {file.name} are masks of one image; "
                "expected one; remove one"
            )
    pairs = []
    for key in sorted(groups):
        files = sorted(groups[key])
        if channels:
            problems += channel_problems(key, files)
        elif len(files) > 1:
            names = " and ".join(file.name for file in files[:2])
            problems.append(
                f"{files[0].parent}: {names} have the same name; expected one image; "
                "remove or rename one"
            )
            del files[1:]
        mask = (named[key],) if key in named else ()
        pairs.append(Pair(key, key.rpartition("/")[0], tuple(files), mask))
    orphans = tuple(
        mask_alone(file) for key, file in named.items() if key not in groups
    )
    return tuple(pairs), orphans, tuple(problems)


def channel_problems(key: str, files: Sequence[Path]) -> list[str]:
    """Check that the channels of an image are called ``_0000``, ``_0001``, ..."""
    matches = [CHANNEL.search(stem_of(file)) for file in files]
    numbers = sorted(int(match[1]) if match else -1 for match in matches)
    if numbers == list(range(len(files))):
        return []
    names = ", ".join(sorted(file.name for file in files))
    return [
        f"{files[0].parent}: the channels of {key} are {names}; expected _0000, _0001 "
        "and so on, each once; add, remove or renumber files"
    ]


def _pair_side_by_side(path: Path, mask_suffix: str) -> Layout:
    """Pair files that lie beside each other, in one folder or in patients' folders."""
    files = {file: stem_in(file, path) for file in list_files(path)}
    endings = [mask_suffix] if mask_suffix else MASK_SUFFIXES
    stems = set(files.values())
    counts = {
        (image, mask): sum(
            _ends(stem, mask) and stem[: -len(mask)] + image in stems for stem in stems
        )
        for image in _IMAGE_SUFFIXES
        for mask in endings
    }
    image, best = max(counts, key=lambda pair: counts[pair])
    if counts[image, best]:
        masks = {f: s for f, s in files.items() if _ends(s, best)}
        images = {f: s for f, s in files.items() if f not in masks}
        pairs, orphans, problems = _joined(images, masks, image, best)
        note = f"masks beside the images, with the suffix {best}"
        return Layout(pairs, orphans, note, problems=problems)
    return _pair_by_words(path, files)


def _pair_by_words(path: Path, files: dict[Path, str]) -> Layout:
    """Pair the files of each folder in which one is called mask, label or similar."""
    folders: dict[Path, list[Path]] = {}
    home = functools.cache(functools.partial(_home, path))
    for file in files:
        folders.setdefault(home(file.parent), []).append(file)
    pairs: list[Pair] = []
    orphans: list[Pair] = []
    problems: list[str] = []
    for folder, inside in sorted(folders.items()):
        layout = _pair_one_folder(path, folder, inside)
        pairs += layout.pairs
        orphans += layout.orphans
        problems += layout.problems
    note = "one folder per patient"
    return Layout(tuple(pairs), tuple(orphans), note, problems=tuple(problems))


def _home(path: Path, folder: Path) -> Path:
    """Return the folder of the patient or split that a folder of files belongs to."""
    known = IMAGE_FOLDERS | MASK_FOLDERS
    for one in [folder, *folder.parents]:
        if one == path:
            break
        # images/ and masks/ beside each other, with folders of patients in them
        if one.name.lower() in known and _two_folders(one.parent, "", "") is not None:
            return one.parent
    if folder != path and folder.name.lower() in known:
        return folder.parent
    return folder


def _pair_one_folder(path: Path, folder: Path, files: Sequence[Path]) -> Layout:
    """Pair the files of one patient or split."""
    patient = folder.relative_to(path).as_posix()
    patient = "" if patient == "." else patient
    inner = _two_folders(folder, "", "")
    if inner is not None and folder != path:
        layout = _pair_folders(*inner, "")
        renamed = tuple(
            pair._replace(
                id=f"{patient}/{pair.id}",
                patient=f"{patient}/{pair.patient}".rstrip("/"),
            )
            for pair in layout.pairs
        )
        return layout._replace(pairs=renamed)
    masks = [f for f in files if _words(f) & MASK_WORDS]
    images = [f for f in files if f not in masks]
    name = patient or (stem_in(images[0], folder) if images else "")
    if len(images) == 1 and len(masks) == 1:
        return Layout((Pair(name, patient, (images[0],), (masks[0],)),), (), "")
    alone = tuple(
        Pair(stem_in(file, path), patient, (file,), ()) for file in sorted(images)
    )
    return Layout(alone, tuple(map(mask_alone, masks)), "")


def mask_alone(mask: Path) -> Pair:
    """Make a case of a mask without an image; its path is an id that is unique."""
    return Pair(str(mask), "", (), (mask,))


def _words(file: Path) -> set[str]:
    """Return the words of a file name."""
    stem = stem_of(file).lower()
    return {stem, *re.split(r"[^a-z]+", stem)}


def _cut(stems: Iterable[str], ending: str) -> list[str]:
    """Return the stems that have an ending, without it."""
    return [_without(stem, ending) for stem in stems if _ends(stem, ending)]


def _ends(stem: str, ending: str) -> bool:
    """Tell whether a name has an ending, in upper or lower case."""
    return stem.lower().endswith(ending.lower())


def _without(stem: str, ending: str) -> str:
    """Remove an ending, if the name has it."""
    return stem[: len(stem) - len(ending)] if _ends(stem, ending) else stem
