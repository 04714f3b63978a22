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

from unet_jax.models.network import outputs_of

PLATFORMS = ("cpu", "cuda", "tpu")
"""Platforms that the program is lowered for."""

_MULTIPLES = (16, 32, 64)
"""Numbers that are tried to divide the sizes of an image."""

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
        "(b, 16*n0, 16*n1, 3)": symbols stand for any size where the network allows it,
        else for multiples; where neither can be lowered the shape is fixed.
    """
    names = [f"n{axis}" for axis in range(len(size))]
    shapes = [names, *([f"{step}*{name}" for name in names] for step in _MULTIPLES)]
    shapes.append([str(one) for one in size])

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
