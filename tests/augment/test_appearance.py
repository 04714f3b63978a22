"""What a scanner makes of intensities, against formulas and scipy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import ndimage, stats

from unet_jax.augment import appearance


def _image(*shape):
    return np.random.default_rng(0).random((*shape, 1)).astype(np.float32)


@pytest.mark.parametrize("shape", [(12, 10), (7, 6, 8)])
def test_a_blur_is_that_of_scipy(shape):
    image = _image(*shape)
    expected = ndimage.gaussian_filter(image[..., 0], 0.8, mode="nearest", radius=3)
    found = appearance.blurred(jnp.array(image), jnp.float32(0.8))
    np.testing.assert_allclose(found[..., 0], expected, atol=1e-5)


def test_coarse_pixels_have_the_mean_of_their_pixels():
    image = _image(12, 8)
    found = appearance.coarsened(
        jnp.array(image), jnp.float32(2), axis_draw=jnp.float32(0.1)
    )
    pairs = image.reshape(6, 2, 8, 1).mean(1)
    # A pixel lies a quarter of the way from its own wide pixel to the next.
    np.testing.assert_allclose(found[0], pairs[0], atol=1e-6)
    np.testing.assert_allclose(found[2], 0.75 * pairs[1] + 0.25 * pairs[0], atol=1e-6)
    np.testing.assert_allclose(found[11], pairs[5], atol=1e-6)


@pytest.mark.parametrize(("draw", "axes"), [(0.1, (0,)), (0.4, (1,)), (0.9, (0, 1))])
def test_one_axis_is_coarse_or_all_are(draw, axes):
    image = _image(9, 9)
    found = appearance.coarsened(
        jnp.array(image), jnp.float32(2.5), axis_draw=jnp.float32(draw)
    )
    rough = [float(np.abs(np.diff(found, axis=axis)).mean()) for axis in (0, 1)]
    same = [float(np.abs(np.diff(image, axis=axis)).mean()) for axis in (0, 1)]
    for axis in (0, 1):
        if axis in axes:
            assert rough[axis] < 0.7 * same[axis]
    whole = appearance.coarsened(
        jnp.array(image), jnp.float32(1), axis_draw=jnp.float32(draw)
    )
    np.testing.assert_allclose(whole, image, atol=1e-6)


def test_noise_has_the_mean_of_its_distribution():
    noise = jax.random.normal(jax.random.key(0), (2, 200, 200, 1))
    image = jnp.full((200, 200, 1), 0.1)
    for rician, mean in ((False, 0.1), (True, stats.rice(1.0, scale=0.1).mean())):
        found = appearance.with_noise(
            image, jnp.float32(0.1), noise, rician=jnp.array(rician)
        )
        assert float(found.mean()) == pytest.approx(mean, abs=0.002)


def test_a_bias_field_is_smooth_and_positive():
    uniform = jax.random.uniform(jax.random.key(0), (16,))
    field = appearance.bias_field(uniform, (40, 30), strength=0.4)
    assert 0.5 < float(field.min()) < 1 < float(field.max()) < 2
    np.testing.assert_array_equal(
        appearance.bias_field(uniform, (5, 5), strength=0.0), 1.0
    )


def test_a_view_keeps_a_box_of_at_least_a_fifth_of_each_axis():
    widest = appearance.field_of_view(jnp.zeros(4), (20, 10))
    assert widest.all()
    narrow = appearance.field_of_view(jnp.full(4, 0.999), (20, 10))
    assert np.argwhere(narrow).min(0).tolist() == [8, 4]
    assert np.argwhere(narrow).max(0).tolist() == [12, 6]


def test_normalisation_is_by_bright_pixels_and_keeps_zeros():
    image = jnp.array([0.0, 0.01, 0.4, 0.6])[:, None, None]
    scaled = appearance.normalised(image, zero_outside=True)
    np.testing.assert_allclose(scaled[:, 0, 0], [0, -4.9, -1, 1], atol=1e-4)
    other = appearance.normalised(image, zero_outside=False)
    np.testing.assert_allclose(other[:, 0, 0], [-5, -4.9, -1, 1], atol=1e-4)
    assert np.isfinite(appearance.normalised(image * 0, zero_outside=True)).all()
