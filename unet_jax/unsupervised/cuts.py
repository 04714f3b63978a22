"""Merges clusters by the normalised cut that they were learnt with."""

import itertools
from collections.abc import Sequence

import numpy as np

Groups = list[tuple[int, ...]]


def normalised_cut(affinities: np.ndarray, groups: Sequence[Sequence[int]]) -> float:
    """Compute the normalised cut between groups of clusters.

    It is the sum over the groups of 1 minus the fraction of a group's affinity to all
    clusters that lies inside the group.

    Args:
        affinities: ``(clusters, clusters)``, symmetric, from `cluster_affinities`.
        groups: clusters of each group; a group without any affinity costs 1.

    Returns:
        A value from 0 to the number of groups.

    Source:
        Shi and Malik: Normalized Cuts and Image Segmentation (TPAMI 2000), eq. 2 and 3,
        for more than two parts.

    Example:
        >>> affinities = np.array([[6.0, 2.0, 0.0], [2.0, 6.0, 0.0], [0.0, 0.0, 9.0]])
        >>> normalised_cut(affinities, [(0,), (1,), (2,)])
        0.5
        >>> normalised_cut(affinities, [(0, 1), (2,)])
        0.0
    """
    to_all = affinities.sum(axis=1)
    total = 0.0
    for group in map(list, groups):
        inside, all_of_it = affinities[np.ix_(group, group)].sum(), to_all[group].sum()
        total += 1 - (inside / all_of_it if all_of_it > 0 else 0.0)
    return float(total)


def merged_by_cut(affinities: np.ndarray, *, count: int) -> Groups:
    """Merge clusters into a number of groups with a small normalised cut.

    The pair whose merging leaves the smallest cut is merged first. Then single clusters
    change their group as long as the cut falls.

    Args:
        affinities: ``(clusters, clusters)``, symmetric, from `cluster_affinities`.

    Returns:
        The clusters of each group, sorted. Clusters without affinity, which have no
        pixels, are in no group. There are fewer groups if there are fewer clusters.

    Example:
        >>> affinities = np.array([[6.0, 0.0, 2.0], [0.0, 9.0, 0.0], [2.0, 0.0, 6.0]])
        >>> merged_by_cut(affinities, count=2)
        [(0, 2), (1,)]
    """
    affinities = np.asarray(affinities, np.float64)
    groups: Groups = [(int(one),) for one in np.flatnonzero(affinities.diagonal() > 0)]
    while len(groups) > count:
        one, other = min(
            itertools.combinations(groups, 2),
            key=lambda pair: _growth(affinities, pair),
        )
        groups = [group for group in groups if group not in (one, other)]
        groups.append(one + other)
    groups = _exchanged(affinities, groups)
    return sorted(tuple(sorted(group)) for group in groups)


def _growth(affinities: np.ndarray, pair: tuple[tuple[int, ...], ...]) -> float:
    """Return by how much the cut grows when two groups are merged."""
    one, other = pair
    apart = normalised_cut(affinities, pair)
    return normalised_cut(affinities, [one + other]) - apart


def _exchanged(affinities: np.ndarray, groups: Groups) -> Groups:
    """Move single clusters to other groups as long as the cut falls."""
    while True:
        cut = normalised_cut(affinities, groups)
        best, best_cut = None, cut - 1e-9  # a smaller change is rounding
        for old, group in enumerate(groups):
            for one, new in itertools.product(group, range(len(groups))):
                if new == old or len(group) == 1:
                    continue
                moved = list(groups)
                moved[old] = tuple(other for other in group if other != one)
                moved[new] = (*groups[new], one)
                value = normalised_cut(affinities, moved)
                if value < best_cut:
                    best, best_cut = moved, value
        if best is None:
            return groups
        groups = best
