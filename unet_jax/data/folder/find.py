"""Finds the images of a folder, and the masks that belong to each."""

import functools
import os
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

from unet_jax.data.files.formats import SUFFIXES, stem_of
from unet_jax.data.folder.channels import same_form
from unet_jax.data.folder.listing import list_files, stem_in
from unet_jax.data.folder.pairing import (
    Layout,
    Naming,
    Pair,
    group_images,
    make_pair,
    mask_alone,
    mask_endings,
    pair_beside,
    pair_folders,
    refuse_channels,
    several_masks,
)
from unet_jax.errors import InputError, named_files, setting
from unet_jax.runtime.home import expanded

IMAGE_FOLDERS = frozenset(
    {
        *("images", "image", "imgs", "img", "imagestr", "input", "inputs", "x", "raw"),
        *(
            "frames",
            "frame",
            "photos",
            "pictures",
            "scans",
            "data",
            "volumes",
            "jpegimages",
        ),
    }
)
MASK_FOLDERS = frozenset(
    {
        *("masks", "mask", "labels", "label", "labelstr", "annotations", "annotation"),
        *("gt", "ground_truth", "groundtruth", "segmentation", "segmentations"),
        *("segs", "seg", "targets", "target", "y", "truth", "labelmaps", "manual"),
        "segmentationclass",
    }
)
MASK_WORDS = MASK_FOLDERS | {"instances", "lesion", "lesions", "roi"}


def find_pairs(path: Path, *, images: str, masks: str, naming: Naming) -> Layout:
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
        layout = pair_folders(*folders, naming)
    else:
        files = {file: stem_in(file, path) for file in list_files(path)}
        layout = pair_beside(files, naming) or _pair_by_words(path, files, naming)
    if not any(pair.masks for pair in layout.pairs):
        if layout.problems:
            raise InputError(layout.problems[0], layout.problems[1:])
        raise InputError(_no_mask(path, layout))
    joined = sum(pair.kind == "union" for pair in layout.pairs)
    if joined:
        layout = layout._replace(
            note=f"{layout.note}; the masks of {joined} images are joined"
        )
    return layout


def _no_mask(path: Path, layout: Layout) -> str:
    """Write that no image has a mask, with the folders and endings that are there."""
    images = [stem_of(file) for pair in layout.pairs for file in pair.images]
    masks = [stem_of(mask) for pair in layout.orphans for mask in pair.masks]
    fix = "set data.images and data.masks, or data.mask_suffix"
    if endings := mask_endings(images, masks):
        choices = (setting("data.mask_suffix", ending) for ending in endings[:4])
        fix = f"if the masks of the run end so, set {' or '.join(choices)}"
        fix += ", and move other masks away" * (len(endings) > 1)
    inside = Counter(
        file.relative_to(path).parts[0]
        for pair in (*layout.pairs, *layout.orphans)
        for file in (*pair.images, *pair.masks)
        if file.is_relative_to(path) and file.parent != path
    )
    folders = named_files([f"{one}/ ({n})" for one, n in sorted(inside.items())])
    where = f" in {folders}" if inside else ""
    return (
        f"data.path: {path} holds {len(layout.pairs)} images and "
        f"{len(layout.orphans)} masks{where}, but no image has a mask; expected files "
        f"({', '.join(SUFFIXES)}) of equal names in two folders such as images/ and "
        f"masks/, or masks with a suffix such as _mask; {fix}{_other_files(path)}"
    )


def _two_folders(path: Path, images: str, masks: str) -> tuple[Path, Path] | None:
    """Return the folders of images and of masks, if there are two."""
    found = []
    for key, given, known in (
        ("images", images, IMAGE_FOLDERS),
        ("masks", masks, MASK_FOLDERS),
    ):
        if given:
            folder = as_stored(path / expanded(given))
            if not folder.is_dir():
                raise InputError(
                    f"data.{key}: {folder} is no folder; expected a folder in data.path"
                )
            found.append([folder])
            continue
        inside = sorted(f for f in path.iterdir() if f.is_dir())
        found.append([f for f in inside if f.name.lower() in known])
    # VOC has its class masks beside Annotations/, which are no pictures.
    found = [
        [one for one in folders if _has_images(one)] if len(folders) > 1 else folders
        for folders in found
    ]
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


