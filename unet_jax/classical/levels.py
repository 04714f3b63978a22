"""Cuts the values of pixels into levels, and gives each level a class."""

import itertools
from collections.abc import Sequence

import numpy as np

from unet_jax.classical.search import mean_dice

_CANDIDATES = 256
"""Number of places where a cut may lie."""

_SWEEPS, _EXTRA, _GAIN = 20, 2, 0.002
"""Rounds over the cuts; number of cuts beyond one between two classes; increase of the
mean Dice that a further cut must bring."""


def levels_of(values: np.ndarray, cuts: Sequence[float]) -> np.ndarray:
    """Count the cuts that each value exceeds.

    A value that equals a cut falls below it, as in OpenCV's ``THRESH_BINARY``. Cuts are
    rounded to the precision of floating values: a float32 pixel of 0.1 equals the cut
    0.1, although it is larger than the float64 of that name.

    Returns:
        Indices from 0 to ``len(cuts)``, in the shape of the values.

    Source:
        Gonzalez and Woods: Digital Image Processing (4th ed., 2018), 10.3, multiple
        thresholding.

    Example:
        >>> import numpy as np
        >>> levels_of(np.array([0, 60, 61, 255], np.uint8), (60,))
        array([0, 0, 1, 1])
    """
    floating = np.issubdtype(values.dtype, np.floating)
    with np.errstate(over="ignore"):  # a cut above all values of float16 is infinite
        rounded = np.asarray(cuts, values.dtype if floating else np.float64)
    return np.searchsorted(rounded, values, side="left")


def fit_levels(
    values: Sequence[np.ndarray], labels: Sequence[np.ndarray], num_classes: int
) -> tuple[tuple[float, ...], tuple[int, ...]]:
    """Choose the cuts and the class of each level that give the best mean Dice.

    Classes are first ordered by their mean value with a cut between neighbours. Each
    cut then moves to its best place while the others are held, until none moves; up to
    two further cuts are added where they help, since a class may lie in several levels.

    Args:
        values: one array for each training case, with one value for each pixel.
        labels: class of each pixel, one array for each case; negative is ignored.

    Returns:
        Ascending cuts, and the class indices of the levels, one more than cuts.

    Source:
        Gonzalez and Woods: Digital Image Processing (4th ed., 2018), 10.3, for the
        thresholds; their choice by Dice, one at a time, is this project's.
    """
    places = _candidates(np.concatenate([v.ravel() for v in values]))
    # counts[case, i, class]: pixels with fewer than i candidates below their value.
    pairs = zip(values, labels, strict=True)
    below = np.stack([_counts_below(v, y, places, num_classes) for v, y in pairs])
    total = below[:, -1].sum(axis=0)
    present = [index for index in range(num_classes) if total[index]]
    if len(present) < 2 or not len(places):
        return (), (int(total.argmax()),)
    mass = np.diff(below.sum(axis=0), axis=0)  # (bins, classes)
    bins = np.arange(len(mass))
    mean = {index: bins @ mass[:, index] / total[index] for index in present}
    order = sorted(present, key=lambda index: mean[index])
    starts = (_between_means(order, mean), _by_size(order, total, mass))
    fitted = [_climb(below, start, order) for start in starts]
    score, cuts, names = max(fitted, key=lambda one: one[0])
    for _ in range(_EXTRA):
        more = _split(below, cuts, names, present)
        if more is None:
            break
        better = _climb(below, *more)
        if better[0] < score + _GAIN:
            break
        score, cuts, names = better
    return _joined(cuts, names, places)


