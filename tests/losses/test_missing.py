"""Missing a class never costs less than finding a part of it, and bounds hold."""

import functools
import inspect
import math
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from unet_jax.labels import IGNORE
from unet_jax.losses.confusion import mcc_loss
from unet_jax.losses.table import LOSSES, Loss
from unet_jax.losses.terms import create_loss_terms, find_loss

OVERLAPS = (
    "dice",
    "jaccard",
    "generalized_dice",
    "tversky",
    "focal_tversky",
    "log_cosh_dice",
    "sensitivity_specificity",
    "mcc",
    "lovasz_softmax",
    "lovasz_hinge",
    "combo",
    "cl_dice",
)
PAIRS = [
    (name, head)
    for name in OVERLAPS
    for head in ("softmax", "sigmoid")
    if find_loss(name).head in (None, head)
]
HEIGHTS = (16.0, 100.0)  # 1e-7 of a sigmoid, and exactly 0
BATCH = 48


@functools.cache
def _examples():
    """Labels with an object of class 2 in each, and a non-empty part of each object."""
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 2, (BATCH, 7, 6))
    labels[:, 0, 0] = IGNORE
    part = np.zeros(labels.shape, bool)
    for one, found in zip(labels, part, strict=True):
        high, wide = rng.integers(1, 5, 2)
        top, left = rng.integers(1, 8 - high), rng.integers(0, 7 - wide)
        one[top : top + high, left : left + wide] = 2
        places = rng.permutation(np.argwhere(one == 2))
        found[tuple(places[: rng.integers(1, len(places) + 1)].T)] = True
    return labels, part


def _logits(classes, height):
    """Scores of a predictor that is certain of a class everywhere."""
    return height * (2.0 * np.eye(3, dtype=np.float32)[classes] - 1)


def _extremes():
    """Random and extreme scores, and labels: mixed, absent, full and ignored."""
    rng = np.random.default_rng(1)
    shape = (BATCH, 7, 6, 3)
    scores = rng.normal(size=shape) * 10.0 ** rng.uniform(-3, 5, (BATCH, 1, 1, 1))
    scores[::3] = np.sign(scores[::3]) * 1e4
    scores[::5] = scores[::5, :1, :1]
    labels = rng.integers(-1, 3, shape[:-1])
    labels[1::4] = rng.integers(-1, 3, (len(labels[1::4]), 1, 1))
    labels[2::4, 1:] = 0
    return scores.astype(np.float32), labels


@functools.cache
def _values(name, head):
    """Values of missed and found objects by height, of absent ones, of extreme input.

    They are computed by one call, so that every loss is compiled once.
    """
    loss = find_loss(name)
    needed = {key: 3.0 for key in loss.options if key not in loss.defaults}
    (term,) = create_loss_terms(((name, 1.0, needed),), head=head)
    labels, part = _examples()
    missed = np.where(labels > 0, labels % 2, 0)
    found = np.where(part, 2, missed)
    scores, others = _extremes()
    logits = [_logits(each, h) for each in (missed, found) for h in HEIGHTS]
    logits.append(_logits(missed, 100.0))
    values = jax.jit(term.function)(
        logits=jnp.concatenate([*logits, scores]),
        labels=np.concatenate([labels] * 4 + [missed, others]),
    )
    objects, extreme = np.split(np.asarray(values), [5 * BATCH])
    if objects.ndim == 2:
        objects = objects[:, 2]
    return *np.split(objects, [2 * BATCH, 4 * BATCH]), extreme


@pytest.mark.parametrize(("name", "head"), PAIRS)
def test_missing_a_class_costs_at_least_as_much_as_finding_a_part_of_it(name, head):
    missed, found, absent, _ = _values(name, head)
    assert (missed >= found - 1e-6).all()
    if name == "mcc":
        assert missed.min() >= 0.99
    # A class that is neither labelled nor predicted costs nothing.
    np.testing.assert_allclose(absent, 0, atol=1e-5)


def _bounds(loss: Loss) -> tuple[float, float]:
    """The bounds that the docstring states."""
    text = inspect.getdoc(loss.function).partition("Returns:")[2]
    if interval := re.search(r"in \[([\d.]+), ([\d.]+)\]", text):
        return float(interval[1]), float(interval[2])
    assert re.match(r" Values of 0 or more", text), loss.name
    return 0.0, math.inf


@pytest.mark.parametrize(("name", "head"), PAIRS)
def test_values_are_within_the_bounds_that_the_docstring_states(name, head):
    low, high = _bounds(find_loss(name))
    *_, extreme = _values(name, head)
    assert np.isfinite(extreme).all()
    assert extreme.min() >= low - 1e-6
    assert extreme.max() <= high + 1e-6


def test_every_loss_of_classes_is_an_overlap_or_a_distance():
    distances = {"boundary", "hausdorff_dt"}
    named = {loss.name for loss in LOSSES if loss.kind == "class"}
    assert named - set(OVERLAPS) == distances


def test_the_exception_that_docs_losses_names():
    # One end of a long object is found. The rest of the object is far from the
    # prediction, and nothing is far from it where nothing is predicted.
    labels = np.full((2, 20), 0)
    labels[:, 4:16] = 2
    predicted = labels * np.array([[0], [1]]) * (np.arange(20) == 4)
    loss = jax.jit(find_loss("hausdorff_dt").function)
    missed, found = loss(logits=_logits(predicted, 16.0), labels=labels)[:, 2]
    assert missed < found


@pytest.mark.parametrize("pixels", [1, 7, 40])
@pytest.mark.parametrize("p", [1e-7, 1e-3, 0.5, 0.999])
def test_mcc_of_a_constant_prediction_is_1(pixels, p):
    labels = (np.arange(64) < pixels).astype(np.int32)[None]
    logits = jnp.full((1, 64, 2), np.log(p / (1 - p)), jnp.float32)
    loss = mcc_loss(logits=logits, labels=labels, head="sigmoid")
    np.testing.assert_allclose(loss, 1, atol=2e-3)


def test_mcc_of_a_class_that_is_absent_grows_with_what_is_predicted_of_it():
    labels = np.zeros((1, 9), np.int32)
    losses = []
    for count in (0, 1, 4, 9):
        predicted = (np.arange(9) < count).astype(int)[None]
        loss = mcc_loss(logits=50.0 * jnp.eye(2)[predicted], labels=labels, smooth=0.5)
        losses.append(float(loss[0, 1]))
        expected = 1 - math.sqrt(0.5 * (9 - count + 0.5) / ((count + 0.5) * 9.5))
        np.testing.assert_allclose(losses[-1], expected, atol=1e-6)
        np.testing.assert_allclose(loss[0, 0], loss[0, 1], atol=1e-6)
    assert losses == sorted(losses)
    assert losses[0] == 0
