"""The table of networks: one row each.

A new network is a file beside this one with a linen module that fulfils
`network.Network`, a row here, and a test. A network of the user's own module needs no
row: ``model.name`` takes ``"package.module:function"``.
"""

import dataclasses
import difflib
import functools
import inspect
from collections.abc import Callable, Mapping
from typing import Any

import flax.linen as nn
import jax.numpy as jnp

from unet_jax.errors import InputError
from unet_jax.models.mednext import MedNeXt
from unet_jax.models.segresnet import SegResNet
from unet_jax.models.swin_unetr import SwinUNETR
from unet_jax.models.unet import UNet
from unet_jax.models.unet_for_data import Suggestion, suit_unet
from unet_jax.models.wnet import WNet
from unet_jax.runtime.user_code import is_user_code, load_function

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
    block="residual_d",
    decoder_block="plain",
    stem=True,
    downsample="centred",
    convolutions_per_stage=(1, 3, 4, 6, 6, 6),
    decoder_convolutions=1,
    # Its coarsest output has no weight in nnU-Net's loss, but it is in its weights.
    deep_supervision=4,
)
"""nnU-Net's ResEnc without biases before norms (Isensee et al. 2024, arXiv:2404.09556).

With the same weights it gives the outputs of dynamic-network-architectures'
``ResidualEncoderUNet``; ``UNet`` with ``downsample="centred"`` those of its
``PlainConvUNet``.
"""

ResidualEncoderV0 = functools.partial(
    UNet,
    features=(32, 64, 128, 256, 320, 320),
    block="residual",
    downsample="strided",
    convolutions_per_stage=(1, 3, 4, 6, 6, 6),
    decoder_convolutions=1,
)
"""What ``residual_encoder`` was in version 0.1."""

MedNeXtB = functools.partial(MedNeXt, expansions=(2, 3, 4, 4, 4))


def make_wnet(
    *, num_classes: int, dtype: Any, axis_name: str | None, **options: Any
) -> WNet:
    """Make a W-Net; the options go to its two U-Nets, by default of three stages."""
    unet = functools.partial(UNet, **{"features": (16, 32, 64), **options})
    return WNet(num_classes=num_classes, unet=unet, dtype=dtype, axis_name=axis_name)


@dataclasses.dataclass(frozen=True)
class Row:
    """A network of the table.

    Attributes:
        make: module class, or function of ``num_classes``, the options and, where it
            has them, ``dtype`` and ``axis_name``.
        about: one line for users.
        options_of: class or function whose arguments are the options; None for
            ``make``.
        left_to_data: options that the data choose where the config has none.
        suit: chooses them: see `unet_for_data.suit_unet`.
    """

    make: Callable[..., nn.Module]
    about: str
    options_of: Callable[..., Any] | None = None
    left_to_data: tuple[str, ...] = ()
    suit: Callable[..., Suggestion] | None = None


NETWORKS: dict[str, Row] = {
    "unet": Row(
        UNet,
        "a U-Net whose stages the data choose, or features",
        left_to_data=("features", "norm", "deep_supervision"),
        suit=suit_unet,
    ),
    "unet_tiny": Row(UNetTiny, "a U-Net of 8 to 32 channels"),
    "unet_small": Row(UNetSmall, "a U-Net of 16 to 128 channels"),
    "unet_base": Row(UNetBase, "a U-Net of 32 to 512 channels"),
    "unet_2015": Row(UNet2015, "the U-Net of the paper, without padding"),
    "residual_encoder": Row(ResidualEncoder, "nnU-Net's residual encoder U-Net"),
    "residual_encoder_v0": Row(ResidualEncoderV0, "residual_encoder of version 0.1"),
    "wnet": Row(make_wnet, "two U-Nets that need no labels", options_of=UNet),
    "mednext_s": Row(MedNeXt, "a U-Net of ConvNeXt blocks"),
    "mednext_b": Row(MedNeXtB, "MedNeXt with wider blocks"),
    "swin_unetr": Row(SwinUNETR, "a Swin transformer with a convolutional decoder"),
    "segresnet": Row(SegResNet, "residual blocks with a small decoder"),
}

