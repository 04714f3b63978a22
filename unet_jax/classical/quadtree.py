"""Splits an image into a quadtree (3-D: an octree) and merges its neighbours."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from scipy import sparse

from unet_jax.classical.prototypes import Features, fit_prototypes
from unet_jax.classical.samples import Reference, Sample
from unet_jax.classical.search import Model

_MAX_ROUNDS = 24
"""Rounds of merging; later ones would only join single pixels to large regions."""


def split_and_merge(
    image: np.ndarray, *, split: float, merge: float, min_size: int = 1
) -> np.ndarray:
    """Split an image into homogeneous blocks, then join neighbours that fit.

    A block is homogeneous if the standard deviation of no channel exceeds ``split``;
    other blocks are cut in half along each axis, down to a side of ``min_size``. Then
    every region joins the neighbour with the nearest mean, if the means of no channel
    differ by more than ``merge``. This is repeated with the new means until no region
    joins (24 times at most). Chains of neighbours join at once if all of them lie
    within ``merge`` of their common mean; else only mutual nearest neighbours join.

    Args:
        image: ``(*spatial, channels)``.
        split: largest standard deviation within a block.
        merge: largest difference between the means of neighbours that join.
        min_size: side of the smallest block, a power of 2.

    Returns:
        ``(*spatial)`` index of a region, from 0.

    Source:
        Horowitz and Pavlidis: Picture Segmentation by a Tree Traversal Algorithm
        (1976).

    Example:
        >>> import numpy as np
        >>> split_and_merge(np.array([[5, 5, 9], [5, 5, 9]])[..., None],
        ...                 split=0.0, merge=0.0)
        array([[0, 0, 1],
               [0, 0, 1]])
    """
    values = image.astype(np.float64)
    # Squares of differences from the mean keep the digits that a std needs.
    values -= values.mean(axis=tuple(range(values.ndim - 1)))
    blocks = _split(values, split, min_size)
    return _merge(blocks, values, merge)


def _split(values: np.ndarray, split: float, min_size: int) -> np.ndarray:
    """Give each pixel the index of its block."""
    shape = values.shape[:-1]
    depth = max(0, math.ceil(math.log2(max(shape))))
    finest = int(math.log2(min_size))
    blocks = np.full(shape, -1, np.int64)
    count = 0
    for level in range(depth, finest - 1, -1):
        side = 2**level
        grid = [-(-size // side) for size in shape]
        if level > finest:
            fits = _homogeneous(values, side, split)
        else:
            fits = np.ones(grid, bool)
        index = np.arange(math.prod(grid)).reshape(grid)
        owner = _spread(np.where(fits, index + count, -1), side, shape)
        blocks = np.where(blocks < 0, owner, blocks)
        count += math.prod(grid)
        if (blocks >= 0).all():
            break
    return np.unique(blocks, return_inverse=True)[1].reshape(shape)


def _homogeneous(values: np.ndarray, side: int, split: float) -> np.ndarray:
    """Tell which blocks of a side have a small enough standard deviation."""
    size = _block_sums(np.ones((*values.shape[:-1], 1)), side)
    mean = _block_sums(values, side) / size
    variance = _block_sums(values**2, side) / size - mean**2
    return (np.sqrt(np.maximum(variance, 0)) <= split + 1e-6).all(axis=-1)


def _block_sums(values: np.ndarray, side: int) -> np.ndarray:
    """Sum over blocks, which are smaller at the far border."""
    for axis in range(values.ndim - 1):
        values = np.add.reduceat(
            values, np.arange(0, values.shape[axis], side), axis=axis
        )
    return values


def _spread(blocks: np.ndarray, side: int, shape: Sequence[int]) -> np.ndarray:
    """Repeat the value of each block over its pixels."""
    for axis, size in enumerate(shape):
        blocks = np.repeat(blocks, side, axis=axis).take(range(size), axis=axis)
    return blocks


def _merge(blocks: np.ndarray, values: np.ndarray, merge: float) -> np.ndarray:
    """Join neighbours until none may join."""
    flat = blocks.ravel()
    size = np.bincount(flat, np.ones(len(flat)))
    columns = values.reshape(len(flat), -1).T
    mean = np.stack([np.bincount(flat, c) / size for c in columns], axis=-1)
    pairs = _neighbours(blocks)
    name = np.arange(len(size))
    for _ in range(_MAX_ROUNDS):
        apart = np.abs(mean[pairs[:, 0]] - mean[pairs[:, 1]]).max(axis=-1, initial=0)
        like = pairs[apart <= merge + 1e-6]
        if not len(like):
            break
        target = _partners(like, mean, size, merge)
        sums = _sums(target, mean * size[:, None])
        size = np.bincount(target, size)
        mean = sums / size[:, None]
        name, pairs = target[name], _unique_pairs(target[pairs], len(size))
    return np.unique(name[flat], return_inverse=True)[1].reshape(blocks.shape)


def _sums(target: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Add up the rows of one target."""
    return np.stack([np.bincount(target, column) for column in values.T], axis=-1)