def find_folder_of_masks(path: Path, masks: str) -> Path:
    """Return the folder of masks in a folder; the folder itself where there is none.

    Args:
        masks: name of the folder of masks; "" finds one that is beside images.
    """
    if not path.is_dir():
        found = "a file" if path.exists() else "nothing"
        raise InputError(f"data.path: {path} is {found}, expected a folder of masks")
    if masks:
        folder = as_stored(path / expanded(masks))
        if not folder.is_dir():
            raise InputError(
                f"data.masks: {folder} is no folder; expected a folder in data.path"
            )
        return folder
    folders = _two_folders(path, "", "")
    return path if folders is None else folders[1]


def _has_images(folder: Path) -> bool:
    """Tell whether a folder, or one in it, has a file that can be read."""
    return any(
        name.lower().endswith(SUFFIXES)
        for _, _, names in os.walk(folder)
        for name in names
    )


def as_stored(path: Path) -> Path:
    """Return the name of a folder as the disk has it: its Unicode form may differ."""
    for above in (*reversed(path.parents), path):
        if not above.exists():
            place = above.parent
            if place.is_dir():
                for other in place.iterdir():
                    if same_form(other.name) == same_form(above.name):
                        return as_stored(other / path.relative_to(above))
            break
    return path


def _other_files(path: Path) -> str:
    """Count the files that are not read, by the ending of their names."""
    counts = Counter(
        Path(name).suffix.lower() or "no ending"
        for _, _, names in os.walk(path)
        for name in names
        if not name.startswith(".") and not name.lower().endswith(SUFFIXES)
    )
    if not counts:
        return ""
    listed = ", ".join(f"{count} of {end}" for end, count in counts.most_common(5))
    return f"; files of other formats are not read ({listed})"


def _pair_by_words(path: Path, files: Mapping[Path, str], naming: Naming) -> Layout:
    """Pair the files of each folder in which one is called mask, label or similar."""
    folders: dict[Path, list[Path]] = {}
    home = functools.cache(functools.partial(_home, path))
    for file in files:
        folders.setdefault(home(file.parent), []).append(file)
    pairs: list[Pair] = []
    orphans: list[Pair] = []
    problems: list[str] = []
    for folder, inside in sorted(folders.items()):
        layout = _pair_one_folder(path, folder, inside, naming)
        pairs += layout.pairs
        orphans += layout.orphans
        problems += layout.problems
    if not naming.channels and not all(pair.masks for pair in pairs):
        masks = [file for pair in (*pairs, *orphans) for file in pair.masks]
        images = [stem for file, stem in files.items() if file not in set(masks)]
        refuse_channels(images, [files[file] for file in masks], naming.mask_suffix)
    problems += several_masks(pairs, naming)
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


def _pair_one_folder(
    path: Path, folder: Path, files: Sequence[Path], naming: Naming
) -> Layout:
    """Pair the files of one patient or split; all masks of one image are its own."""
    patient = folder.relative_to(path).as_posix()
    patient = "" if patient == "." else patient
    inner = _two_folders(folder, "", "")
    if inner is not None and folder != path:
        layout = pair_folders(*inner, naming._replace(join_masks=True))
        pairs = layout.pairs
        if len(pairs) == 1 and layout.orphans:
            masks = [*pairs[0].masks, *(one.masks[0] for one in layout.orphans)]
            pairs = (make_pair(pairs[0].id, "", pairs[0].images, masks),)
            layout = layout._replace(orphans=())
        renamed = tuple(
            pair._replace(
                id=f"{patient}/{pair.id}",
                patient=same_form(f"{patient}/{pair.patient}".rstrip("/")),
            )
            for pair in pairs
        )
        return layout._replace(pairs=renamed)
    masks = [f for f in files if _words(f) & MASK_WORDS]
    images = {f: stem_in(f, path) for f in sorted(files) if f not in masks}
    if masks and any(not file.is_dir() for file in images):
        # A DICOM series beside it was the origin of a converted image.
        images = {file: stem for file, stem in images.items() if not file.is_dir()}
    ids, groups, problems, note = group_images(images, "", naming)
    if len(groups) == 1 and masks:
        (key,) = groups
        name = patient or ids[key]
        pairs = (make_pair(name, same_form(patient), groups[key], masks),)
        return Layout(pairs, (), note, problems=tuple(problems))
    pairs = tuple(
        make_pair(ids[key], same_form(patient), groups[key], ()) for key in groups
    )
    orphans = tuple(map(mask_alone, masks))
    return Layout(pairs, orphans, note, problems=tuple(problems))


def _words(file: Path) -> set[str]:
    """Return the words of a file name."""
    stem = stem_of(file).lower()
    return {stem, *re.split(r"[^a-z]+", stem)}
