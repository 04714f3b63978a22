import jax
import jax.numpy as jnp
import numpy as np
import pytest

from unet_jax.errors import InputError
from unet_jax.labels import IGNORE
from unet_jax.losses.categorical import cross_entropy
from unet_jax.losses.overlap import dice_loss
from unet_jax.losses.terms import create_loss_terms
from unet_jax.training.objective import (
    global_totals,
    objective,
    supervised_objective,
)
from unet_jax.training.targets import region_targets, targets_of


def _example():
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(3, 5, 7, 3)).astype(np.float32)
    labels = rng.integers(0, 3, (3, 5, 7))
    labels[0, :3] = IGNORE
    return logits, labels


def _value(spec, *, include_background=False):
    logits, labels = _example()
    return objective(
        create_loss_terms(spec),
        logits=logits,
        labels=labels,
        totals=global_totals(labels, axis_name=None),
        include_background=include_background,
        axis_name=None,
    )


def test_entropies_are_the_mean_over_the_pixels_that_count():
    logits, labels = _example()
    values = cross_entropy(logits=logits, labels=labels)
    total, terms = _value((("cross_entropy", 1.0, {}),))
    expected = np.mean(values[labels != IGNORE])
    np.testing.assert_allclose(total, expected, rtol=1e-6)
    np.testing.assert_allclose(terms["cross_entropy"], expected, rtol=1e-6)


@pytest.mark.parametrize("include_background", [True, False])
def test_overlap_is_the_mean_over_samples_and_classes(include_background):
    logits, labels = _example()
    values = dice_loss(logits=logits, labels=labels, squared=False)
    total, _ = _value(
        (("dice", 1.0, {"squared": False}),), include_background=include_background
    )
    first = 0 if include_background else 1
    np.testing.assert_allclose(total, np.mean(values[:, first:]), rtol=1e-6)


def test_terms_are_weighted_and_summed():
    total, terms = _value((("dice", 2.0, {}), ("cross_entropy", 0.5, {})))
    expected = 2.0 * terms["dice"] + 0.5 * terms["cross_entropy"]
    np.testing.assert_allclose(total, expected, rtol=1e-6)


def test_outputs_of_deep_supervision_have_halving_weights():
    rng = np.random.default_rng(0)
    sizes = [(8, 12), (4, 6), (2, 3)]
    logits = [rng.normal(size=(2, *size, 3)).astype(np.float32) for size in sizes]
    targets = targets_of(rng.integers(0, 3, (2, 8, 12)), sizes, num_classes=3)
    terms = create_loss_terms((("dice", 2.0, {}), ("cross_entropy", 0.5, {})))
    totals = [global_totals(target, axis_name=None) for target in targets]
    options = {"include_background": False, "axis_name": None}
    total, sums, _ = supervised_objective(
        terms, logits=logits, targets=targets, totals=totals, **options
    )
    each = [
        objective(terms, logits=output, labels=target, totals=counts, **options)
        for output, target, counts in zip(logits, targets, totals, strict=True)
    ]
    weights = np.array([4, 2, 1]) / 7
    expected = np.dot(weights, [value for value, _ in each])
    np.testing.assert_allclose(total, expected, rtol=1e-6)
    for name, mean in sums.items():
        expected = np.dot(weights, [parts[name] for _, parts in each])
        np.testing.assert_allclose(mean, expected, rtol=1e-6)


def test_an_empty_batch_of_ignored_pixels_is_finite():
    labels = np.full((2, 4, 4), IGNORE)
    total, _ = objective(
        create_loss_terms((("dice", 1.0, {}), ("cross_entropy", 1.0, {}))),
        logits=np.zeros((2, 4, 4, 2), np.float32),
        labels=labels,
        totals=global_totals(labels, axis_name=None),
        include_background=False,
        axis_name=None,
    )
    assert float(total) == 0


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ((), r"loss: found \(\), expected e.g."),
        ((("dyce", 1.0, {}),), "unknown loss 'dyce'; expected one of 'dice'"),
        ((("dice", 1.0, {"beta": 1}),), "'dice' has no parameter 'beta'; expected any"),
        ((("dice", 1.0, {"axis_name": "x"}),), "has no parameter 'axis_name'"),
        (("dice",), "found the entry 'dice', expected"),
        ((("dice", "much", {}),), "expected"),
    ],
)
def test_a_wrong_spec_is_refused(spec, message):
    with pytest.raises(InputError, match=message):
        create_loss_terms(spec)


def test_regions_are_trained_by_a_sigmoid_each():
    """Dice and binary entropy of the mask of each region, and nothing of channel 0."""
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 4, (2, 5, 6))
    labels[:, 0] = IGNORE
    logits = rng.normal(size=(2, 5, 6, 3)).astype(np.float32)
    members = np.zeros((4, 3), bool)
    members[[1, 2, 3], 1] = members[[3], 2] = True
    terms = create_loss_terms(
        (("dice", 1.0, {}), ("bce", 1.0, {})), head="sigmoid", num_classes=3
    )
    options = {
        "include_background": False,
        "axis_name": None,
        "totals": global_totals(jnp.asarray(labels), axis_name=None),
    }
    targets = region_targets(jnp.asarray(labels), members)
    total, _ = objective(terms, logits=logits, labels=targets, **options)
    alone = []
    for channel, classes in ((1, (1, 2, 3)), (2, (3,))):
        mask = np.where(labels == IGNORE, IGNORE, np.isin(labels, classes))
        two = logits[..., [0, channel]]
        alone.append(objective(terms, logits=two, labels=mask, **options)[0])
    np.testing.assert_allclose(total, np.mean(alone), rtol=1e-6)
    gradient = jax.grad(
        lambda x: objective(terms, logits=x, labels=targets, **options)[0]
    )(logits)
    assert not gradient[..., 0].any()
    assert np.abs(gradient[..., 1:]).sum(axis=(0, 1, 2)).all()
