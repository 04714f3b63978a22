"""Images drawn from label maps."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from unet_jax.augment.draws import example_keys
from unet_jax.augment.policy import AUGMENTATIONS, augment
from unet_jax.augment.synthesis import Synthesis
from unet_jax.labels import IGNORE

OFF = {f"{name}_probability": 0.0 for name, _ in AUGMENTATIONS}
PLAIN = {
    **OFF,
    "synthesis": True,
    "synthesis_probability": 1.0,
    "synthesis_empty_probability": 0.0,
    "synthesis_field_of_view_probability": 0.0,
    "num_classes": 4,
    "zero_outside": True,
}
KEY = jax.random.key(3)


@pytest.fixture(scope="module")
def head():
    """Make a disc of three tissues in air, and its normalised image."""
    x, y = np.meshgrid(np.arange(48) - 23.5, np.arange(44) - 21.5, indexing="ij")
    radius = np.hypot(x, y)
    label = np.select([radius < 6, radius < 11, radius < 14], [3, 2, 1]).astype(
        np.int32
    )
    image = np.array([0.0, -1.5, 0.1, 1.2], np.float32)[label]
    image += (label > 0) * 0.1 * np.sin(x).astype(np.float32)
    return jnp.array(image[..., None]), jnp.array(label)


def _drawn(head, **options):
    return _compiled(tuple(options.items()))(example_keys(KEY, jnp.arange(40)), *head)


@functools.cache
def _compiled(options):
    run = functools.partial(augment, **{**PLAIN, **dict(options)})
    return jax.jit(jax.vmap(run, (0, None, None)))


def test_labels_stay_and_every_image_is_another(head):
    images, labels = _drawn(head)
    assert np.isfinite(images).all()
    np.testing.assert_array_equal(labels, np.broadcast_to(head[1], labels.shape))
    flat = np.asarray(images).reshape(40, -1)
    alike = np.corrcoef(flat) - np.eye(40)
    assert np.abs(alike).max() < 0.9999


def test_the_same_key_draws_the_same_image(head):
    first, again = _drawn(head)[0], _drawn(head)[0]
    np.testing.assert_array_equal(first, again)


def test_an_empty_background_is_zero_and_the_foreground_is_not(head):
    images, _ = _drawn(head, synthesis_empty_probability=1.0)
    outside = np.asarray(images)[:, np.asarray(head[1]) == 0]
    exact = (outside == 0).all((1, 2))
    assert 0.35 < exact.mean() < 0.85  # the others have noise in the air
    assert np.abs(outside[~exact]).max() > 0


def test_the_background_is_not_emptied_where_images_are_not(head):
    options = {"synthesis_empty_probability": 1.0, "zero_outside": False}
    emptied, _ = _drawn(head, **options)
    outside = np.asarray(emptied)[:, np.asarray(head[1]) == 0]
    assert outside.std(1).min() > 0


def test_images_of_the_full_range_are_drawn_from_black_to_white(head):
    options = {"zero_outside": False, "full_range": True}
    key, other = jax.random.split(KEY)
    drawn = [
        np.asarray(augment(one, *head, **{**PLAIN, **options})[0])
        for one in (key, other)
    ]
    for image in drawn:
        assert image.min() >= -1
        assert image.max() <= 1
        assert np.ptp(image) > 0.3
    cut = {"synthesis_field_of_view_probability": 1.0, "synthesis_noise": (0.0, 0.0)}
    image, label = augment(key, *head, **{**PLAIN, **options, **cut})
    assert (image[(label != head[1])] == -1).all()
    assert (label != head[1]).any()


def test_surroundings_are_drawn_outside_of_the_foreground_only(head):
    still = {
        "synthesis_bias": 0.0,
        "synthesis_noise": (0.0, 0.0),
        "synthesis_coarse_probability": 0.0,
        "synthesis_std": (0.0, 0.0),
    }
    around, _ = _drawn(head, synthesis_surroundings_probability=1.0, **still)
    plain, _ = _drawn(head, **still)
    inside = np.asarray(head[1]) > 1  # beyond the reach of a blur
    outside = np.asarray(head[1]) == 0
    levels = [len(np.unique(one[outside].round(2))) for one in np.asarray(around)]
    assert np.median(levels) > 20
    # Equal but for the line of normalisation, for the draws are the same.
    for one, other in zip(np.asarray(around), np.asarray(plain), strict=True):
        assert np.corrcoef(one[inside].ravel(), other[inside].ravel())[0, 1] > 0.98


@pytest.mark.slow
@pytest.mark.parametrize(("fraction", "least", "most"), [(1.0, 0.85, 1.0), (0, 0, 0.7)])
def test_contrast_is_near_that_of_the_image_or_its_negative(
    head, fraction, least, most
):
    images, _ = _drawn(head, synthesis_like_real_probability=fraction)
    inside = np.asarray(head[1]) > 0
    real = np.asarray(head[0])[inside].ravel()
    found = [np.corrcoef(one[inside].ravel(), real)[0, 1] for one in np.asarray(images)]
    assert least <= np.mean(np.abs(found) > 0.8) <= most
    if fraction:
        assert 0.2 < np.mean(np.array(found) > 0) < 0.8


def test_pixels_that_are_cut_off_are_background_and_ignored_ones_stay(head):
    image, label = head
    label = label.at[20:24, 20:24].set(IGNORE)
    images, labels = _drawn((image, label), synthesis_field_of_view_probability=1.0)
    images, labels = np.asarray(images), np.asarray(labels)
    cut = labels != np.asarray(label)
    assert (labels[cut] == 0).all()
    # The air of some images has noise.
    clean = np.array(
        [(one[where] == 0).all() for one, where in zip(images, cut, strict=True)]
    )
    assert 0.3 < clean.mean() < 0.9
    assert (labels == IGNORE).any()
    assert cut.any((1, 2)).mean() > 0.8


@pytest.mark.slow
@pytest.mark.parametrize("channels", [1, 3])
def test_volumes_and_channels_are_drawn(channels):
    label = jnp.zeros((10, 9, 8), jnp.int8).at[2:7, 2:7, 2:7].set(1)
    image = jnp.broadcast_to(label[..., None] * 1.0, (*label.shape, channels))
    options = {**PLAIN, "synthesis_surroundings_probability": 1.0, "num_classes": 2}
    drawn, same = jax.jit(functools.partial(augment, **options))(KEY, image, label)
    assert drawn.shape == image.shape
    assert np.isfinite(drawn).all()
    np.testing.assert_array_equal(same, label)
    if channels > 1:
        assert not np.allclose(drawn[..., 0], drawn[..., 1])


def test_examples_that_are_not_drawn_keep_their_bits(head):
    images, _ = _drawn(head, synthesis_probability=0.5)
    kept = (np.asarray(images) == np.asarray(head[0])).all((1, 2, 3))
    assert 0.25 < kept.mean() < 0.75
    off, _ = augment(KEY, *head, **{**PLAIN, "synthesis": False})
    np.testing.assert_array_equal(off, head[0])


def _scans(sub_labels, label):
    """Draw 60 images of sub-labels that have no noise, before they are normalised."""
    still = Synthesis(
        like_real_probability=0.0,
        empty_probability=0.0,
        field_of_view_probability=0.0,
        std=(0.0, 0.0),
        blur=(0.1, 0.1),
        coarse_probability=0.0,
        noise=(0.0, 0.0),
        bias=0.0,
    )
    draw = functools.partial(still.draw_scan, num_classes=4, zero_outside=True)
    keys = example_keys(KEY, jnp.arange(60))
    drawn = jax.jit(jax.vmap(draw, (0, None, None)))(keys, sub_labels, label)
    return np.asarray(drawn)[..., 0]


def test_labelled_surroundings_differ_and_the_rest_of_the_background_is_air(head):
    _, label = head
    sub_labels = jnp.zeros((*label.shape, 1)).at[:6].set(-4.0).at[-6:].set(4.0)
    # One class has parts, whose intensities differ in some images.
    sub_labels = jnp.where((label == 3)[..., None], 0.0, sub_labels)
    sub_labels = sub_labels.at[24:30].set((label == 3)[24:30, :, None] * 1.0)
    images = _scans(sub_labels, label)
    air = (np.asarray(label) == 0) & (np.asarray(sub_labels[..., 0]) == 0)
    empty = (images[:, air] < 1e-6).all(1)
    assert 0.6 < empty.mean() < 1
    above, below = images[empty, 2].mean(1), images[empty, -2].mean(1)
    assert (above > 1e-3).all()
    assert np.abs(above - below).mean() > 0.15
    apart = np.abs(images[:, 21, 22] - images[:, 26, 22])
    assert 0.3 < (apart < 1e-4).mean() < 0.8
    assert (apart > 0.02).mean() > 0.2
