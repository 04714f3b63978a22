import numpy as np
import pytest

from unet_jax.metrics.calibration import reliability, reliability_curve
from unet_jax.report.reliability import reliability_figure


def test_every_bin_with_pixels_has_a_point():
    rng = np.random.default_rng(0)
    p = rng.dirichlet((0.4, 0.4, 0.4), size=500)
    sums = reliability(probabilities=p, labels=rng.integers(0, 3, 500))
    bins = reliability_curve(sums)
    figure = reliability_figure({"ece": 0.123456, "bins": bins}, title="smoke")
    above, below = figure.axes
    _, curve = above.get_lines()
    filled = [entry for entry in bins if entry["pixels"]]
    assert 5 < len(filled) < len(bins)
    assert list(curve.get_xdata()) == [entry["confidence"] for entry in filled]
    assert list(curve.get_ydata()) == [entry["accuracy"] for entry in filled]
    assert above.get_title() == "smoke"
    assert "ECE 0.1235" in [text.get_text() for text in above.get_legend().texts]
    assert len(below.patches) == len(filled)
    heights = [bar.get_height() for bar in below.patches]
    assert sum(heights) == pytest.approx(1.0)


def test_without_a_score_the_figure_says_so():
    sums = reliability(probabilities=np.ones((0, 3)) / 3, labels=np.zeros(0, int))
    figure = reliability_figure(
        {"ece": None, "bins": reliability_curve(sums)}, title="empty"
    )
    assert "no ECE" in [text.get_text() for text in figure.axes[0].get_legend().texts]
    figure.canvas.draw()
