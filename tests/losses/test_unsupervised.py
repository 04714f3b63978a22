"""Soft normalised cut and reconstruction against sums over all pairs of pixels."""

import itertools
import math

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from absl.testing import parameterized

from unet_jax.losses.unsupervised import reconstruction_loss, soft_ncut_loss

WEIGHTS = {"intensity_sigma": 0.7, "spatial_sigma": 2.0, "radius": 2.5}


def _example(spatial, *, clusters=3, channels=2, seed=0, batch=2):
    rng = np.random.default_rng(seed)
    logits = rng.normal(size=(batch, *spatial, clusters)).astype(np.float32)
    images = rng.normal(size=(batch, *spatial, channels)).astype(np.float32)
    return logits, images


def _by_pairs(logits, images, *, intensity_sigma, spatial_sigma, radius):
    """The formula as it stands, with the matrix of all pairs of pixels."""
    values = []
    for z, image in zip(logits.astype(np.float64), images, strict=True):
        places = list(itertools.product(*(range(n) for n in image.shape[:-1])))
        w = np.zeros((len(places),) * 2)
        for (i, u), (j, v) in itertools.product(enumerate(places), repeat=2):
            far = math.dist(u, v)
            if far < radius:
                difference = np.sum((image[u].astype(np.float64) - image[v]) ** 2)
                w[i, j] = math.exp(-difference / intensity_sigma**2) * math.exp(
                    -(far**2) / spatial_sigma**2
                )
        p = np.exp(z) / np.exp(z).sum(-1, keepdims=True)
        p = p.reshape(-1, p.shape[-1])
        ratios = [
            (p[:, k] @ w @ p[:, k]) / (p[:, k] @ w.sum(1)) for k in range(p.shape[1])
        ]
        values.append(p.shape[1] - sum(ratios))
    return np.array(values)


@pytest.mark.parametrize("spatial", [(7,), (6, 5), (3, 4, 5)])
@pytest.mark.parametrize("radius", [0.5, 1.0, 2.0, 2.5])
def test_shifts_give_what_all_pairs_give(spatial, radius):
    logits, images = _example(spatial)
    weights = {**WEIGHTS, "radius": radius}
    got = soft_ncut_loss(logits=logits, images=images, **weights)
    expected = _by_pairs(logits, images, **weights)
    np.testing.assert_allclose(got, expected, rtol=2e-6, atol=1e-6)


def test_the_defaults_are_the_papers_radius_and_distance():
    logits, images = _example((9, 8), batch=1)
    got = soft_ncut_loss(logits=logits, images=images)
    expected = _by_pairs(
        logits, images, intensity_sigma=0.2, spatial_sigma=4.0, radius=5.0
    )
    np.testing.assert_allclose(got, expected, rtol=2e-6)


