"""The distance of an image from training: its numbers, its limit, its file."""

import numpy as np
import pytest
from scipy.spatial.distance import mahalanobis
from scipy.stats import skew
from sklearn.covariance import ledoit_wolf

from unet_jax.inference.distance import (
    PARTS,
    Distance,
    Familiar,
    Gaussian,
    intensity_statistics,
    shrunk_covariance,
)
from unet_jax.inference.sample_windows import sample_windows


def _rows(count, *, seed=0):
    rng = np.random.default_rng(seed)
    return rng.normal(size=(count, 3)) @ np.array([[9, 0, 0], [5, 1, 0], [0, 0, 0.1]])


def test_distances_are_mahalanobis():
    rows = _rows(4000)  # enough that the shrinkage is small
    gaussian, others = Gaussian.of(rows), _rows(20, seed=1) * 3
    inverse = np.linalg.inv(np.cov(rows.T))
    expected = [mahalanobis(one, rows.mean(axis=0), inverse) for one in others]
    np.testing.assert_allclose(gaussian(others), expected, rtol=0.02)


def test_the_covariance_is_that_of_scikit_learn():
    for rows in (_rows(50), np.random.default_rng(3).normal(size=(10, 40))):
        expected, _ = ledoit_wolf(rows, assume_centered=True)
        np.testing.assert_allclose(shrunk_covariance(rows), expected, rtol=1e-12)
    assert (shrunk_covariance(np.zeros((1, 3))) == 0).all()


def test_more_features_than_windows_and_constant_ones_have_a_distance():
    rng = np.random.default_rng(0)
    rows = np.concatenate([rng.normal(size=(10, 40)), np.full((10, 2), 7.0)], axis=-1)
    away = rows.copy()
    away[:, -1] += 1
    gaussian = Gaussian.of(rows)
    assert np.isfinite(gaussian(rows)).all()
    assert gaussian(away).min() > 3 * gaussian(rows).max()


def _familiar(training, validation):
    return Familiar.of(*(dict.fromkeys(PARTS, rows) for rows in (training, validation)))


def test_the_limit_keeps_nearly_all_windows_of_both_splits():
    rows, wide = _rows(1000), 2 * _rows(1000, seed=1)
    for splits in ((rows, wide), (wide, rows)):
        away = _familiar(*splits).parts["fine"](np.concatenate([rows, wide]))
        assert np.mean(away[:1000] <= 1) == 1
        assert np.mean(away[1000:] <= 1) == 0.995


@pytest.mark.parametrize(
    ("distance", "beyond"),
    [((0.9, 1.0), False), ((1.1, 0.2), True), ((0.2, 1.1), True), ((np.nan, 0), True)],
)
def test_one_of_both_distances_is_enough(distance, beyond):
    assert Distance(*distance).is_beyond == beyond


def test_statistics_of_intensities():
    rng = np.random.default_rng(0)
    windows = np.zeros((2, 20, 30, 2), np.float32)
    windows[..., 0] = rng.gamma(1.0, size=(2, 20, 30))
    windows[:, :, 15:, 0] = -1  # empty
    windows[0, ..., 1] = np.arange(20)[:, None]
    found = intensity_statistics(windows).reshape(2, 10, 2)
    pixels = windows[0, ..., 0].ravel().astype(float)
    expected = [
        pixels.mean(),
        pixels.std(),
        np.log1p(skew(pixels)),
        *np.percentile(pixels, (5, 25, 50, 75, 95)),
        0.5,
    ]
    np.testing.assert_allclose(found[0, :9, 0], expected, rtol=1e-6)
    np.testing.assert_allclose(found[0, 9, 1], 0.5)  # 1 along one axis, 0 along other
    np.testing.assert_allclose(found[1, :9, 1], [0] * 8 + [1])


def test_the_file_gives_back_what_was_fitted(tmp_path):
    rows = np.random.default_rng(0).normal(size=(40, 5))
    familiar = _familiar(rows, rows)
    for name in ("a", "b"):
        familiar.save(tmp_path / name, step=7)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    assert Familiar.load(tmp_path / "a", step=8) is None
    loaded = Familiar.load(tmp_path / "a", step=7)
    known = dict.fromkeys(PARTS, rows)
    assert loaded.distance(known) == familiar.distance(known)
    assert not loaded.distance(known).is_beyond
    for part, beyond in zip(PARTS, [(True, False)] * 2 + [(False, True)], strict=True):
        distance = loaded.distance(known | {part: rows + 9})
        assert (distance.features > 1, distance.intensities > 1) == beyond


def test_windows_tile_the_image_and_empty_ones_are_left_out():
    image = np.zeros((12, 9, 1), np.float32)
    image[:8] = np.arange(8 * 9).reshape(8, 9, 1)
    windows = sample_windows(image, window=(4, 4), count=9)
    assert windows.shape == (6, 4, 4, 1)  # three of nine are empty
    assert set(windows.ravel()) == set(range(72))
    few = sample_windows(image, window=(4, 4), count=2)
    np.testing.assert_array_equal(few, windows[:2])
    (small,) = sample_windows(image[:3], window=(4, 16), count=9)
    np.testing.assert_array_equal(small[:3, :9], image[:3])
    np.testing.assert_array_equal(small[3, 9:], np.full((7, 1), image[2, 8]))
    assert sample_windows(0 * image, window=(4, 4), count=2).shape == (2, 4, 4, 1)
    sliced = sample_windows(image[:, None], window=(4, 1, 4), count=9)
    assert sliced.shape == (6, 4, 1, 4, 1)
