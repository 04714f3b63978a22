import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from unet_jax.labels import IGNORE
from unet_jax.losses.overlap import dice_loss


def _sure(labels, classes=3):
    """Logits of a predictor that is certain."""
    return 50.0 * jax.nn.one_hot(jnp.asarray(labels), classes)


@pytest.mark.parametrize("shape", [(5, 7), (3, 5, 7)])
@pytest.mark.parametrize("squared", [True, False])
def test_perfect_is_zero_and_disjoint_is_one(shape, squared):
    labels = np.random.default_rng(0).integers(0, 3, (2, *shape))
    perfect = dice_loss(logits=_sure(labels), labels=labels, squared=squared)
    wrong = dice_loss(logits=_sure((labels + 1) % 3), labels=labels, squared=squared)
    assert perfect.shape == (2, 3)
    np.testing.assert_allclose(perfect, 0, atol=1e-6)
    np.testing.assert_allclose(wrong, 1, atol=1e-6)


@pytest.mark.parametrize("squared", [True, False])
def test_constant_predictor_has_the_closed_form(squared):
    # Two classes at p = 1/2 on ten pixels, four of them of class 1, smoothing s.
    labels = np.array([[0] * 6 + [1] * 4])
    s = 0.25
    loss = dice_loss(
        logits=jnp.zeros((1, 10, 2)), labels=labels, squared=squared, smooth=s
    )
    predicted = 10 / 4 if squared else 10 / 2
    expected = [1 - (n + s) / (predicted + n + s) for n in (6, 4)]
    np.testing.assert_allclose(loss[0], expected, atol=1e-6)


def test_an_absent_class_is_finite_and_falls_as_it_is_predicted_less():
    labels = np.zeros((1, 4, 4), np.int32)
    losses = [
        dice_loss(logits=scale * _sure(labels, 2), labels=labels, smooth=1.0)[0, 1]
        for scale in (0.0, 0.02, 1.0)
    ]
    assert losses[0] > losses[1] > losses[2]
    np.testing.assert_allclose(losses[2], 0, atol=1e-6)


def test_batch_dice_is_the_dice_of_the_samples_laid_side_by_side():
    rng = np.random.default_rng(1)
    logits = rng.normal(size=(3, 4, 5, 2)).astype(np.float32)
    labels = rng.integers(-1, 2, (3, 4, 5))
    pooled = dice_loss(logits=logits, labels=labels, batch_dice=True)
    one = dice_loss(logits=logits.reshape(1, 12, 5, 2), labels=labels.reshape(1, 12, 5))
    np.testing.assert_allclose(pooled, np.repeat(one, 3, axis=0), rtol=1e-6)


def test_ignored_pixels_change_neither_loss_nor_gradient():
    rng = np.random.default_rng(2)
    logits = jnp.asarray(rng.normal(size=(2, 6, 3)), jnp.float32)
    labels = rng.integers(0, 3, (2, 6))
    labels[:, ::2] = IGNORE

    def loss(z):
        return dice_loss(logits=z, labels=labels).sum()

    other = logits.at[:, ::2].set(100.0)
    np.testing.assert_array_equal(loss(logits), loss(other))
    gradient, moved = jax.grad(loss)(logits), jax.grad(loss)(other)
    np.testing.assert_array_equal(gradient[:, ::2], 0)
    np.testing.assert_array_equal(gradient, moved)
    assert np.abs(gradient[:, 1::2]).min() > 0


@pytest.mark.parametrize("value", [0, 1, IGNORE])
@pytest.mark.parametrize("scale", [1.0, 1e4])
def test_gradients_are_finite_on_empty_and_full_masks(value, scale):
    labels = np.full((1, 4, 4), value)
    logits = scale * jnp.asarray(np.random.default_rng(3).normal(size=(1, 4, 4, 2)))

    def loss(z):
        return dice_loss(logits=z, labels=labels).sum()

    assert np.isfinite(loss(logits))
    assert np.isfinite(jax.grad(loss)(logits)).all()


def test_bfloat16_logits_are_summed_in_float32():
    # 300 x 300 ones do not fit the 8 bits of a bfloat16 sum.
    labels = np.zeros((1, 300, 300), np.int32)
    loss = dice_loss(logits=_sure(labels, 2).astype(jnp.bfloat16), labels=labels)
    assert loss.dtype == jnp.float32
    np.testing.assert_allclose(loss[0, 0], 0, atol=1e-6)


def test_an_axis_without_pooling_is_refused():
    with pytest.raises(ValueError, match="needs batch_dice=True"):
        dice_loss(
            logits=jnp.zeros((1, 2, 2)), labels=jnp.zeros((1, 2), int), axis_name="x"
        )


class DiceLossVariants(chex.TestCase):
    @chex.variants(with_jit=True, without_jit=True, with_pmap=True)
    def test_every_way_of_calling_gives_the_same(self):
        rng = np.random.default_rng(4)
        logits = rng.normal(size=(2, 5, 3)).astype(np.float32)
        labels = rng.integers(0, 3, (2, 5)).astype(np.int32)

        @self.variant(reduce_fn="first_device_output")
        def loss(logits, labels):
            return dice_loss(logits=logits, labels=labels)

        p = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
        y = np.eye(3)[labels]
        expected = 1 - (2 * (p * y).sum(1) + 1e-5) / ((p**2 + y).sum(1) + 1e-5)
        np.testing.assert_allclose(loss(logits, labels), expected, atol=1e-6)
