import tracemalloc

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from unet_jax.inference.blending import importance_map
from unet_jax.inference.sliding_window import (
    sliding_window,
    stream_bands,
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


def test_windows_that_would_leave_gaps_are_refused():
    with pytest.raises(ValueError, match="windows of 4 at multiples of 16 leave gaps"):
        window_starts(40, 4, 0.5, multiple=16)
    assert window_starts(4, 4, 0.5, multiple=16) == (0,)
    for size in range(1, 60):
        starts = np.array(window_starts(size, 20, 0.5, multiple=16))
        covered = {pixel for start in starts for pixel in range(start, start + 20)}
        assert covered >= set(range(size))


def test_starts_are_multiples_and_reach_the_end():
    for size in (3, 9, 30, 31):
        starts = window_starts(size, 9, 0.0, multiple=4)
        assert all(start % 4 == 0 for start in starts)
        assert starts[-1] + 9 >= size
        assert max(np.diff([*starts, starts[-1]])) <= 9


def test_impossible_windows_are_refused():
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


def _blurred(windows):
    """Return two classes that depend on the whole window."""
    axes = tuple(range(1, windows.ndim - 1))
    return _pointwise(windows + windows.mean(axis=axes, keepdims=True))


def _alone(network):
    """Leave the windows zero that only fill a batch up."""

    def forward(windows, wanted):
        scores = np.zeros((*windows.shape[:-1], 2), np.float32)
        scores[:wanted] = network(windows[:wanted])
        return scores

    return forward


def _blended(forward, image, *, window, **options):
    """All bands of an image, put together; they come in order and without gaps."""
    options = {"overlap": 0.5, "batch_size": 3, **options}
    parts, expected = [], 0
    for first, band in stream_bands(forward, image, window=window, **options):
        assert first == expected
        parts.append(band)  # a copy: the next band does not overwrite it
        expected += len(band)
    return np.concatenate(parts)


def _image(*spatial, seed=0):
    rng = np.random.default_rng(seed)
    return rng.normal(size=(*spatial, 1)).astype(np.float32)


@pytest.mark.parametrize("spatial", [(4, 4), (9, 13), (3, 17), (2, 3), (5, 4, 7)])
@pytest.mark.parametrize("batch_size", [1, 3, 8])
def test_a_pointwise_network_is_blended_to_itself(spatial, batch_size):
    image, shapes = _image(*spatial), set()

    def forward(windows, wanted):
        shapes.add(windows.shape)
        return _pointwise(windows)

    window = (4,) * len(spatial)
    result = _blended(forward, image, window=window, batch_size=batch_size)
    np.testing.assert_allclose(result, _pointwise(image), atol=1e-6)
    # One shape, so the network is compiled once for all image sizes.
    assert shapes == {(batch_size, *window, 1)}


def test_slices_are_windows_of_one_plane():
    image = _image(7, 9, 6)
    result = _blended(_alone(_pointwise), image, window=(1, 4, 4), batch_size=8)
    np.testing.assert_allclose(result, _pointwise(image), atol=1e-6)


def test_one_window_is_the_plain_forward_pass():
    image = _image(6, 6)
    result = _blended(_alone(_blurred), image, window=(6, 6), batch_size=1)
    np.testing.assert_allclose(result, _blurred(image[None])[0], rtol=1e-6)


@pytest.mark.parametrize("spatial", [(13, 9), (13, 7, 5)])
def test_blending_is_the_weighted_mean_of_all_windows(spatial):
    image, window = _image(*spatial), (4,) * len(spatial)
    total, weights = np.zeros((*spatial, 2)), np.zeros((*spatial, 1))
    importance = importance_map(window)[..., None].astype(np.float64)
    starts = [window_starts(n, 4, 0.5) for n in spatial]
    for place in np.ndindex(*map(len, starts)):
        at = [line[i] for line, i in zip(starts, place, strict=True)]
        region = tuple(slice(first, first + 4) for first in at)
        total[region] += importance * _blurred(image[region][None])[0]
        weights[region] += importance
    for batch_size in (1, 2, 5, 64):
        result = _blended(_alone(_blurred), image, window=window, batch_size=batch_size)
        np.testing.assert_allclose(result, total / weights, atol=2e-6)


def test_constant_scores_stay_constant():
    def forward(windows, wanted):
        return np.broadcast_to(np.float32([0.25, 0.75]), (*windows.shape[:-1], 2))

    result = _blended(forward, _image(11, 10, 9), window=(4, 5, 3), overlap=0.7)
    np.testing.assert_allclose(result[..., 0], 0.25, rtol=1e-6)
    np.testing.assert_allclose(result[..., 1], 0.75, rtol=1e-6)


def _eroded(windows):
    """A network without padding: the sum over a 5x5 window, at even places alike."""
    size = windows.shape[1] - 4
    parts = [windows[:, i : i + size, j : j + size] for i in range(5) for j in range(5)]
    return _pointwise(sum(parts))


def test_tiles_of_a_network_without_padding_equal_one_pass():
    image = _image(23, 30)
    tiled = _blended(
        lambda windows, wanted: _eroded(windows),
        image,
        window=(8, 8),
        margin=(2, 2),
        multiple=(4, 4),
        overlap=0.0,
    )
    mirrored = np.pad(image, [(2, 2), (2, 2), (0, 0)], mode="reflect")
    size = 23
    rows = sum(mirrored[i : i + size, j : j + 30] for i in range(5) for j in range(5))
    np.testing.assert_allclose(tiled, _pointwise(rows), atol=1e-5)


def _peak(length):
    """Largest memory beside the image, of scores for a long image."""
    image = np.zeros((length, 40, 36, 1), np.float32)

    def forward(windows, wanted):
        return np.zeros((*windows.shape[:-1], 40), np.float32)

    tracemalloc.start()
    options = {"copy": False, "overlap": 0.5, "batch_size": 2}
    for _ in stream_bands(forward, image, window=(8, 8, 8), **options):
        pass
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return peak


def test_memory_does_not_grow_with_the_first_axis():
    _peak(32)  # what is made once
    short, long = _peak(32), _peak(8 * 32)
    assert long < 1.1 * short
    assert long < 0.2 * 8 * 32 * 40 * 36 * 40 * 4  # all probabilities


@pytest.mark.parametrize("spatial", [(13, 9), (3, 2), (9, 7, 5)])
@pytest.mark.parametrize("overlap", [0.0, 0.5])
def test_an_array_of_scores_equals_the_bands(spatial, overlap):
    image, window = _image(*spatial), (4,) * len(spatial)
    scores = sliding_window(_blurred, image, window=window, overlap=overlap)
    assert scores.dtype == np.float32
    assert scores.shape == (*spatial, 2)
    expected = _blended(
        lambda windows, _: _blurred(windows),
        image,
        window=window,
        overlap=overlap,
        batch_size=4,
    )
    np.testing.assert_array_equal(scores, expected)


def test_a_jitted_network_is_compiled_once_for_all_sizes():
    compiled = []

    @jax.jit
    def forward(windows):
        compiled.append(windows.shape)
        return _as_jax(windows)

    for spatial in ((13, 9), (4, 4), (30, 5)):
        image = jnp.asarray(_image(*spatial))
        scores = sliding_window(forward, image, window=(4, 4), batch_size=3)
        np.testing.assert_allclose(scores, _pointwise(np.asarray(image)), atol=1e-6)
    assert compiled == [(3, 4, 4, 1)]


def _as_jax(windows):
    first = jax.nn.sigmoid(windows)
    return jnp.concatenate([first, 1 - first], axis=-1)


def test_bands_that_are_not_copied_are_overwritten():
    image = np.ones((40, 4, 1), np.float32)
    options = {"window": (4, 4), "overlap": 0.5, "batch_size": 1}
    forward = lambda windows, _: windows  # noqa: E731
    kept = [band for _, band in stream_bands(forward, image, **options)]
    np.testing.assert_allclose(np.concatenate(kept), image)
    kept = [band for _, band in stream_bands(forward, image, copy=False, **options)]
    assert np.concatenate(kept).min() == 0


@pytest.mark.parametrize(
    ("image", "options", "message"),
    [
        (np.zeros((8, 8)), {}, r"found the shape \(8, 8\), expected .* 2 spatial axes"),
        (np.zeros((8, 8, 8, 1)), {}, "expected .* with 2 spatial axes"),
        (np.zeros((8, 8, 1)), {"batch_size": 0}, "batch_size: found 0, expected 1 or"),
        (np.zeros((8, 8, 1)), {"overlap": 1.0}, "overlap: found 1.0"),
    ],
)
def test_what_cannot_be_covered_is_refused(image, options, message):
    with pytest.raises(ValueError, match=message):
        sliding_window(_pointwise, image, window=(4, 4), **options)
