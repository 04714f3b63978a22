"""The table of risk control, on heads made of numbers."""

import numpy as np

from benchmarks.risk import measure
from tests.inference.test_risk import _group, _levels


def test_draws_keep_the_limit_and_count_what_it_costs():
    rng = np.random.default_rng(0)
    heads = [_levels(_group(rng)) for _ in range(60)]
    strict, loose = (measure(heads, alpha=alpha) for alpha in (0.05, 0.2))
    assert strict["missed"] <= 0.05 < loose["missed"] <= 0.2
    assert loose["missed"] < loose["most"]
    assert strict["threshold"] < loose["threshold"]
    assert strict["ratio"] > loose["ratio"] > 1
    without = np.mean([head.beside[-1] for head in heads])
    np.testing.assert_allclose(strict["beside"] / strict["ratio"], without, rtol=0.1)
