"""Blur against scipy, coarse sampling against an interpolation written out."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.ndimage

from tests.augment.conftest import WAYS_AND_SHAPES, example
from unet_jax.augment import resolution

KEY = jax.random.key(5)
ALL = {
    "blur": partial(resolution.gaussian_blur, sigma=(0.5, 1.0)),
    "low_resolution": partial(resolution.low_resolution, scale=(0.5, 0.7)),
}


@pytest.mark.parametrize("name", ALL)
def test_probability_zero_is_the_same_array(name):
    image, _ = example((7, 5))
    changed = ALL[name](KEY, image, probability=0.0, channel_probability=1.0)
    assert changed is image


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("options", [(1e-6, 1.0), (1.0, 0.0)])
def test_what_is_not_drawn_is_the_same_to_the_bit(name, options):
    image, _ = example((7, 5))
    probability, channel_probability = options
    run = jax.jit(
        partial(
            ALL[name], probability=probability, channel_probability=channel_probability
        )
    )
    np.testing.assert_array_equal(run(KEY, image), image)


@pytest.mark.parametrize("name", ALL)
def test_channels_are_drawn_one_by_one(name):
    image, _ = example((9, 8), channels=400)
    changed = ALL[name](KEY, image, probability=1.0, channel_probability=0.5)
    share = np.mean(np.any(changed != image, axis=(0, 1)))
    assert 0.4 < share < 0.6  # 4 standard errors


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("shape", [(1, 6), (3, 2, 1)])
def test_tiny_and_constant_images(name, shape):
    image = jnp.full((*shape, 1), 2.5)
    run = jax.jit(partial(ALL[name], probability=1.0, channel_probability=1.0))
    changed = run(KEY, image)
    np.testing.assert_allclose(changed, image, rtol=1e-6)


@WAYS_AND_SHAPES
def test_blur_is_scipys(variant, shape):
    image, _ = example(shape)
    run = variant(
        partial(
            resolution.gaussian_blur,
            probability=1.0,
            channel_probability=1.0,
            sigma=(0.8, 0.8),
        )
    )
    expected = scipy.ndimage.gaussian_filter(
        np.asarray(image, np.float64),
        0.8,
        mode="mirror",
        axes=tuple(range(len(shape))),
    )
    np.testing.assert_allclose(run(KEY, image), expected, atol=1e-6)


def test_blur_of_no_width_changes_nothing():
    image, _ = example((7, 5))
    changed = resolution.gaussian_blur(
        KEY, image, probability=1.0, channel_probability=1.0, sigma=(0.0, 0.0)
    )
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
    run = variant(
        partial(
            resolution.low_resolution,
            probability=1.0,
            channel_probability=1.0,
            scale=(scale, scale),
        )
    )
    expected = image
    for axis in range(len(shape)):
        expected = _coarse_along(expected, scale, axis)
    np.testing.assert_allclose(run(KEY, image), expected, atol=2e-6)


def test_low_resolution_at_full_size_changes_nothing():
    image, _ = example((7, 5))
    changed = resolution.low_resolution(
        KEY, image, probability=1.0, channel_probability=1.0, scale=(1.0, 1.0)
    )
    np.testing.assert_allclose(changed, image, atol=1e-6)
