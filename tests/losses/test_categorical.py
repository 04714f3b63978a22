import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from unet_jax.labels import IGNORE
from unet_jax.losses.categorical import cross_entropy


@pytest.mark.parametrize("classes", [2, 5])
def test_uniform_scores_give_the_log_of_the_number_of_classes(classes):
    labels = np.random.default_rng(0).integers(0, classes, (2, 3, 5, 7))
    loss = cross_entropy(logits=jnp.zeros((2, 3, 5, 7, classes)), labels=labels)
    assert loss.shape == (2, 3, 5, 7)
    np.testing.assert_allclose(loss, np.log(classes), atol=1e-6)


def test_two_classes_are_the_softplus_of_their_difference():
    logits = jnp.array([[[0.3, -1.2], [2.0, 0.5]]])
    loss = cross_entropy(logits=logits, labels=np.array([[0, 1]]))
    np.testing.assert_allclose(
        loss[0], [np.log1p(np.exp(-1.5)), np.log1p(np.exp(1.5))], atol=1e-6
    )


def test_ignored_pixels_change_neither_loss_nor_gradient():
    logits = jnp.asarray(np.random.default_rng(1).normal(size=(2, 6, 3)), jnp.float32)
    labels = np.array([[0, 1, 2, 0, 1, 2]] * 2)
    labels[:, ::2] = IGNORE
    loss = cross_entropy(logits=logits, labels=labels)
    np.testing.assert_array_equal(loss[:, ::2], 0)
    gradient = jax.grad(lambda z: cross_entropy(logits=z, labels=labels).sum())(logits)
    np.testing.assert_array_equal(gradient[:, ::2], 0)
    assert np.abs(gradient[:, 1::2]).min() > 0


@pytest.mark.parametrize("value", [0, 1, IGNORE])
def test_huge_scores_stay_finite(value):
    logits = jnp.array([[[1e4, -1e4], [-1e4, 1e4], [1e4, 1e4]]])
    labels = np.full((1, 3), value)

    def loss(z):
        return cross_entropy(logits=z, labels=labels).sum()

    assert np.isfinite(loss(logits))
    assert np.isfinite(jax.grad(loss)(logits)).all()
    if value == 0:
        np.testing.assert_allclose(loss(logits), 2e4 + np.log(2), rtol=1e-6)


def test_bfloat16_logits_give_float32():
    logits = jnp.zeros((1, 2, 4), jnp.bfloat16)
    loss = cross_entropy(logits=logits, labels=np.array([[0, 3]]))
    assert loss.dtype == jnp.float32
    np.testing.assert_allclose(loss, np.log(4), atol=1e-6)


class CrossEntropyVariants(chex.TestCase):
    @chex.variants(with_jit=True, without_jit=True, with_pmap=True)
    def test_every_way_of_calling_gives_the_same(self):
        rng = np.random.default_rng(2)
        logits = rng.normal(size=(2, 5, 3)).astype(np.float32)
        labels = rng.integers(0, 3, (2, 5)).astype(np.int32)

        @self.variant(reduce_fn="first_device_output")
        def loss(logits, labels):
            return cross_entropy(logits=logits, labels=labels)

        p = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
        expected = -np.log(np.take_along_axis(p, labels[..., None], -1))[..., 0]
        np.testing.assert_allclose(loss(logits, labels), expected, atol=1e-6)
