"""Chooses the options of a U-Net that suit the data."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from unet_jax.models.unet import UNet


@dataclasses.dataclass(frozen=True)
class Suggestion:
    """What suits the data.

    Attributes:
        options: options of the network, those that the user gave left out.
        patch_size: crop that fits the network.
    """

    options: dict[str, Any]
    patch_size: tuple[int, ...]


def suit_unet(
    given: Mapping[str, Any],
    *,
    features: tuple[int, ...],
    kernel_sizes: tuple[tuple[int, ...], ...],
    strides: tuple[tuple[int, ...], ...],
    patch_size: tuple[int, ...],
    fixed_patch: bool,
) -> Suggestion:
    """Choose the options of a U-Net that its user has not ``given``.

    Features, kernel sizes and strides are those that suit the patch, the spacing and
    the memory, finest first; ``fixed_patch`` says that the user gave the crop.
    """
    found: dict[str, Any] = {"features": features, "norm": "batch"}
    if "features" not in given:
        found |= {"kernel_sizes": kernel_sizes, "strides": strides}
    padded = given.get("padding", "SAME") == "SAME"
    coarser = max(0, len(given.get("features", features)) - 2)
    found["deep_supervision"] = min(2, coarser) if padded else 0
    network = UNet(num_classes=2, **{**found, **given})
    if "features" in given:
        patch_size = network.sizes(len(patch_size)).tiling_size(patch_size)
    elif not padded:
        network, patch_size = fit_stages(network, patch_size, fixed=fixed_patch)
        for key in ("features", "kernel_sizes", "strides"):
            found[key] = tuple(getattr(network, key))
    options = {key: value for key, value in found.items() if key not in given}
    return Suggestion(options, patch_size)


def fit_stages(
    network: UNet, patch: Sequence[int], *, fixed: bool
) -> tuple[UNet, tuple[int, ...]]:
    """Leave out coarse stages until a patch suits a network without padding.

    The patch may become smaller or, where even two stages need more, larger, unless it
    is fixed. The network keeps as many of its stages as leave half of the patch, and
    two where none do.
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
