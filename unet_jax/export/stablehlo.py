"""Writes networks as StableHLO, for other programs that use JAX."""

import datetime
from collections.abc import Mapping, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.export
import jax.numpy as jnp
import numpy as np
from jax.errors import InconclusiveDimensionOperation

from unet_jax.models.network import outputs_of, sizes_of

PLATFORMS = ("cpu", "cuda", "tpu")
"""Platforms that the program is lowered for."""

_MULTIPLE = 64
"""Divides the sizes of an image for a network that states no total stride."""

_KEPT_DAYS = 182
"""JAX promises to read such a file for six months."""


def network_to_stablehlo(
    network: nn.Module,
    variables: Mapping[str, Any],
    *,
    channels: int,
    size: Sequence[int],
) -> tuple[bytes, str]:
    """Write a network with its parameters, serialised by `jax.export`.

    Args:
        network: network of the "plain" implementation, which all platforms have.
        variables: its parameters and statistics.
        channels: channels of the image.
        size: pixels along each axis that the network certainly takes.

    Returns:
        The bytes, and the shape of an image that it takes, such as
        "(b, 16*n0, 16*n1, 3)": multiples of the total stride, because to lower padding
        of any size did not end within seven minutes for five stages. It is fixed to
        ``size`` where the network has no padding, or multiples cannot be lowered.
    """
    fits = sizes_of(network, len(size))
    shapes = [[str(one) for one in size]]
    if not any(fits.margin):
        strides = getattr(fits, "total_stride", (_MULTIPLE,) * len(size))
        shapes.insert(0, [f"{one}*n{axis}" for axis, one in enumerate(strides)])

    variables = jax.tree.map(jnp.asarray, variables)

    def logits(image: jax.Array) -> jax.Array:
        return outputs_of(network.apply(variables, image, train=False)).logits

    for index, axes in enumerate(shapes):
        text = f"({', '.join(['b', *axes, str(channels)])})"
        shape = jax.export.symbolic_shape(text)
        image = jax.ShapeDtypeStruct(shape, np.float32)
        try:
            made = jax.export.export(jax.jit(logits), platforms=PLATFORMS)(image)
        except (ValueError, TypeError, InconclusiveDimensionOperation):
            # A size that is no number decides something in this network.
            if index + 1 == len(shapes):
                raise
            continue
        return bytes(made.serialize()), text
    raise AssertionError("the fixed shape returns or raises")


def expiry(shape: str, day: datetime.date) -> str:
    """Say how long the file can be read, and how.

    Args:
        shape: shape from `network_to_stablehlo`.
        day: day on which the file was written.
    """
    until = day + datetime.timedelta(days=_KEPT_DAYS)
    return (
        f"StableHLO for {', '.join(PLATFORMS)} of images {shape}, written by jax "
        f"{jax.__version__} on {day}. It expires: JAX promises to read it until "
        f"{until} (six months), the ONNX file has no such limit. Read it with "
        "jax.export.deserialize(bytearray(content)).call(image)"
    )
