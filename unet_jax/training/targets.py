"""Brings labels to the grids of a network's outputs."""

import itertools
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Integer

from unet_jax.data.label_grids import Contest, Cover, first_wins, stretched, strided
from unet_jax.labels import IGNORE


def targets_of(
    labels: Integer[Array, "batch *spatial"],
    sizes: Sequence[Sequence[int]],
    *,
    num_classes: int,
) -> tuple[Array, ...]:
    """Bring labels to the sizes of a network's outputs.

    Args:
        labels: class index of every pixel, or IGNORE.
        sizes: spatial size of each output, finest first. The first is that of the
            labels, or smaller for a network without padding, which sees their centre.

    Returns:
        Labels of each size. A pixel of a coarser one has the class with the largest
        area in it (`unet_jax.data.label_grids`).
    """
    finest = sizes[0]
    for axis, size in enumerate(finest, start=1):
        start = (labels.shape[axis] - size) // 2
        labels = jax.lax.slice_in_dim(labels, start, start + size, axis=axis)
    targets, strides = [labels], (1,) * len(finest)
    for finer, coarse in itertools.pairwise(sizes):
        steps = [-(-old // new) for old, new in zip(finer, coarse, strict=True)]
        strides = tuple(a * b for a, b in zip(strides, steps, strict=True))
        covers = [
            _cover(*numbers) for numbers in zip(finest, coarse, strides, strict=True)
        ]
        targets.append(_coarser(labels, covers, num_classes))
    return tuple(targets)


def region_targets(
    labels: Integer[Array, "batch *spatial"],
    members: Bool[np.ndarray, "classes channels"],
) -> Integer[Array, "batch *spatial channels"]:
    """Turn labels into regions, which may overlap: 0, 1 or IGNORE for each channel.

    Args:
        labels: class index of every pixel, or IGNORE.
        members: whether a class is in the region of a channel; channel 0 is no region
            and is ignored.

    Example:
        >>> members = np.array([[0, 0, 0], [0, 1, 0], [0, 1, 1]], bool)
        >>> region_targets(jnp.array([[1, 2, -1]]), members).tolist()
        [[[-1, 1, 0], [-1, 1, 1], [-1, -1, -1]]]
    """
    inside = jnp.asarray(members, jnp.int32)[jnp.maximum(labels, 0)]
    valid = (labels != IGNORE)[..., None] & (jnp.arange(members.shape[1]) > 0)
    return jnp.where(valid, inside, IGNORE)


def _cover(old: int, new: int, stride: int) -> Cover:
    """Cover an axis by a network's pixels.

    Strides leave ``ceil(old / stride)`` pixels, of which the last may stick out of the
    image. The pixels of a network that leaves another number cover the image exactly.
    """
    return strided(old, stride) if -(-old // stride) == new else stretched(old, new)


def _coarser(labels: Array, covers: Sequence[Cover], num_classes: int) -> Array:
    """Give each coarse pixel the class with the largest area in it."""
    values, weights = labels, np.ones(1, np.int32)
    for axis, cover in enumerate(covers, start=1):
        # Axes so far: batch, (new, covered) of each axis done, the rest.
        at, flat = 2 * axis - 1, cover.indices.ravel()
        if not np.array_equal(flat, np.arange(values.shape[at])):
            values = jnp.take(values, flat, axis=at)
        shape = cover.indices.shape
        values = values.reshape(*values.shape[:at], *shape, *values.shape[at + 1 :])
        weights = weights[..., None, :, None] * cover.weights[:, None, :]
        weights = weights.reshape(*weights.shape[:-2], -1)
    axes = len(covers)
    values = values.transpose(
        *range(2, 2 * axes + 1, 2), 0, *range(1, 2 * axes, 2)
    ).reshape(weights.shape[-1], len(labels), *weights.shape[:-1])
    contest = Contest(
        values,
        np.moveaxis(weights, -1, 0)[:, None].astype(np.int32),
        first_wins(np.ogrid[tuple(slice(size) for size in values.shape[2:])]),
        jnp,
    )
    best = jax.lax.fori_loop(
        0,
        num_classes,
        lambda label, best: contest.challenge(best, label),
        contest.start(),
    )
    return contest.end(best)
