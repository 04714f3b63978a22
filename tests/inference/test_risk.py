"""The threshold of a class that must not be missed: exact, monotone, guaranteed."""

import numpy as np
import pytest

from unet_jax.inference.risk import (
    Levels,
    Threshold,
    choose_threshold,
    count_levels,
    groups_needed,
)
from unet_jax.labels import IGNORE


def _group(rng, *, difficulty=None, size=400):
    """Probability of the class, the likeliest-class mask and labels of one group."""
    labels = (rng.random(size) < 0.2).astype(int)
    strength = rng.normal(1.5, 1.5) if difficulty is None else difficulty
    logits = rng.normal(size=size) + strength * (2 * labels - 1)
    probability = (1 / (1 + np.exp(-logits))).astype(np.float32)
    labels[rng.random(size) < 0.1] = IGNORE
    return probability, probability > 0.5, labels


def _levels(group):
    probability, prediction, labels = group
    return count_levels(
        probability=probability, prediction=prediction, labels=labels, index=1
    )


def _missed(group, threshold):
    """Fraction of the class that a threshold misses, pixel by pixel."""
    probability, prediction, labels = group
    mark = prediction | Threshold(1, threshold).reached(
        np.stack([1 - probability, probability], axis=-1)
    )
    return 1 - mark[labels == 1].mean()


@pytest.mark.parametrize("alpha", [0.1, 0.2, 0.5])
def test_the_threshold_is_the_highest_that_brute_force_finds(alpha):
    rng = np.random.default_rng(int(100 * alpha))
    groups = [_group(rng) for _ in range(12)]
    found = choose_threshold(
        {str(i): _levels(group) for i, group in enumerate(groups)}, alpha=alpha
    )
    bits = np.arange(0x3F80 + 1, dtype=np.uint32) << 16
    values = bits.view(np.float32)  # all of 8 significant bits, up to 1
    low, high = values[values <= found.threshold][-1], values[-1]
    assert low == found.threshold

    def keeps(value):
        risk = np.mean([_missed(group, value) for group in groups])
        return 12 / 13 * risk + 1 / 13 <= alpha + 1e-9

    assert keeps(low)
    assert low == high or not keeps(values[np.searchsorted(values, low) + 1])
    risk = np.mean([_missed(group, found.threshold) for group in groups])
    np.testing.assert_allclose(found.missed, risk)
    without = np.mean([_missed(group, 2.0) for group in groups])
    np.testing.assert_allclose(found.missed_without, without)
    beside = sum(
        ((p >= found.threshold) | m)[(y != 1) & (y != IGNORE)].sum()
        for p, m, y in groups
    )
    assert found.beside == beside
    assert found.beside_without == sum((m & (y == 0)).sum() for _, m, y in groups)


@pytest.mark.parametrize("alpha", [0.05, 0.1, 0.3])
def test_new_groups_miss_at_most_the_limit_on_average(alpha):
    """Half of 60 groups choose, the others are scored, over 200 draws."""
    rng = np.random.default_rng(7)
    groups = [_group(rng) for _ in range(60)]
    levels = [_levels(group) for group in groups]
    means = []
    for _ in range(200):
        order = rng.permutation(60)
        value = choose_threshold(
            {str(i): levels[i] for i in order[:30]}, alpha=alpha
        ).threshold
        means.append(np.mean([_missed(groups[i], value) for i in order[30:]]))
    assert np.mean(means) <= alpha
    assert np.mean(means) > alpha / 3  # the limit is used


def test_the_cases_of_a_group_are_one():
    rng = np.random.default_rng(1)
    one, two = _group(rng, difficulty=3.0), _group(rng, difficulty=0.0)
    both = _levels([np.concatenate(parts) for parts in zip(one, two, strict=True)])
    joined = Levels.unpacked((_levels(one) + _levels(two)).packed())
    np.testing.assert_array_equal(joined.labelled, both.labelled)
    np.testing.assert_array_equal(joined.beside, both.beside)


def test_groups_without_the_class_bound_nothing():
    rng = np.random.default_rng(2)
    groups = {str(i): _levels(_group(rng)) for i in range(9)}
    alone = choose_threshold(groups, alpha=0.2)
    probability, prediction, labels = _group(rng)
    empty = _levels((probability, prediction, np.zeros_like(labels)))
    more = choose_threshold(groups | {"empty": empty}, alpha=0.2)
    assert more.groups == alone.groups == 9
    assert more.threshold == alone.threshold
    assert more.beside > alone.beside
    with pytest.raises(ValueError, match=r"found 9 groups .* at least 19"):
        choose_threshold(groups | {"empty": empty}, alpha=0.05)


@pytest.mark.parametrize(
    ("alpha", "needed"), [(0.05, 19), (0.1, 9), (0.2, 4), (0.25, 3), (0.3, 3), (0.5, 1)]
)
def test_the_number_of_groups_that_a_limit_needs(alpha, needed):
    assert groups_needed(alpha) == needed
    perfect = Levels(*(np.eye(1, 0x3F82, 0x3F81, dtype=np.int64)[0] for _ in range(2)))
    groups = {str(i): perfect for i in range(needed)}
    # Nothing is missed without a threshold: none is needed.
    assert choose_threshold(groups, alpha=alpha).threshold == 1.0


def test_pixels_that_the_network_excludes_need_the_threshold_zero():
    probability = np.array([0.0, 0.9], np.float32)
    levels = _levels((probability, probability > 0.5, np.array([1, 1])))
    assert choose_threshold({"a": levels}, alpha=0.5).threshold == 0.0
