"""How a folder is laid out: as a published set, or as anybody's."""

from pathlib import Path

from unet_jax.data.folder.celebamask import celebamask_layout
from unet_jax.data.folder.fasseg import fasseg_layout
from unet_jax.data.folder.find import Layout, find_pairs
from unet_jax.data.folder.stacks import stack_slices
from unet_jax.errors import InputError


def find_layout(
    path: Path, *, images: str, masks: str, mask_suffix: str, stack: bool
) -> Layout:
    """Find which files are images, and which masks belong to them.

    Args:
        path: the folder.
        images: its folder of images; "" to find it.
        masks: its folder of masks; "" to find it.
        mask_suffix: what a mask's name has behind its image's; "" to find it.
        stack: the pictures of a patient's folder are slices of one volume.

    Returns:
        All pairs.

    Raises:
        InputError: no pairs, or more than one way to read the folder.
    """
    layout = None
    if not (images or masks or mask_suffix):
        layout = fasseg_layout(path) or celebamask_layout(path)
    if layout is None:
        layout = find_pairs(path, images=images, masks=masks, mask_suffix=mask_suffix)
    elif not layout.pairs:
        raise InputError(
            f"data.path: {path}: {layout.note}; expected images with masks of their "
            "names; copy the set again"
        )
    return stack_slices(layout) if stack else layout
