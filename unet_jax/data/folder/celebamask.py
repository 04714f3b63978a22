"""Finds the files of CelebAMask-HQ, faces in nineteen classes, as published."""

import re
from pathlib import Path

from unet_jax.data.folder.listing import list_files
from unet_jax.data.folder.pairing import Layout, Pair

PARTS = (
    *("skin", "nose", "eye_g", "l_eye", "r_eye", "l_brow", "r_brow", "l_ear", "r_ear"),
    *("mouth", "u_lip", "l_lip", "hair", "hat", "ear_r", "neck_l", "neck", "cloth"),
)
"""Classes 1 to 18, in the order in which masks cover each other."""

IMAGES, MASKS = "CelebA-HQ-img", "CelebAMask-HQ-mask-anno"
_IN_A_FOLDER = 2000
_MASK = re.compile(rf"(\d+)_({'|'.join(PARTS)})\.png", re.IGNORECASE)


def celebamask_layout(path: Path) -> Layout | None:
    """Find the images of CelebAMask-HQ and the masks of their parts.

    ``CelebA-HQ-img/7.jpg`` goes with ``CelebAMask-HQ-mask-anno/0/00007_skin.png`` and
    up to 17 more binary masks of half its size; a folder has the masks of 2000 images.

    Returns:
        The pairs with their classes; None if the folder is something else.

    Source:
        Lee, Liu, Wu, Luo 2020, MaskGAN, arXiv:1907.11922; the order is that of
        ``g_mask.py`` in https://github.com/switchablenorms/CelebAMask-HQ
    """
    if not (path / IMAGES).is_dir() or not (path / MASKS).is_dir():
        return None
    masks: dict[int, dict[int, Path]] = {}
    for folder in sorted((path / MASKS).iterdir()):
        if not folder.is_dir() or not folder.name.isdecimal():
            continue
        for file in folder.iterdir():
            match = _MASK.fullmatch(file.name)
            if match and int(match[1]) // _IN_A_FOLDER == int(folder.name):
                value = 1 + PARTS.index(match[2].lower())
                masks.setdefault(int(match[1]), {})[value] = file
    images = {
        int(file.stem): file
        for file in list_files(path / IMAGES)
        if file.stem.isdecimal()
    }
    pairs = []
    for number in sorted(images.keys() & masks.keys()):
        painted = tuple(sorted(masks[number]))
        pairs.append(
            Pair(
                id=f"{number:05d}",
                patient="",
                images=(images[number],),
                masks=tuple(masks[number][value] for value in painted),
                kind="parts",
                painted=painted,
            )
        )
    note = f"CelebAMask-HQ: images in {IMAGES}, a mask for each part in {MASKS}"
    for count, what in (
        (len(images.keys() - masks.keys()), "images have no mask"),
        (len(masks.keys() - images.keys()), "sets of masks have no image"),
    ):
        if count:
            note += f"; {count} {what} and are left out"
    return Layout(tuple(pairs), (), note, class_names=("background", *PARTS))
