"""The temperature is the optimum, and changes probabilities but no label."""

import numpy as np
import pytest
from scipy import optimize, special

from unet_jax.inference.temperature import (
    Calibration,
    drawn_pixels,
    fit_temperature,
)
from unet_jax.labels import IGNORE


def _pixels(seed, *, pixels=3000, classes=4, sharpness=3.0, head="softmax"):
    """Probabilities that are too certain, with labels drawn from the true ones."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(size=(pixels, classes)) * 1.5
    labels = (logits + rng.gumbel(size=logits.shape)).argmax(axis=-1)
    if head == "softmax":
        return special.softmax(sharpness * logits, axis=-1), labels
    others = special.expit(sharpness * logits[:, 1:])
    return np.concatenate([1 - others.max(-1, keepdims=True), others], -1), labels


def _nll(probabilities, labels, head, temperature):
    """The mean negative log-likelihood, as in the textbook."""
    if head == "softmax":
        logs = special.log_softmax(np.log(probabilities) / temperature, axis=-1)
        return -logs[np.arange(len(labels)), labels].mean()
    yes = special.expit(special.logit(probabilities[:, 1:]) / temperature)
    hit = labels[:, None] == np.arange(1, probabilities.shape[-1])
    return -np.log(np.where(hit, yes, 1 - yes)).mean()


@pytest.mark.parametrize("head", ["softmax", "sigmoid"])
@pytest.mark.parametrize("sharpness", [0.4, 3.0])
def test_the_temperature_is_the_optimum_that_scipy_finds(head, sharpness):
    probabilities, labels = _pixels(0, sharpness=sharpness, head=head)
    ignored = np.where(np.arange(len(labels)) % 3 == 0, IGNORE, labels)
    seen = ignored != IGNORE
    expected = optimize.minimize_scalar(
        lambda t: _nll(probabilities[seen], labels[seen], head, t),
        bounds=(0.05, 20),
        method="bounded",
        options={"xatol": 1e-8},
    )
    fit = fit_temperature(probabilities=probabilities, labels=ignored, head=head)
    np.testing.assert_allclose(fit.temperature, expected.x, rtol=1e-5)
    np.testing.assert_allclose(fit.nll, expected.fun, rtol=1e-9)
    before = _nll(probabilities[seen], labels[seen], head, 1.0)
    np.testing.assert_allclose(fit.nll_uncalibrated, before, rtol=1e-9)
    if head == "softmax":  # whose labels were drawn from its own likelihood
        np.testing.assert_allclose(fit.temperature, sharpness, rtol=0.1)


def test_regions_have_the_temperature_of_their_binary_labels():
    rng = np.random.default_rng(1)
    labels = rng.integers(0, 3, 500)
    members = np.array([[0, 0, 0], [0, 1, 0], [0, 1, 1]], bool)
    logits = 6 * (members[labels] - 0.5) + rng.normal(0, 4, (500, 3))
    probabilities = special.expit(logits)
    fit = fit_temperature(
        probabilities=probabilities, labels=labels, head="sigmoid", members=members
    )
    # The same pixels as two sets of one class each, without channel 0.
    both = np.concatenate([probabilities[:, [0, 1]], probabilities[:, [0, 2]]])
    inside = np.concatenate([members[labels, 1], members[labels, 2]]).astype(int)
    expected = fit_temperature(probabilities=both, labels=inside, head="sigmoid")
    assert fit == expected
    assert fit.temperature > 1.1


def test_without_an_optimum_the_temperature_stays_within_its_limits():
    right = np.tile([0.9, 0.1], (5, 1))
    zeros, ones = np.zeros(5, int), np.ones(5, int)
    assert fit_temperature(probabilities=right, labels=zeros).temperature == 1
    assert fit_temperature(probabilities=right, labels=ones).temperature == 20
    assert fit_temperature(probabilities=right, labels=zeros - 1) == (1, 0, 0)
    # A label of probability 0 says nothing about the temperature.
    certain = np.array([[1.0, 0.0], *right, *right[:2]])
    labels = np.array([1, 0, 0, 0, 0, 0, 1, 1])
    fit, without = (
        fit_temperature(probabilities=certain[first:], labels=labels[first:])
        for first in (0, 1)
    )
    assert fit == without
    assert np.isfinite(fit.nll)


@pytest.mark.parametrize("temperature", [0.05, 0.7, 3.0, 20.0])
@pytest.mark.parametrize("head", ["softmax", "sigmoid"])
def test_a_temperature_keeps_the_order_of_the_classes_and_what_is_certain(
    head, temperature
):
    probabilities, _ = _pixels(1, classes=3, sharpness=1.0, head=head)
    # A mean of mirror images: the background is not 1 minus the largest any more.
    probabilities = (probabilities + _pixels(2, classes=3, head=head)[0]) / 2
    calibrated = Calibration(temperature, head)(probabilities)
    best = np.take_along_axis(calibrated, probabilities.argmax(-1)[:, None], -1)[:, 0]
    np.testing.assert_array_equal(best, calibrated.max(-1))
    if head == "softmax":
        np.testing.assert_allclose(calibrated.sum(-1), 1, rtol=1e-12)
        expected = special.softmax(np.log(probabilities) / temperature, axis=-1)
    else:
        np.testing.assert_array_equal(calibrated > 0.5, probabilities > 0.5)
        expected = special.expit(special.logit(probabilities) / temperature)
    np.testing.assert_allclose(calibrated, expected, rtol=1e-9, atol=1e-300)
    edge = np.array([[1, 0, 0], [0.5, 0.5, 0], [0, 0, 1]], np.float32)
    np.testing.assert_array_equal(Calibration(temperature, head)(edge), edge)
    assert Calibration(temperature, head)(edge).dtype == np.float32


def test_a_mean_of_sigmoids_that_rounds_to_more_than_1_is_certain():
    above = np.nextafter(np.float32(1), np.float32(2))
    found = Calibration(20.0, "sigmoid")(np.array([above, 0.5], np.float32))
    np.testing.assert_array_equal(found, [1, 0.5])


def test_a_volume_is_calibrated_in_place_along_any_axis():
    volume = _pixels(3, pixels=60)[0].reshape(3, 4, 5, 4)
    expected = Calibration(1.7)(volume)
    Calibration(1.7).apply_to(np.moveaxis(volume, 1, 0))
    np.testing.assert_array_equal(volume, expected)


def test_pixels_are_drawn_with_equal_chances_and_by_the_seed_alone():
    label = np.arange(20).reshape(4, 5)
    label[1] = IGNORE
    counts = np.zeros(20)
    for seed in range(300):
        drawn, again = (drawn_pixels(label, count=5, seed=seed) for _ in range(2))
        np.testing.assert_array_equal(drawn, again)
        assert drawn.sum() == 5
        counts += drawn.ravel()
    assert not counts[5:10].any()
    assert np.delete(counts, range(5, 10)).min() > 60  # 100 are expected
    every = drawn_pixels(label, count=99, seed=0)
    np.testing.assert_array_equal(every, label != IGNORE)
