"""Compiles a network for windows: windows in, probabilities out."""

import itertools
from collections.abc import Sequence
from typing import Any, Protocol

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from unet_jax.inference.uncertainty import entropy
from unet_jax.losses.targets import Head, head_probabilities
from unet_jax.models.network import outputs_of
from unet_jax.runtime.compilation import jit_network


class WindowForward(Protocol):
    """A compiled network for windows of one size."""

    def __call__(
        self, variables: dict[str, Any], windows: np.ndarray, wanted: int | None = None
    ) -> jax.Array:
        """Return the probabilities ``(windows, *window, classes)`` of float32 windows.

        Those of the windows from ``wanted`` on are not read and may be zeros.
        """
        ...


def make_forward(
    model: nn.Module,
    *,
    head: Head = "softmax",
    mirror_axes: Sequence[int] = (),
    in_turn: bool = False,
    disagreement: bool = False,
    logits: bool = False,
) -> WindowForward:
    """Build ``forward(variables, windows, wanted) -> probabilities``, compiled once.

    The windows are divided among the local devices where their number allows it.

    Args:
        model: network, see `unet_jax.models.network.Network`.
        head: function that turns logits into probabilities. "softmax": over all
            classes. "sigmoid": each class above 0 by itself; the background is 1 minus
            the largest, so that a pixel is background where no class reaches 1/2.
        mirror_axes: spatial axes; the result is the mean over all mirror images.
        in_turn: send the windows through the network one after the other, in one call
            that takes the memory of one window. They are not divided then.
        disagreement: give one more channel, the disagreement of the mirror images
            (`unet_jax.inference.uncertainty.disagreement`).
        logits: give the mean of the logits; `class_probabilities` makes the rest.

    Returns:
        The compiled network.
    """
    devices = np.asarray(jax.local_devices())
    mesh = Mesh(devices, ("d",))
    flips = [
        tuple(1 + axis for axis in chosen)
        for count in range(len(mirror_axes) + 1)
        for chosen in itertools.combinations(mirror_axes, count)
    ]

    def entropies(found):
        return entropy(found, head=head, entr=jax.scipy.special.entr)

    def probabilities(variables, windows):
        total, own = 0.0, 0.0
        for flip in flips:
            made = model.apply(variables, jnp.flip(windows, flip), train=False)
            scores = outputs_of(made).logits
            if not logits:
                scores = class_probabilities(scores, head)
            vote = jnp.flip(scores, flip)
            total += vote
            if disagreement:
                own += entropies(vote)
        mean = total / len(flips)
        if not disagreement:
            return mean
        extra = entropies(mean) - own / len(flips)
        return jnp.concatenate([mean, extra[..., None]], axis=-1)

    def one_by_one(variables, windows, wanted):
        one = jax.eval_shape(probabilities, variables, windows[:1])

        def add(index, done):
            window = lax.dynamic_slice_in_dim(windows, index, 1)
            found = probabilities(variables, window)
            return lax.dynamic_update_slice_in_dim(done, found, index, 0)

        done = jnp.zeros((len(windows), *one.shape[1:]), one.dtype)
        return lax.fori_loop(0, wanted, add, done)

    compiled = jit_network(one_by_one if in_turn else probabilities)

    def placed(variables, windows, wanted=None):
        split = len(windows) % len(devices) == 0 and not in_turn
        spec = PartitionSpec("d") if split else PartitionSpec()
        windows = jax.device_put(windows, NamedSharding(mesh, spec))
        if not in_turn:
            return compiled(variables, windows)
        return compiled(variables, windows, len(windows) if wanted is None else wanted)

    return placed


def class_probabilities(logits: Any, head: Head) -> jax.Array:
    """Return the probabilities of all classes; the largest is the label.

    Args:
        logits: ``(*spatial, channels)``.
        head: see `make_forward`.
    """
    probabilities = head_probabilities(jnp.asarray(logits), head)
    if head == "softmax":
        return probabilities
    others = probabilities[..., 1:]
    background = 1 - jnp.max(others, axis=-1, keepdims=True)
    return jnp.concatenate([background, others], axis=-1)
