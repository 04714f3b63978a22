"""Random draws that the augmentations share: whether one happens, and how much."""

import math

import jax
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Bool, Float, Integer, PRNGKeyArray, Shaped


def example_keys(
    seed_key: PRNGKeyArray, example_index: Integer[Array, " batch"]
) -> Shaped[Array, "batch ..."]:
    """Give every example of a batch its own key.

    A key depends on the seed and on the example's global index only, so an example is
    augmented alike on whatever device and in whatever batch it stands.

    Args:
        seed_key: one key, of either jax key style.
        example_index: number of each example in the global order of the whole run; an
            example that returns in a later epoch has another number.

    Returns:
        One key an example, in the style of ``seed_key``.
    """
    return jax.vmap(jax.random.fold_in, in_axes=(None, 0))(seed_key, example_index)


def decide(
    key: PRNGKeyArray, *, probability: float, shape: tuple[int, ...], dtype: DTypeLike
) -> tuple[Bool[Array, ""], Float[Array, "..."]]:
    """Draw whether an augmentation happens, and the numbers that it needs.

    All numbers come from one call of the generator: each call costs a CPU a quarter of
    a second of compilation, whatever its size.

    Args:
        key: random key.
        probability: share of draws in which it happens; 1 is always, 0 never.
        shape: shape of the numbers.
        dtype: floating dtype of the numbers.

    Returns:
        Whether it happens, and independent even draws from [0, 1).
    """
    numbers = jax.random.uniform(key, (1 + math.prod(shape),), dtype)
    return numbers[0] < probability, numbers[1:].reshape(shape)


def between(
    shares: Float[Array, "*shape"], limits: tuple[float, float]
) -> Float[Array, "*shape"]:
    """Spread even draws from [0, 1) over the values between two limits.

    Args:
        shares: the draws.
        limits: lower and upper limit; equal ones give exactly that value.

    Returns:
        One value a draw.
    """
    low, high = limits
    return low + shares * (high - low)


def around_one(
    shares: Float[Array, "*shape"], limits: tuple[float, float]
) -> Float[Array, "*shape"]:
    """Spread even draws from [0, 1) so that half fall below 1, evenly on either side.

    Args:
        shares: the draws.
        limits: lower and upper limit; where 1 is not between them the spread is even.

    Returns:
        One factor a draw.

    Source: ``BGContrast`` of nnU-Net v2's batchgeneratorsv2.
    """
    low, high = limits
    if not low < 1.0 < high:
        return between(shares, limits)
    side = 2.0 * shares - 1.0
    return 1.0 + side * jnp.where(side < 0.0, 1.0 - low, high - 1.0)
