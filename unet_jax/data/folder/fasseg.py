"""Finds the files of FASSEG, faces in six classes, as published."""

import re
from pathlib import Path

from unet_jax.data.folder.listing import list_files, stem_in
from unet_jax.data.folder.pairing import Layout, Pair, mask_alone
from unet_jax.errors import InputError

CLASSES = {
    "background": (255, 0, 0),
    "skin": (255, 255, 0),
    "hair": (127, 0, 0),
    "eyes": (0, 0, 255),
    "nose": (0, 255, 255),
    "mouth": (0, 255, 0),
}
"""Colour of each class in the masks."""

_PERSON = re.compile(r"(personne\d\d)")


def fasseg_layout(path: Path) -> Layout | None:
    """Find the images and masks of one version of FASSEG.

    V1 and V2 have numbered pictures in ``Train_RGB``, ``Train_Labels``, ``Test_RGB``
    and ``Test_Labels``; V3 has ``Train_labels`` and ``Test_labels``, with one folder
    per pose and persons in its file names. Folders called ``JPEG`` contain copies,
    which are used only for images that exist nowhere else. Test images of V3 without
    masks are left out.

    Returns:
        The pairs with their colours and classes, with ids that begin with "train/" and
        "test/"; None if the folder is something else.

    Raises:
        InputError: the folder has several versions.

    Source:
        Khan, Mauro, Leonardi 2015, doi:10.1109/ICIP.2015.7350915;
        https://github.com/massimomauro/FASSEG-repository
    """
    if not path.is_dir():
        return None
    folders = _folders(path)
    if not {"train_rgb", "train_labels"} <= folders.keys():
        _check_no_versions(path, folders)
        return None
    pairs: list[Pair] = []
    orphans: list[Pair] = []
    left_out = 0
    for split in ("train", "test"):
        images = _by_name(folders.get(f"{split}_rgb"), copies=True)
        masks = _by_name(folders.get(f"{split}_labels"), copies=False)
        alone = sorted(masks.keys() - images.keys())
        orphans += [mask_alone(masks[name]) for name in alone]
        left_out += len(images.keys() - masks.keys())
        for name in sorted(images.keys() & masks.keys()):
            person = _PERSON.match(name.rpartition("/")[2])
            patient = f"{split}/{person[1]}" if person else ""
            pairs.append(
                Pair(f"{split}/{name}", patient, (images[name],), (masks[name],))
            )
    note = "FASSEG: images in *_RGB, masks in *_Labels"
    if left_out:
        note += f"; {left_out} images have no mask and are left out"
    return Layout(
        tuple(pairs),
        tuple(orphans),
        note,
        class_names=tuple(CLASSES),
        palette=tuple(CLASSES.values()),
    )


def _folders(path: Path) -> dict[str, Path]:
    """Return the folders in a folder by their names in lower case."""
    return {inside.name.lower(): inside for inside in path.iterdir() if inside.is_dir()}


def _check_no_versions(path: Path, folders: dict[str, Path]) -> None:
    """Refuse a folder of several versions."""
    versions = [f for f in folders.values() if "train_rgb" in _folders(f)]
    if versions:
        names = ", ".join(sorted(folder.name for folder in versions))
        raise InputError(
            f"data.path: {path} holds FASSEG's versions {names}; expected one; name "
            f"it, such as {max(versions)}"
        )


def _by_name(folder: Path | None, *, copies: bool) -> dict[str, Path]:
    """Return the files of a folder by their path in it, without the suffix."""
    files: dict[str, Path] = {}
    if folder is None:
        return files
    copied: dict[str, Path] = {}
    for file in list_files(folder):
        name = stem_in(file, folder)
        first, _, rest = name.partition("/")
        if first.lower() == "jpeg":
            copied[rest] = file
        else:
            files[name] = file
    return copied | files if copies else files