def _partners(
    pairs: np.ndarray, mean: np.ndarray, size: np.ndarray, merge: float
) -> np.ndarray:
    """Return the new region that each region joins in this round."""
    rank = np.empty(len(pairs), np.int64)
    distance = np.square(mean[pairs[:, 0]] - mean[pairs[:, 1]]).sum(axis=-1)
    # Ties go to the earlier pair on both sides: the nearest pair of all is mutual.
    rank[np.argsort(distance, kind="stable")] = np.arange(len(pairs))
    best = np.full(len(mean), len(pairs))
    np.minimum.at(best, pairs[:, 0], rank)
    np.minimum.at(best, pairs[:, 1], rank)
    of_first, of_second = (best[pairs[:, i]] == rank for i in (0, 1))
    wanted, mutual = pairs[of_first | of_second], pairs[of_first & of_second]
    chain = _components(wanted, len(mean))
    weight = np.bincount(chain, size)
    middle = _sums(chain, mean * size[:, None]) / weight[:, None]
    far = (np.abs(mean - middle[chain]) > merge + 1e-6).any(axis=-1)
    too_long = np.bincount(chain, far) > 0
    kept = wanted[~too_long[chain[wanted[:, 0]]]]
    return _components(np.concatenate([kept, mutual]), len(mean))


def _components(pairs: np.ndarray, count: int) -> np.ndarray:
    """Number the groups that pairs connect."""
    links = sparse.coo_array(
        (np.ones(len(pairs), bool), (pairs[:, 0], pairs[:, 1])), shape=(count, count)
    )
    return sparse.csgraph.connected_components(links, directed=False)[1]


def _neighbours(blocks: np.ndarray) -> np.ndarray:
    """Return pairs ``(pairs, 2)`` of blocks with a common face."""
    found = []
    for axis in range(blocks.ndim):
        along = np.moveaxis(blocks, axis, 0)
        first, second = along[:-1].ravel(), along[1:].ravel()
        differ = first != second
        found.append(np.stack([first[differ], second[differ]], axis=-1))
    return _unique_pairs(np.concatenate(found), int(blocks.max()) + 1)


def _unique_pairs(pairs: np.ndarray, count: int) -> np.ndarray:
    """Return each pair once, the smaller index first, without pairs of one block."""
    # Indices are 32 bits wide after the first round: their products are not.
    pairs = pairs.astype(np.int64)
    low, high = pairs.min(axis=-1), pairs.max(axis=-1)
    codes = np.sort((low * count + high)[low != high])
    codes = codes[np.diff(codes, prepend=-1) > 0]
    return np.stack([codes // count, codes % count], axis=-1)


def make_split_and_merge(
    pieces: Sequence[Sample],
    *,
    num_classes: int,
    split: float,
    merge: float,
    min_size: int,
    scale: str,
    texture: bool,
) -> Model:
    """Make split and merge, with regions named by prototypes.

    Args:
        split: see `split_and_merge`, in units of the std within the classes.
        merge: see `split_and_merge`, in the same units.
    """
    prototypes = fit_prototypes(pieces, Features(scale, texture), num_classes)
    plain = fit_prototypes(pieces, Features(scale), num_classes)

    def predict(image: np.ndarray, spacing: Any, reference: Reference) -> np.ndarray:
        del spacing
        values = plain.features(image, reference) / plain.spread
        regions = split_and_merge(values, split=split, merge=merge, min_size=min_size)
        return prototypes.name(regions, image, reference)

    chosen = {
        "split": split, "merge": merge, "min_size": min_size, "scale": scale,
        "texture": texture,
    }  # fmt: skip
    return Model(predict, chosen)