def _candidates(values: np.ndarray) -> np.ndarray:
    """Return ascending places for cuts: all values but the last, or quantiles."""
    values = values[np.isfinite(values)]
    if len(values) > 2**20:
        values = np.concatenate(
            [values[:: len(values) // 2**20], [values.min(), values.max()]]
        )
    different = np.unique(values)
    if len(different) > _CANDIDATES:
        # Half by rank, half by value: a rare bright class has its own places.
        fractions = np.linspace(0, 1, _CANDIDATES // 2)
        ranks = np.quantile(values, fractions)
        range_ = different[0] + fractions * (different[-1] - different[0])
        different = np.unique(np.concatenate([ranks, range_]))
    return different[:-1].astype(np.float64)


def _counts_below(
    values: np.ndarray, label: np.ndarray, places: np.ndarray, num_classes: int
) -> np.ndarray:
    """Pixels of each class that lie in the first 0, 1, ... bins."""
    valid = label >= 0
    bins = levels_of(values[valid], tuple(places)).astype(np.int64)
    counts = np.bincount(
        bins * num_classes + label[valid], minlength=(len(places) + 1) * num_classes
    ).reshape(-1, num_classes)
    return np.concatenate([np.zeros((1, num_classes), np.int64), counts.cumsum(axis=0)])


def _between_means(order: Sequence[int], mean: dict[int, float]) -> list[int]:
    """Cuts halfway between the means of neighbouring classes."""
    return [round((mean[a] + mean[b]) / 2) + 1 for a, b in itertools.pairwise(order)]


def _by_size(order: Sequence[int], total: np.ndarray, mass: np.ndarray) -> list[int]:
    """Cuts that give each level as many pixels as its class has."""
    wanted = np.cumsum([total[index] for index in order])[:-1]
    reached = np.cumsum(mass.sum(axis=1))
    return [int(np.abs(reached - w).argmin()) + 1 for w in wanted]


def _scores(
    below: np.ndarray, cuts: np.ndarray, names: Sequence[int]
) -> float | np.ndarray:
    """Mean foreground Dice of each row of cuts ``(rows, cuts)``."""
    rows, last = len(cuts), below.shape[1] - 1
    ends = np.concatenate(
        [np.zeros((rows, 1), int), cuts, np.full((rows, 1), last)], axis=1
    )
    # (cases, rows, levels, classes)
    levels = np.diff(below[:, ends], axis=2)
    named = np.eye(below.shape[2], dtype=np.int64)[list(names)]  # (levels, classes)
    hits = np.einsum("nrlc,lc->rnc", levels, named)
    predicted = np.einsum("nrl,lc->rnc", levels.sum(axis=-1), named)
    sizes = predicted + below[:, -1][None]
    return mean_dice(hits[..., 1:], sizes[..., 1:])


def _climb(
    below: np.ndarray, cuts: Sequence[int], names: Sequence[int]
) -> tuple[float, list[int], list[int]]:
    """Move one cut after another to its best place."""
    last = below.shape[1] - 1
    cuts = sorted(min(max(cut, 0), last) for cut in cuts)
    score = float(np.asarray(_scores(below, np.array([cuts]), names))[0])
    for _ in range(_SWEEPS):
        before = score
        for index in range(len(cuts)):
            low = cuts[index - 1] if index else 0
            high = cuts[index + 1] if index + 1 < len(cuts) else last
            rows = np.tile(cuts, (high - low + 1, 1))
            rows[:, index] = np.arange(low, high + 1)
            scores = np.asarray(_scores(below, rows, names))
            if scores.max() > score:
                score, cuts = float(scores.max()), rows[scores.argmax()].tolist()
        if score <= before:
            break
    return score, list(cuts), list(names)


def _split(
    below: np.ndarray, cuts: Sequence[int], names: Sequence[int], classes: Sequence[int]
) -> tuple[list[int], list[int]] | None:
    """Find the further cut that adds most: a part of a level gets another class."""
    best: tuple[float, list[int], list[int]] | None = None
    ends = [0, *cuts, below.shape[1] - 1]
    for level, old in enumerate(names):
        inner = np.arange(ends[level] + 1, ends[level + 1])
        if not len(inner):
            continue
        rows = np.empty((len(inner), len(cuts) + 1), int)
        rows[:, :level], rows[:, level], rows[:, level + 1 :] = (
            cuts[:level], inner, cuts[level:],
        )  # fmt: skip
        for new in classes:
            for pair in ((new, old), (old, new)):
                renamed = [*names[:level], *pair, *names[level + 1 :]]
                scores = np.asarray(_scores(below, rows, renamed))
                if new != old and (best is None or scores.max() > best[0]):
                    row = rows[scores.argmax()].tolist()
                    best = (float(scores.max()), row, renamed)
    return None if best is None else best[1:]


def _joined(
    cuts: Sequence[int], names: Sequence[int], places: np.ndarray
) -> tuple[tuple[float, ...], tuple[int, ...]]:
    """Drop empty levels, join neighbours of one name, and give cuts as values."""
    ends: list[int] = [0]
    kept: list[int] = []
    for end, name in zip([*cuts, len(places) + 1], names, strict=True):
        if end == ends[-1]:
            continue
        if kept and kept[-1] == name:
            ends[-1] = end
        else:
            ends.append(end)
            kept.append(int(name))
    return tuple(float(places[end - 1]) for end in ends[1:-1]), tuple(kept)
