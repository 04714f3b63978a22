"""Random numbers of the augmentations: all of an example in one call.

Every augmentation has keys of its own, folded from a fixed integer of its name. So a
new augmentation, or one that is left out, does not change the draws of the others.
"""

import zlib
from collections.abc import Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike
from jaxtyping import Array, Bool, Float, Integer, PRNGKeyArray, Shaped


class Draw(NamedTuple):
    """Random numbers of one augmentation for one example.

    Attributes:
        numbers: uniform draws from [0, 1).
        key: for what is as large as the image, independent of ``numbers``.
        slices: number of neighbouring slices whose channels the image has, one after
            the other. A number for a channel holds in all of them, as one scanner made
            them.
    """

    numbers: Float[Array, " count"]
    key: PRNGKeyArray
    slices: int = 1

    def decide(
        self, probability: float, shape: tuple[int, ...] = ()
    ) -> tuple[Bool[Array, ""], Float[Array, "..."]]:
        """Decide whether the augmentation happens, and shape the other numbers.

        Returns:
            Whether it happens, and all numbers but the first.
        """
        return self.numbers[0] < probability, self.numbers[1:].reshape(shape)

    def decide_by_channel(
        self, probability: float, shape: tuple[int, ...]
    ) -> tuple[Bool[Array, ""], Float[Array, "*lead channels"]]:
        """Decide whether it happens, and give each channel of the image numbers.

        Args:
            probability: fraction of examples.
            shape: shape of the numbers, whose last axis counts the channels.
        """
        *lead, channels = shape
        applied, numbers = self.decide(probability, (*lead, channels // self.slices))
        return applied, numbers if self.slices == 1 else jnp.tile(numbers, self.slices)


def example_keys(
    seed_key: PRNGKeyArray, example_index: Integer[Array, " batch"]
) -> Shaped[Array, "batch ..."]:
    """Give every example of a batch its own key.

    A key depends on the seed and on the example's global index only, so the same
    example gets the same augmentation on any device and in any batch.

    Args:
        seed_key: one key, of either jax key style.
        example_index: number of each example in the global order of the whole run; an
            example that returns in a later epoch has another number.

    Returns:
        One key for each example, in the style of ``seed_key``.
    """
    return jax.vmap(jax.random.fold_in, in_axes=(None, 0))(seed_key, example_index)


def draw_all(
    key: PRNGKeyArray, counts: Mapping[str, int], *, dtype: DTypeLike, slices: int = 1
) -> dict[str, Draw]:
    """Draw the numbers of all augmentations of one example.

    Keys and numbers come from one vmapped call each: every further call costs a CPU a
    quarter of a second of compilation, whatever its size. The numbers that are drawn
    too many are few beside the pixels. An augmentation's numbers do not depend on what
    else is drawn, since jax gives number i of a key the same value in every length
    (``jax_threefry_partitionable``, jax's default).

    ``counts`` has the numbers that each augmentation needs, by its name, and ``slices``
    is that of `Draw`.
    """
    if not counts:
        return {}
    integers = np.array([_integers(name) for name in counts], np.uint32)
    keys = jax.vmap(jax.random.fold_in, (None, 0))(key, integers.reshape(-1))
    keys = keys.reshape(len(counts), 2, *keys.shape[1:])
    shape = (max(counts.values()),)
    numbers = jax.vmap(lambda one: jax.random.uniform(one, shape, dtype))(keys[:, 0])
    return {
        name: Draw(numbers[row, :count], keys[row, 1], slices)
        for row, (name, count) in enumerate(counts.items())
    }


def _integers(name: str) -> tuple[int, int]:
    """Return what the two keys of an augmentation are folded with.

    Not ``hash()``: that of a string differs from process to process.
    """
    return zlib.crc32(name.encode()), zlib.crc32(f"{name} key".encode())


def between(
    uniform: Float[Array, "*shape"], limits: tuple[float, float]
) -> Float[Array, "*shape"]:
    """Spread uniform draws from [0, 1) over the values between two limits.

    Equal limits give exactly that value.
    """
    low, high = limits
    return low + uniform * (high - low)


def around_one(
    uniform: Float[Array, "*shape"], limits: tuple[float, float]
) -> Float[Array, "*shape"]:
    """Spread uniform draws from [0, 1) so that half fall below 1, half above.

    Where 1 is not between the limits, the spread is that of `between`.

    Source: ``BGContrast`` of nnU-Net v2's batchgeneratorsv2.
    """
    low, high = limits
    if not low < 1.0 < high:
        return between(uniform, limits)
    side = 2.0 * uniform - 1.0
    return 1.0 + side * jnp.where(side < 0.0, 1.0 - low, high - 1.0)