def test_the_gradient_is_that_of_the_formula():
    logits, images = _example((4, 5), batch=1)

    def dense(z):
        p = jax.nn.softmax(z[0].reshape(-1, 3), axis=-1)
        places = np.stack(np.meshgrid(range(4), range(5), indexing="ij"), -1)
        far = np.square(places.reshape(-1, 1, 2) - places.reshape(1, -1, 2)).sum(-1)
        f = images[0].reshape(-1, 2)
        near = np.exp(-np.square(f[:, None] - f).sum(-1) / 0.7**2) * np.exp(-far / 4)
        w = jnp.asarray(np.where(far < 2.5**2, near, 0))
        return 3 - jnp.sum((p * (w @ p)).sum(0) / (p * w.sum(1)[:, None]).sum(0))

    got = jax.grad(lambda z: soft_ncut_loss(logits=z, images=images, **WEIGHTS).sum())(
        logits
    )
    np.testing.assert_allclose(got, jax.grad(dense)(logits), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("spatial", [(8, 9), (4, 5, 6)])
def test_equal_scores_cost_one_less_than_the_clusters(spatial):
    for clusters in (2, 5):
        logits, images = _example(spatial, clusters=clusters)
        got = soft_ncut_loss(logits=0 * logits, images=images, **WEIGHTS)
        np.testing.assert_allclose(got, clusters - 1, rtol=1e-6)


def test_a_cut_along_an_edge_costs_nothing_and_across_it_much():
    images = np.zeros((1, 8, 8, 1), np.float32)
    images[:, :, 4:] = 50.0
    bright = (images[..., 0] > 0).astype(int)
    along = 40 * jax.nn.one_hot(bright, 2)
    across = jnp.swapaxes(along, 1, 2)
    cut, other = (soft_ncut_loss(logits=z, images=images) for z in (along, across))
    np.testing.assert_allclose(cut, 0, atol=1e-6)
    assert float(other[0]) > 0.3


def test_an_empty_cluster_costs_one():
    images = np.zeros((1, 6, 6, 1), np.float32)
    images[:, 3:] = 50.0
    top = (images[..., 0] > 0).astype(int)
    two = soft_ncut_loss(logits=200 * jax.nn.one_hot(top, 2), images=images)
    three = soft_ncut_loss(logits=200 * jax.nn.one_hot(top, 3), images=images)
    np.testing.assert_allclose(three - two, 1, atol=1e-6)


def test_neither_names_nor_mirrors_nor_brightness_change_it():
    logits, images = _example((7, 6))
    expected = soft_ncut_loss(logits=logits, images=images, **WEIGHTS)
    for z, x in (
        (logits[..., ::-1], images),
        (logits[:, ::-1], images[:, ::-1]),
        (np.swapaxes(logits, 1, 2), np.swapaxes(images, 1, 2)),
        (logits + 3.0, images - 5.0),
        (logits, -images),
    ):
        got = soft_ncut_loss(logits=z, images=x, **WEIGHTS)
        np.testing.assert_allclose(got, expected, rtol=1e-5)
    scaled = {**WEIGHTS, "intensity_sigma": 7.0}
    got = soft_ncut_loss(logits=logits, images=10 * images, **scaled)
    np.testing.assert_allclose(got, expected, rtol=1e-5)


@pytest.mark.parametrize("option", ["intensity_sigma", "spatial_sigma", "radius"])
def test_every_weight_changes_the_value(option):
    logits, images = _example((7, 6))
    before = soft_ncut_loss(logits=logits, images=images, **WEIGHTS)
    changed = {**WEIGHTS, option: 1.3}
    after = soft_ncut_loss(logits=logits, images=images, **changed)
    assert np.abs(np.asarray(before) - np.asarray(after)).max() > 1e-3


@pytest.mark.slow
def test_images_get_no_gradient_and_extremes_a_finite_one():
    logits, images = _example((6, 5))

    def loss(z, x):
        return soft_ncut_loss(logits=z, images=x).sum()

    for scale in (1e4, -1e4, 0.0):
        for image in (images, 0 * images, 1e6 * images):
            values, (to_logits, to_images) = jax.value_and_grad(loss, (0, 1))(
                scale * np.sign(logits), image
            )
            assert np.isfinite(values)
            assert np.isfinite(to_logits).all()
            np.testing.assert_array_equal(to_images, 0)


def test_half_precision_is_computed_in_single():
    logits, images = _example((6, 5))
    half = [jnp.asarray(x, jnp.bfloat16) for x in (logits, images)]
    got = soft_ncut_loss(logits=half[0], images=half[1])
    wide = soft_ncut_loss(
        logits=half[0].astype(jnp.float32), images=half[1].astype(jnp.float32)
    )
    assert got.dtype == jnp.float32
    np.testing.assert_array_equal(got, wide)
    made = reconstruction_loss(reconstruction=half[1], images=half[1] + 1)
    assert made.dtype == jnp.float32


def test_reconstruction_is_the_mean_square_of_each_sample():
    _, images = _example((4, 5, 3))
    _, made = _example((4, 5, 3), seed=1)
    got = reconstruction_loss(reconstruction=made, images=images)
    expected = [np.mean((a - b) ** 2) for a, b in zip(made, images, strict=True)]
    np.testing.assert_allclose(got, expected, rtol=1e-6)
    gradient = jax.grad(
        lambda x: reconstruction_loss(reconstruction=x, images=images).sum()
    )(made)
    np.testing.assert_allclose(gradient, 2 * (made - images) / 120, rtol=1e-5)


def test_wrong_shapes_and_weights_are_refused():
    logits, images = _example((6, 5))
    with pytest.raises(ValueError, match=r"expected \(2, 6, 5\) and channels"):
        soft_ncut_loss(logits=logits, images=images[:, 1:])
    with pytest.raises(ValueError, match=r"above 0; found 0\.2, 4\.0 and 0\.0"):
        soft_ncut_loss(logits=logits, images=images, radius=0.0)
    with pytest.raises(ValueError, match="expected the same"):
        reconstruction_loss(reconstruction=images[..., :1], images=images)


class Variants(chex.TestCase):
    @chex.variants(with_jit=True, without_jit=True, with_pmap=True)
    @parameterized.parameters((6, 5), (3, 4, 3))
    def test_every_way_of_calling_gives_the_same(self, *spatial):
        logits, images = _example(spatial)
        loss = self.variant(
            lambda z, x: soft_ncut_loss(logits=z, images=x, **WEIGHTS),
            reduce_fn="first_device_output",
        )
        expected = _by_pairs(logits, images, **WEIGHTS)
        np.testing.assert_allclose(loss(logits, images), expected, rtol=2e-6)
