"""Blur against scipy, coarse sampling against an interpolation written out."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.ndimage

from tests.augment.conftest import WAYS_AND_SHAPES, alone, example
from unet_jax.augment.resolution import GaussianBlur, LowResolution

KEY = jax.random.key(5)
ALL = {
    "blur": GaussianBlur,
    "low_resolution": partial(LowResolution, scale=(0.5, 0.7)),
}


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("options", [(1e-6, 1.0), (1.0, 0.0)])
def test_what_is_not_drawn_is_the_same_to_the_bit(name, options):
    image, _ = example((7, 5))
    probability, channel_probability = options
    augmentation = ALL[name](
        probability=probability, channel_probability=channel_probability
    )
    run = jax.jit(alone(augmentation))
    np.testing.assert_array_equal(run(KEY, image), image)


@pytest.mark.parametrize("name", ALL)
def test_channels_are_drawn_one_by_one(name):
    image, _ = example((9, 8), channels=400)
    run = alone(ALL[name](probability=1.0, channel_probability=0.5))
    changed = np.any(run(KEY, image) != image, axis=(0, 1))
    assert 0.4 < np.mean(changed) < 0.6  # 4 standard errors


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("shape", [(1, 6), (3, 2, 1)])
def test_tiny_and_constant_images(name, shape):
    image = jnp.full((*shape, 1), 2.5)
    run = jax.jit(alone(ALL[name](probability=1.0, channel_probability=1.0)))
    changed = run(KEY, image)
    np.testing.assert_allclose(changed, image, rtol=1e-6)


@WAYS_AND_SHAPES
def test_blur_is_scipys(variant, shape):
    image, _ = example(shape)
    blur = GaussianBlur(probability=1.0, channel_probability=1.0, sigma=(0.8, 0.8))
    run = variant(alone(blur))
    expected = scipy.ndimage.gaussian_filter(
        np.asarray(image, np.float64),
        0.8,
        mode="mirror",
        axes=tuple(range(len(shape))),
    )
    np.testing.assert_allclose(run(KEY, image), expected, atol=1e-6)


def test_blur_of_no_width_changes_nothing():
    image, _ = example((7, 5))
    blur = GaussianBlur(probability=1.0, channel_probability=1.0, sigma=(0.0, 0.0))
    changed = alone(blur)(KEY, image)
    np.testing.assert_array_equal(changed, image)


def _coarse_along(image, scale, axis):
    """Nearest to ``round(size * scale)`` pixels, then linear back; centres aligned."""
    size = image.shape[axis]
    coarse_size = round(size * scale)
    source = np.floor((np.arange(coarse_size) + 0.5) * size / coarse_size).astype(int)
    position = (np.arange(size) + 0.5) * coarse_size / size - 0.5
    return np.apply_along_axis(
        lambda line: np.interp(position, np.arange(coarse_size), line[source]),
        axis,
        np.asarray(image, np.float64),
    )


@WAYS_AND_SHAPES
def test_low_resolution_is_nearest_then_linear(variant, shape):
    image, _ = example(shape)
    scale = 0.63
    coarsen = LowResolution(
        probability=1.0, channel_probability=1.0, scale=(scale, scale)
    )
    run = variant(alone(coarsen))
    expected = image
    for axis in range(len(shape)):
        expected = _coarse_along(expected, scale, axis)
    np.testing.assert_allclose(run(KEY, image), expected, atol=2e-6)


def test_low_resolution_at_full_size_changes_nothing():
    image, _ = example((7, 5))
    coarsen = LowResolution(probability=1.0, channel_probability=1.0, scale=(1.0, 1.0))
    changed = alone(coarsen)(KEY, image)
    np.testing.assert_allclose(changed, image, atol=1e-6)
