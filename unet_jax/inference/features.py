"""Pools the coarsest and the finest features of any network over windows."""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from unet_jax.models import ops
from unet_jax.models.network import outputs_of
from unet_jax.models.ops.packing import Packed
from unet_jax.runtime.compilation import jit_network

Features = Callable[[dict[str, Any], np.ndarray], dict[str, jax.Array]]
"""``features(variables, windows (n, *window, channels))`` gives "coarse" and "fine",
float32 ``(n, features)``."""


def make_features(model: nn.Module) -> Features:
    """Compile the spatial means of two arrays that the modules of a network make.

    "coarse" has the fewest pixels and, among those arrays, the most channels: the
    bottleneck of a U-Net. "fine" has the grid of the logits and, among those, the most
    channels: what the last decoder gives to the head. The later one counts where
    several have as many. A network without modules has its logits as both. Nothing that
    they do not depend on is computed.
    """

    def features(variables: dict[str, Any], windows: jax.Array) -> dict[str, jax.Array]:
        made, state = model.apply(
            variables,
            windows,
            train=False,
            capture_intermediates=True,
            mutable=["intermediates"],
        )
        grid = outputs_of(made).logits.shape[1:-1]
        found = [
            array
            for array in _in_order(state["intermediates"])
            if array.ndim == windows.ndim and len(array) == len(windows)
        ]
        found.reverse()  # max and min take the first of equals
        chosen = {
            "coarse": min(found, key=lambda a: (np.prod(a.shape[1:-1]), -a.shape[-1])),
            "fine": max(found, key=lambda a: (a.shape[1:-1] == grid, a.shape[-1])),
        }
        axes = tuple(range(1, windows.ndim - 1))
        return {
            name: jnp.mean(array.astype(jnp.float32), axis=axes)
            for name, array in chosen.items()
        }

    return jit_network(features)


def _in_order(captured: Mapping[str, Any]) -> Iterator[jax.Array]:
    """Yield the outputs of modules in the order in which they were made."""
    for value in captured.values():
        if isinstance(value, Mapping):
            yield from _in_order(value)
        else:
            for one in jax.tree.leaves(value, is_leaf=lambda x: isinstance(x, Packed)):
                yield ops.as_array(one)
