import numpy as np
import pytest

from unet_jax.inference.sliding_window import (
    importance_map,
    predict_probabilities,
    window_starts,
)


@pytest.mark.parametrize("size", [4, 5, 7, 8, 23])
@pytest.mark.parametrize("window", [1, 3, 4])
@pytest.mark.parametrize("overlap", [0.0, 0.5, 0.9])
def test_windows_cover_the_axis_and_overlap(size, window, overlap):
    starts = window_starts(size, window, overlap)
    assert starts[0] == 0
    assert starts[-1] == size - window
    steps = np.diff(starts)
    assert (steps > 0).all()
    assert (steps <= max(1, window * (1 - overlap))).all()


def test_impossible_windows_are_refused():
    with pytest.raises(ValueError, match=r"size: found 3, .* at least the window 4"):
        window_starts(3, 4, 0.5)
    with pytest.raises(ValueError, match=r"overlap: found 1.0"):
        window_starts(8, 4, 1.0)


@pytest.mark.parametrize("window", [(5,), (6, 9), (3, 4, 5)])
def test_importance_is_a_symmetric_gaussian(window):
    weights = importance_map(window)
    assert weights.shape == window
    assert weights.max() == 1
    assert weights.min() > 0
    np.testing.assert_array_equal(weights, np.flip(weights))
    line = importance_map((16,))
    ratio = np.exp(-0.5 * (2.5**2 - 0.5**2) / 2.0**2)
    assert line[5] / line[7] == pytest.approx(ratio, rel=1e-6)


def _pointwise(windows):
    """Return two classes, from each pixel alone: blending must not change them."""
    first = 1 / (1 + np.exp(-windows[..., :1]))
    return np.concatenate([first, 1 - first], axis=-1)


@pytest.mark.parametrize("spatial", [(4, 4), (9, 13), (3, 17), (2, 3), (5, 4, 7)])
@pytest.mark.parametrize("batch_size", [1, 3, 8])
def test_a_pointwise_network_is_blended_to_itself(spatial, batch_size):
    images = np.random.default_rng(0).normal(size=(2, *spatial, 1)).astype(np.float32)
    shapes = set()

    def forward(windows):
        shapes.add(windows.shape)
        return _pointwise(windows)

    window = (4,) * len(spatial)
    result = predict_probabilities(
        forward,
        images,
        window=window,
        num_classes=2,
        overlap=0.5,
        batch_size=batch_size,
    )
    assert result.shape == (2, *spatial, 2)
    np.testing.assert_allclose(result, _pointwise(images), atol=1e-6)
    # One shape, so the network is compiled once for all image sizes.
    assert shapes == {(batch_size, *window, 1)}


def test_one_window_is_the_plain_forward_pass():
    images = np.random.default_rng(1).normal(size=(1, 6, 6, 1)).astype(np.float32)

    def forward(windows):
        scores = windows + windows.mean(axis=(1, 2), keepdims=True)
        return np.concatenate([scores, -scores], axis=-1)

    result = predict_probabilities(
        forward, images, window=(6, 6), num_classes=2, overlap=0.5, batch_size=1
    )
    np.testing.assert_allclose(result, forward(images), atol=1e-6)


def test_the_middle_of_a_window_counts_more_than_its_border():
    # Each window says how far a pixel is from its own middle.
    images = np.zeros((1, 12, 1), np.float32)
    distance = np.abs(np.arange(8) - 3.5)[None, :, None]

    def forward(windows):
        return np.repeat(distance, len(windows), axis=0)

    result = predict_probabilities(
        forward, images, window=(8,), num_classes=1, overlap=0.5, batch_size=2
    )[0, :, 0]
    # Pixel 5 is 1.5 from the middle of window 0 and 2.5 from that of window 4.
    near, far = np.exp(-0.5 * 1.5**2), np.exp(-0.5 * 2.5**2)
    assert result[5] == pytest.approx((1.5 * near + 2.5 * far) / (near + far), rel=1e-5)
