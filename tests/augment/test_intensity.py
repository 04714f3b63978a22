"""Values against closed forms and scikit-image, run plainly, under jit and vmap."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from skimage import exposure

from tests.augment.conftest import alone, example
from unet_jax.augment.intensity import (
    Brightness,
    Contrast,
    Gamma,
    GammaInverted,
    GaussianNoise,
)
from unet_jax.augment.policy import augment, default_options

KEY = jax.random.key(3)
ALL = {
    "noise": partial(GaussianNoise, std=(0.05, 0.1)),
    "brightness": Brightness,
    "contrast": Contrast,
    "gamma": Gamma,
    "gamma_inverted": GammaInverted,
}


@pytest.mark.parametrize("name", ALL)
def test_probability_one_changes_every_channel(name, variant):
    image, _ = example((5, 4, 3))
    changed = variant(alone(ALL[name](probability=1.0)))(KEY, image)
    assert changed.shape == image.shape
    assert changed.dtype == image.dtype
    assert np.all(np.abs(changed - image).max((0, 1, 2)) > 1e-3)


@pytest.mark.parametrize("name", ALL)
def test_what_is_not_drawn_is_the_same_to_the_bit(name):
    image, _ = example((7, 5))
    run = jax.jit(alone(ALL[name](probability=1e-6)))
    np.testing.assert_array_equal(run(KEY, image), image)


def test_slices_of_one_scan_have_the_same_change_and_noise_of_their_own():
    image = jnp.tile(example((7, 5))[0], 3)  # two channels of three slices
    label = jnp.zeros((7, 5), jnp.int32)
    off = {key: 0.0 for key in default_options() if key.endswith("probability")}
    for name in (*ALL, "blur", "low_resolution"):
        own = (f"{name}_probability", f"{name}_channel_probability")
        options = off | {key: 1.0 for key in own if key in off}
        made, _ = augment(KEY, image, label, slices=3, **options)
        first, *others = jnp.split(made, 3, axis=-1)
        assert np.all(np.abs(first - image[..., :2]).max((0, 1)) > 1e-3), name
        for other in others:
            assert (np.abs(first - other).max() < 1e-5) == (name != "noise"), name


def test_classes_of_a_first_stage_are_moved_and_keep_their_values():
    image, label = example((8, 8), channels=1)
    one_hot = jnp.stack([label == 1, label == 2], -1).astype(image.dtype)
    both = jnp.concatenate([image, one_hot], -1)
    off = {key: 0.0 for key in default_options() if key.endswith("probability")}
    on = {"flip_probability": 1.0, "brightness_probability": 1.0}
    options = off | on | {"flip_axes": (0,)}
    run = partial(augment, **options)
    made, moved = run(KEY, both, label, previous=2)
    alone_made, alone_moved = run(KEY, image, label)
    np.testing.assert_allclose(made[..., :1], alone_made, rtol=1e-6)
    np.testing.assert_array_equal(moved, alone_moved)
    classes = jnp.stack([moved == 1, moved == 2], -1)
    np.testing.assert_array_equal(made[..., 1:], classes)


@pytest.mark.parametrize("name", ALL)
def test_constant_images_stay_finite(name):
    image = jnp.full((6, 5, 1), 2.5)
    changed = jax.jit(alone(ALL[name](probability=1.0)))(KEY, image)
    assert np.all(np.isfinite(changed))
    if name not in ("noise", "brightness"):
        np.testing.assert_allclose(changed, image, rtol=1e-6)


def test_brightness_multiplies(variant):
    image, _ = example((7, 5))
    run = variant(alone(Brightness(probability=1.0, factor=(1.2, 1.2))))
    np.testing.assert_allclose(run(KEY, image), image * 1.2, rtol=1e-6)


def test_contrast_stretches_about_the_mean_within_the_range(variant):
    image, _ = example((9, 7))
    run = variant(alone(Contrast(probability=1.0, factor=(1.5, 1.5))))
    low, high = image.min((0, 1)), image.max((0, 1))
    mean = image.mean((0, 1))
    expected = np.clip((image - mean) * 1.5 + mean, low, high)
    changed = run(KEY, image)
    np.testing.assert_allclose(changed, expected, atol=1e-6)
    np.testing.assert_allclose(changed.max((0, 1)), high, atol=1e-6)


@pytest.mark.parametrize("invert", [False, True])
def test_gamma_is_skimage_with_the_statistics_kept(invert, variant):
    image, _ = example((9, 7))
    gamma = (GammaInverted if invert else Gamma)(probability=1.0, exponent=(1.4, 1.4))
    changed = variant(alone(gamma))(KEY, image)
    for channel in range(image.shape[-1]):
        before = np.asarray(image[..., channel], np.float64)
        sign = -1 if invert else 1
        start = (sign * before).min()
        bent = exposure.adjust_gamma((sign * before - start) / np.ptp(before), 1.4)
        standard = (bent - bent.mean()) / bent.std()
        expected = sign * standard * before.std() + before.mean()
        np.testing.assert_allclose(changed[..., channel], expected, atol=2e-5)


def test_noise_has_the_standard_deviation_asked_for():
    image = jnp.zeros((200, 200, 2))
    noise = alone(GaussianNoise(probability=1.0, std=(0.3, 0.3)))(KEY, image)
    # 40,000 values: the standard error of the std is 0.35 %, that of the mean 0.0015.
    np.testing.assert_allclose(noise.std((0, 1)), 0.3, rtol=0.02)
    np.testing.assert_allclose(noise.mean((0, 1)), 0.0, atol=0.007)
    correlation = np.corrcoef(noise[..., 0].ravel(), noise[..., 1].ravel())[0, 1]
    assert abs(correlation) < 0.03
