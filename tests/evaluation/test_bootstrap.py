"""Intervals from drawn groups."""

import numpy as np
import pytest

from unet_jax.evaluation.bootstrap import draw_groups, expanded_interval


@pytest.mark.parametrize("groups", [5, 9, 30])
def test_the_interval_of_few_groups_holds_the_true_mean(groups):
    # Plain percentiles of five groups hold it in 83 % of the sets.
    rng = np.random.default_rng(0)
    weights = draw_groups(groups, samples=500, seed=0) / groups
    held = 0
    for values in rng.normal(0.8, 0.1, (600, groups)):
        low, high = expanded_interval(weights @ values, groups)
        held += low <= 0.8 <= high
    assert 0.9 <= held / 600 <= 0.98
