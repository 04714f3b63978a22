"""Losses of samples in which only some classes were labelled."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.losses.test_suite import PAIRS, _needed
from unet_jax.labels import IGNORE
from unet_jax.losses.partial import partial_inputs
from unet_jax.losses.terms import create_loss_terms, find_loss
from unet_jax.training.objective import global_totals, supervised_objective

NO_TUMOUR = np.array([True, True, False])
ALL = np.array([True, True, True])


def _example():
    rng = np.random.default_rng(3)
    logits = rng.normal(size=(2, 6, 5, 3)).astype(np.float32)
    labels = rng.integers(0, 3, (2, 6, 5))
    labels[0][labels[0] == 2] = 0
    labels[:, 0] = IGNORE
    return logits, labels


def _value(logits, labels, labelled, *, terms, include_background=True):
    return supervised_objective(
        terms,
        logits=[jnp.asarray(logits)],
        targets=[jnp.asarray(labels)],
        totals=[global_totals(jnp.asarray(labels), axis_name=None)],
        include_background=include_background,
        axis_name=None,
        labelled=None if labelled is None else jnp.asarray(labelled),
    )[0]


@pytest.mark.parametrize(("name", "head"), PAIRS)
def test_every_loss_reads_of_a_sample_only_what_was_labelled_in_it(name, head):
    terms = create_loss_terms(((name, 1.0, _needed(find_loss(name))),), head=head)
    value = functools.partial(_value, terms=terms)
    logits, labels = _example()
    labelled = np.stack([NO_TUMOUR, ALL])
    loss, gradient = jax.value_and_grad(value)(logits, labels, labelled)
    assert np.isfinite(loss)
    assert np.isfinite(gradient).all()
    assert np.abs(gradient[1]).sum() > 0
    # Tumour and background change places: for this sample they are one class.
    other = logits.copy()
    other[0] = logits[0][..., [2, 1, 0]]
    np.testing.assert_allclose(value(other, labels, labelled), loss, rtol=1e-5)
    # With all classes labelled nothing is different.
    plain = value(logits, labels, None)
    everything = np.stack([ALL, ALL])
    np.testing.assert_allclose(value(logits, labels, everything), plain, rtol=1e-5)
    assert abs(float(plain) - float(loss)) > 1e-4


def test_the_marginal_probability_is_that_of_background_and_what_was_not_labelled():
    logits = jnp.log(jnp.array([[[0.2, 0.5, 0.3], [0.1, 0.1, 0.8]]]))
    labels = jnp.array([[0, 1]])
    merged, same = partial_inputs(
        logits, labels, labelled=jnp.asarray(NO_TUMOUR[None]), head="softmax"
    )
    expected = [[[0.5, 0.5, 0], [0.9, 0.1, 0]]]
    np.testing.assert_allclose(jax.nn.softmax(merged), expected, atol=1e-6)
    assert same is labels


@pytest.mark.parametrize("head", ["softmax", "sigmoid"])
@pytest.mark.parametrize("batch_dice", [True, False])
def test_a_class_that_was_not_labelled_is_no_perfect_dice(head, batch_dice):
    """A mean over classes that counted it would halve the loss of the organ."""
    labels = np.zeros((2, 4, 4), int)
    labels[:, :2] = 1
    logits = np.zeros((2, 4, 4, 3), np.float32)
    logits[..., 0] = 9  # the organ is missed in both samples
    logits[..., 2] = -9
    terms = create_loss_terms((("dice", 1.0, {"batch_dice": batch_dice}),), head=head)
    value = functools.partial(_value, terms=terms, include_background=False)
    alone = value(logits[..., :2], labels, None)
    partly = value(logits, labels, np.stack([NO_TUMOUR, NO_TUMOUR]))
    np.testing.assert_allclose(partly, alone, rtol=1e-5)


def test_pooled_dice_of_a_class_is_that_of_the_samples_in_which_it_was_labelled():
    logits, labels = _example()
    spec = (("dice", 1.0, {"batch_dice": True}),)
    value = functools.partial(
        _value, terms=create_loss_terms(spec), include_background=False
    )
    # A sample with no labelled foreground adds 0 to the mean over samples.
    nothing = np.array([True, False, False])
    labels[0] = np.where(labels[0] == IGNORE, IGNORE, 0)
    partly = value(logits, labels, np.stack([nothing, ALL]))
    alone = value(logits[1:], labels[1:], None)
    np.testing.assert_allclose(partly, alone / 2, rtol=1e-5)
