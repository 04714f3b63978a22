"""One mean for every loss: closed forms, and what the training objective computes."""

import jax.numpy as jnp
import numpy as np
import pytest

from tests.subset import slow_after
from unet_jax import losses
from unet_jax.labels import IGNORE
from unet_jax.losses.reduction import loss_kind, without_ignored
from unet_jax.losses.table import LOSSES
from unet_jax.losses.terms import create_loss_terms
from unet_jax.training.objective import global_totals, objective

LABELS = np.array([[[0, 1, IGNORE]], [[IGNORE, IGNORE, 1]]])  # 3 of 6 pixels count
PIXELS = np.array([[[1.0, 2.0, 70.0]], [[80.0, 90.0, 6.0]]])


def test_pixels_that_are_ignored_are_left_out():
    assert losses.reduce(PIXELS, LABELS) == 3.0


def test_pixels_and_classes():
    loss = np.stack([PIXELS, 3 * PIXELS], axis=-1)
    assert losses.reduce(loss, LABELS) == 6.0
    assert losses.reduce(loss, LABELS, include_background=False) == 9.0


def test_samples_and_classes():
    loss = np.array([[1.0, 2.0, 3.0], [5.0, 6.0, 7.0]])
    assert losses.reduce(loss, LABELS) == 4.0
    assert losses.reduce(loss, LABELS, include_background=False) == 4.5


def test_samples():
    assert losses.reduce(np.array([1.0, 4.0]), LABELS) == 2.5


def test_regions_count_each_pixel_and_class_once():
    regions = np.array([[[[0, 1], [1, IGNORE]]]])
    loss = np.array([[[[1.0, 2.0], [6.0, 50.0]]]])
    assert losses.reduce(loss, regions) == 3.0


def test_a_value_that_is_not_finite_at_an_ignored_pixel_stays_out():
    loss = np.where(LABELS == IGNORE, np.inf, PIXELS)
    assert losses.reduce(loss, LABELS) == 3.0


def test_half_precision_is_summed_in_float32():
    ones = jnp.ones((2, 64, 64), jnp.bfloat16)
    mean = losses.reduce(ones, np.zeros(ones.shape, int))
    assert mean.dtype == jnp.float32
    assert mean == 1.0


@pytest.mark.parametrize("shape", [(), (3,), (2, 3, 4), (2, 2, 1), (2, 1, 3, 2, 2)])
def test_another_shape_is_refused(shape):
    with pytest.raises(ValueError, match=r"found a loss of shape .* for labels"):
        losses.reduce(np.zeros(shape), LABELS)


def test_no_class_left_is_refused():
    with pytest.raises(ValueError, match="include_background=False leaves none"):
        losses.reduce(np.zeros((2, 1)), LABELS, include_background=False)


@pytest.mark.parametrize(
    ("shape", "kind"),
    [
        ((2, 1, 3), "pixel"),
        ((2, 1, 3, 4), "pixel_class"),
        ((2, 4), "class"),
        ((2,), "sample"),
    ],
)
def test_kinds_and_what_is_set_to_0(shape, kind):
    assert loss_kind(shape, LABELS.shape) == kind
    values = np.asarray(without_ignored(jnp.ones(shape), LABELS))
    assert values.sum() == values.size * (0.5 if kind.startswith("pixel") else 1)


@pytest.mark.parametrize("include_background", slow_after(1, [False, True]))
@pytest.mark.parametrize(
    ("name", "head"),
    [
        (loss.name, loss.head or head)
        for loss in LOSSES
        for head in ("softmax", "sigmoid")
        if "labels" in loss.reads and loss.head in (None, head)
    ],
)
def test_the_mean_is_that_of_training(name, head, include_background):
    rng = np.random.default_rng(0)
    logits = jnp.asarray(rng.normal(size=(2, 6, 5, 3)), jnp.float32)
    labels = rng.integers(-1, 3, (2, 6, 5))
    parameters = {"beta": 2.0} if name == "weighted_bce" else {}
    (term,) = create_loss_terms(((name, 1.0, parameters),), head=head)
    for batch in (labels, np.full_like(labels, IGNORE)):
        options = {"include_background": include_background}
        own = options if "include_background" in term.reads else {}
        values = term.function(logits=logits, labels=batch, **own)
        mean = losses.reduce(values, batch, **options)
        total, _ = objective(
            (term,),
            logits=logits,
            labels=batch,
            totals=global_totals(jnp.asarray(batch), axis_name=None),
            axis_name=None,
            **options,
        )
        assert np.isfinite(mean)
        np.testing.assert_allclose(mean, total, rtol=1e-6, atol=1e-7)
