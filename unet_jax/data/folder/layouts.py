"""Finds the layout of a folder: a published set's, or any other.

A new published layout is one module with a function, and one entry of ``PUBLISHED``.
"""

from collections.abc import Callable
from pathlib import Path

from unet_jax.data.files.formats import SUFFIXES
from unet_jax.data.folder.celebamask import celebamask_layout
from unet_jax.data.folder.dicom_sets import dicom_layout
from unet_jax.data.folder.fasseg import fasseg_layout
from unet_jax.data.folder.find import as_stored, find_folder_of_masks, find_pairs
from unet_jax.data.folder.listing import list_files, stem_in
from unet_jax.data.folder.nnunet import nnunet_layout
from unet_jax.data.folder.pairing import (
    Layout,
    Naming,
    group_images,
    make_pair,
)
from unet_jax.data.folder.stacks import stack_slices
from unet_jax.errors import InputError

PUBLISHED: tuple[Callable[[Path], Layout | None], ...] = (
    fasseg_layout,
    celebamask_layout,
    nnunet_layout,
)
"""Functions that return the layout of a published set, or None for another folder."""


def find_layout(
    path: Path, *, images: str, masks: str, naming: Naming, stack: bool
) -> Layout:
    """Find images and their masks; InputError if there are none, or several ways."""
    layout, path = None, as_stored(path)
    if not (images or masks or naming.mask_suffix):
        found = (published(path) for published in PUBLISHED)
        layout = next((one for one in found if one is not None), None)
        layout = layout or dicom_layout(path, naming)
    if layout is None:
        layout = find_pairs(path, images=images, masks=masks, naming=naming)
    elif not layout.pairs:
        raise InputError(
            f"data.path: {path}: {layout.note}; expected images with masks of their "
            "names; copy the set again"
        )
    return stack_slices(layout) if stack else layout


def find_label_maps(path: Path, *, masks: str, stack: bool) -> Layout:
    """Make a case of every label map of a folder; InputError if there are none.

    The folder of masks of a set with images is taken without the images.
    """
    folder = find_folder_of_masks(as_stored(path), masks)
    names = {file: stem_in(file, folder) for file in list_files(folder)}
    if not names:
        raise InputError(
            f"data.path: {folder} holds no label map; expected files "
            f"({', '.join(SUFFIXES)}), because data.labels_only is True"
        )
    ids, groups, problems, _ = group_images(names, "", Naming())
    pairs = [
        make_pair(ids[key], key.rpartition("/")[0], groups[key], groups[key])
        for key in sorted(groups)
    ]
    note = f"label maps without images, in {folder.name}/"
    layout = Layout(tuple(pairs), (), note, problems=tuple(problems))
    return stack_slices(layout) if stack else layout