_NOT_OPTIONS = ("num_classes", "dtype", "axis_name", "name", "parent")
"""Arguments that are no options: the config says them elsewhere, or Flax does."""


def network_row(name: str) -> Row:
    """Return the row of a network by its name in a config.

    Raises:
        InputError: the name is not known, or the function cannot be loaded.
    """
    if is_user_code(name):
        try:
            return Row(load_function(name), "a network of the user's own module")
        except InputError as error:
            raise InputError(f"model.name: {error}") from error
    if name not in NETWORKS:
        raise InputError(
            f"model.name: unknown network {name!r}; expected one of "
            f"{', '.join(NETWORKS)}, or 'package.module:function' of your own"
        )
    return NETWORKS[name]


def check_options(name: str, options: Mapping[str, Any]) -> None:
    """Refuse options that a network does not have.

    Raises:
        InputError: the network (see `network_row`), or an option, is not known.
    """
    row = network_row(name)
    known = _options(row.options_of or row.make)
    if known is None:
        return
    for option in options:
        if option not in known:
            near = difflib.get_close_matches(option, known, n=1)
            hint = f"; did you mean {near[0]!r}?" if near else ";"
            raise InputError(
                f"model.options.{option}: network {name!r} has no such option{hint} "
                f"It has {', '.join(known) or 'none'}"
            )


def _options(make: Callable[..., Any]) -> tuple[str, ...] | None:
    """Names of the options of a constructor; None if it takes any."""
    parameters = inspect.signature(make).parameters
    if any(one.kind is one.VAR_KEYWORD for one in parameters.values()):
        return None
    return tuple(key for key in parameters if key not in _NOT_OPTIONS)


def create_model(
    *,
    name: str,
    num_classes: int,
    dtype: str = "float32",
    axis_name: str | None = None,
    **options: Any,
) -> nn.Module:
    """Make the named network.

    Args:
        name: key of ``NETWORKS``, or ``"package.module:function"``.
        num_classes: channels of the logits.
        dtype: compute dtype, ``"float32"`` or ``"bfloat16"``.
        axis_name: mapped axis over which batch norm is synchronised.
        **options: options of the network; None leaves its default.

    Returns:
        The module; ``init`` and ``apply`` are its own.

    Raises:
        InputError: the name or an option is not known, or a needed one is missing.
    """
    row = network_row(name)
    given = {key: value for key, value in options.items() if value is not None}
    check_options(name, given)
    parameters = inspect.signature(row.make).parameters
    try:
        general = {"dtype": jnp.dtype(dtype), "axis_name": axis_name}
    except TypeError:
        raise InputError(
            f"model.dtype: found {dtype!r}, expected 'float32' or 'bfloat16'"
        ) from None
    if "dtype" not in parameters and dtype != "float32":
        raise InputError(
            f"model.dtype: found {dtype!r}, and network {name!r} takes no dtype; "
            "expected 'float32'"
        )
    given |= {key: value for key, value in general.items() if key in parameters}
    missing = [
        key
        for key, one in parameters.items()
        if one.default is one.empty
        and one.kind in (one.POSITIONAL_OR_KEYWORD, one.KEYWORD_ONLY)
        and key not in given
        and key != "num_classes"
    ]
    if missing:
        raise InputError(
            f"model.options: network {name!r} needs {', '.join(missing)}; give "
            f"--config.model.options.{missing[0]}=VALUE"
        )
    network = row.make(num_classes=num_classes, **given)
    if not isinstance(network, nn.Module):
        raise InputError(
            f"model.name: {name!r} made {type(network).__name__}, expected a linen "
            "module (flax.linen.Module)"
        )
    return network
