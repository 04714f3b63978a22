"""Networks by their names."""

import functools
from collections.abc import Callable
from typing import Any

import jax.numpy as jnp

from unet_jax.models.unet import UNet
from unet_jax.models.wnet import WNet

UNetTiny = functools.partial(UNet, features=(8, 16, 32))
UNetSmall = functools.partial(UNet, features=(16, 32, 64, 128))
UNetBase = functools.partial(UNet, features=(32, 64, 128, 256, 512))

UNet2015 = functools.partial(
    UNet,
    features=(64, 128, 256, 512, 1024),
    padding="VALID",
    norm="none",
    activation="relu",
    # "At the end of the contracting path", without a number: that of their code.
    dropout=(0.0, 0.0, 0.0, 0.5, 0.5),
)
"""The network of the paper: 572x572 in, 388x388 out."""

ResidualEncoder = functools.partial(
    UNet,
    features=(32, 64, 128, 256, 320, 320),
    block="residual",
    downsample="strided",
    convolutions_per_stage=(1, 3, 4, 6, 6, 6),
    decoder_convolutions=1,
)
"""Residual blocks on the way down as in nnU-Net's ResEnc (Isensee et al. 2024,
arXiv:2404.09556), and one on the way up."""

WNET_FEATURES = (16, 32, 64)
"""Channels of each stage of either U-Net of a W-Net, where none are given."""

NAMES = (
    "unet",
    "unet_tiny",
    "unet_small",
    "unet_base",
    "unet_2015",
    "residual_encoder",
    "wnet",
)
"""What `create_model` knows; "unet" itself has no features of its own."""


def create_model(
    *,
    name: str,
    num_classes: int,
    dtype: str = "float32",
    axis_name: str | None = None,
    **options: Any,
) -> UNet | WNet:
    """Make the named network.

    Args:
        name: one of ``NAMES``.
        num_classes: channels of the logits.
        dtype: compute dtype, ``"float32"`` or ``"bfloat16"``.
        axis_name: mapped axis over which batch norm is synchronised.
        **options: other attributes of ``UNet``, which override the preset's; None
            leaves the preset's. Both U-Nets of a W-Net have them.

    Returns:
        The module; ``init`` and ``apply`` are its own.

    Raises:
        ValueError: the name is not known, or "unet" has no features.
    """
    given = {key: value for key, value in options.items() if value is not None}
    preset: Callable[..., UNet]
    match name:
        case "unet":
            preset = UNet
            if "features" not in given:
                raise ValueError("Model 'unet' needs features, the channels of a stage")
        case "unet_tiny":
            preset = UNetTiny
        case "unet_small":
            preset = UNetSmall
        case "unet_base":
            preset = UNetBase
        case "unet_2015":
            preset = UNet2015
        case "residual_encoder":
            preset = ResidualEncoder
        case "wnet":
            return WNet(
                num_classes=num_classes,
                unet=functools.partial(UNet, **{"features": WNET_FEATURES, **given}),
                dtype=jnp.dtype(dtype),
                axis_name=axis_name,
            )
        case _:
            raise ValueError(f"Unknown model {name!r}; expected one of {NAMES}")
    return preset(
        num_classes=num_classes, dtype=jnp.dtype(dtype), axis_name=axis_name, **given
    )
