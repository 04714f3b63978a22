"""Scores a partition against labels; the numbers of its clusters do not matter."""

import math

import numpy as np
from jaxtyping import Integer

from unet_jax.labels import IGNORE


def contingency_table(
    *,
    clusters: Integer[np.ndarray, "*spatial"],
    labels: Integer[np.ndarray, "*spatial"],
) -> Integer[np.ndarray, "classes clusters"]:
    """Count the pixels of each class in each cluster.

    Args:
        clusters: cluster of every pixel, 0 or more.
        labels: class of every pixel; IGNORE pixels are left out.

    Returns: int64 counts with a row for each class and a column for each cluster, up to
        the largest of each.

    Example:
        >>> contingency_table(
        ...     clusters=np.array([1, 1, 0, 0]), labels=np.array([0, 0, 1, -1])
        ... ).tolist()
        [[0, 2], [1, 0]]
    """
    valid = labels != IGNORE
    rows, columns = labels[valid].astype(np.int64), clusters[valid].astype(np.int64)
    if not len(rows):
        return np.zeros((1, 1), np.int64)
    shape = (int(rows.max()) + 1, int(columns.max()) + 1)
    flat = np.bincount(rows * shape[1] + columns, minlength=shape[0] * shape[1])
    return flat.astype(np.int64).reshape(shape)


def adjusted_rand_index(table: Integer[np.ndarray, "classes clusters"]) -> float:
    """Agreement of two partitions on pairs of pixels, corrected for chance.

    ``(index - expected) / (maximum - expected)``: the index is the number of pairs that
    are together in both, ``sum C(n_ij, 2)``; expected is ``sum C(a_i, 2) sum C(b_j, 2)
    / C(n, 2)`` with the row sums a and the column sums b; maximum is the mean of these
    two sums.

    Args:
        table: counts from `contingency_table`.

    Returns: A value, 1 for equal and about 0 for unrelated partitions; NaN without a
        pixel.
    Source: Hubert and Arabie 1985, "Comparing partitions".

    Example:
        >>> adjusted_rand_index(np.array([[0, 2], [2, 0]]))
        1.0
    """
    total = int(table.sum())
    if total == 0:
        return math.nan
    # Python integers: products of the pairs of a volume overflow 64 bits.
    together = sum(_pairs(n) for n in table.ravel().tolist())
    rows = sum(_pairs(n) for n in table.sum(axis=1).tolist())
    columns = sum(_pairs(n) for n in table.sum(axis=0).tolist())
    every = _pairs(total)
    numerator = 2 * (together * every - rows * columns)
    denominator = (rows + columns) * every - 2 * rows * columns
    # The denominator is 0 for two equal partitions: one cluster, or single pixels.
    return 1.0 if denominator == 0 else numerator / denominator


def variation_of_information(table: Integer[np.ndarray, "classes clusters"]) -> float:
    """Variation of information between two partitions: ``H(L | C) + H(C | L)``.

    The first term grows where clusters mix classes, the second where classes are split
    into several clusters.

    Args:
        table: counts from `contingency_table`.

    Returns: A value in nats, 0 for equal partitions; NaN without a pixel.
    Source: Meila 2007, "Comparing clusterings: an information based distance".

    Example:
        >>> round(variation_of_information(np.array([[1, 1], [1, 1]])), 6)
        1.386294
    """
    if table.sum() == 0:
        return math.nan
    joint = table / table.sum()
    row, column = np.nonzero(joint)
    cells = joint[row, column]
    log_rows = np.log(joint.sum(axis=1)[row])
    log_columns = np.log(joint.sum(axis=0)[column])
    # Rounding may give a tiny negative value for equal partitions.
    value = np.sum(cells * (log_rows + log_columns - 2 * np.log(cells)))
    return max(float(value), 0.0)


def hungarian_iou(table: Integer[np.ndarray, "classes clusters"]) -> float:
    """Mean IoU after the best one-to-one matching of clusters and classes.

    The matching maximises the sum of IoU. The mean is over the labelled classes; a
    class without a cluster has IoU 0. Unmatched clusters lower the score only by the
    pixels that they take from the others. The matching uses the labels that it is
    scored on, which makes the score optimistic.

    Args:
        table: counts from `contingency_table`.

    Returns: A value in [0, 1]; NaN without a pixel.
    Source: Kuhn 1955, "The Hungarian method for the assignment problem"; Ji et al.
        2019, "Invariant information clustering", for its use on segmentations.

    Example:
        >>> hungarian_iou(np.array([[0, 2], [1, 1]])).__round__(4)
        0.5833
    """
    if table.sum() == 0:
        return math.nan
    table = table[table.sum(axis=1) > 0]
    union = table.sum(axis=1, keepdims=True) + table.sum(axis=0) - table
    iou = table / union
    from scipy.optimize import linear_sum_assignment  # its import takes 0.4 s

    rows, columns = linear_sum_assignment(iou, maximize=True)
    return float(iou[rows, columns].sum() / len(table))


def _pairs(count: int) -> int:
    """Number of pairs among ``count`` pixels."""
    return count * (count - 1) // 2
