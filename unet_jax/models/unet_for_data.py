"""Fits the stages of a U-Net without padding to a patch."""

from collections.abc import Sequence

from unet_jax.models.unet import UNet


def fit_stages(
    network: UNet, patch: Sequence[int], *, fixed: bool
) -> tuple[UNet, tuple[int, ...]]:
    """Leave out coarse stages until a patch suits a network without padding.

    Args:
        network: U-Net with as many stages as one with padding would have.
        patch: its patch.
        fixed: whether the patch has to stay; else it may become smaller or, where even
            two stages need more, larger.

    Returns:
        The network with as many of its stages as leave half of the patch, and the
        patch; with two stages where none do.
    """
    patch = tuple(patch)
    if network.padding == "SAME":
        return network, patch
    shorter = network
    for stages in range(len(network.features), 1, -1):
        shorter = network.clone(
            features=network.features[:stages],
            kernel_sizes=network.kernel_sizes and network.kernel_sizes[:stages],
            strides=network.strides and network.strides[: stages - 1],
        )
        size = shorter.sizes(len(patch)).largest_size(patch)
        if size is not None and (size == patch or not fixed):
            return shorter, size
    return shorter, patch if fixed else shorter.sizes(len(patch)).tiling_size(patch)
