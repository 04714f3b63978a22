"""What holds for every loss: one matrix of losses, heads and options."""

import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from absl.testing import parameterized

from unet_jax.errors import InputError
from unet_jax.labels import IGNORE
from unet_jax.losses.parameters import Number, PerClass, Switch, WholeNumber
from unet_jax.losses.reduction import loss_kind
from unet_jax.losses.table import LOSSES, NAMES
from unet_jax.losses.terms import create_loss_terms, find_loss

ROWS = [loss for loss in LOSSES if "labels" in loss.reads]
PAIRS = [
    (loss.name, head)
    for loss in ROWS
    for head in ("softmax", "sigmoid")
    if loss.head in (None, head)
]


def _needed(loss):
    """A value for each parameter without a default."""
    required = [key for key in loss.options if key not in loss.defaults]
    return {key: min(loss.parameters[key].high, 3.0) for key in required}


def _other_value(parameter, default):
    """A value that is neither the default nor the value of `_needed`."""
    match parameter:
        case Switch():
            return not default
        case PerClass():
            return (0.2, 0.5, 0.7)
        case WholeNumber():
            return parameter.low if default != parameter.low else default + 1
        case Number():
            return min(parameter.high, parameter.low + 0.37)
    raise AssertionError(parameter)


def _term(name, head, **options):
    """The term as the objective calls it."""
    spec = ((name, 1.0, {**_needed(find_loss(name)), **options}),)
    return create_loss_terms(spec, head=head)[0]


def _function(name, head, **options):
    return _term(name, head, **options).function


def _example(dtype=jnp.float32):
    rng = np.random.default_rng(5)
    logits = jnp.asarray(rng.normal(size=(2, 8, 7, 3)), dtype)
    labels = rng.integers(0, 3, (2, 8, 7))
    labels[1][labels[1] == 2] = 1  # class 2 is absent here
    labels[:, 3:5, 2:6] = IGNORE
    return logits, labels


@functools.cache
def _value_and_gradient(name, head):
    """Compiled once for all tests of a pair."""
    function = _function(name, head)

    @jax.jit
    def both(logits, labels):
        values = function(logits=logits, labels=labels)
        total, pull = jax.vjp(lambda z: function(logits=z, labels=labels).sum(), logits)
        return values, pull(jnp.ones_like(total))[0]

    return both


def test_every_loss_has_a_head():
    assert {name for name, _ in PAIRS} == set(NAMES)
    assert len(PAIRS) > len(NAMES)


@pytest.mark.parametrize(("name", "head"), PAIRS)
def test_ignored_pixels_change_neither_loss_nor_gradient(name, head):
    logits, labels = _example()
    ignored = (labels == IGNORE)[..., None]
    other = jnp.where(ignored, 37.0 * jnp.sin(jnp.arange(3)), logits)
    values, gradient = _value_and_gradient(name, head)(logits, labels)
    moved, moved_gradient = _value_and_gradient(name, head)(other, labels)
    np.testing.assert_allclose(values, moved, rtol=1e-6, atol=1e-7)
    np.testing.assert_allclose(gradient, moved_gradient, rtol=1e-5, atol=1e-7)
    np.testing.assert_array_equal(np.where(ignored, gradient, 0), 0)
    assert np.abs(gradient).max() > 0


@pytest.mark.parametrize(
    ("name", "head", "option"),
    [
        (name, head, option)
        for name, head in PAIRS
        for option in find_loss(name).options
    ],
)
def test_every_option_changes_the_value(name, head, option):
    logits, labels = _example()
    loss = find_loss(name)
    changed = _other_value(loss.parameters[option], loss.defaults.get(option))
    before, _ = _value_and_gradient(name, head)(logits, labels)
    after = _function(name, head, **{option: changed})(logits=logits, labels=labels)
    assert np.abs(np.asarray(before) - np.asarray(after)).max() > 1e-5


def test_the_background_is_left_out_where_it_is_asked_for():
    logits, labels = _example()
    names = [loss.name for loss in LOSSES if "include_background" in loss.reads]
    assert names
    for name in names:
        function = _function(name, find_loss(name).head or "softmax")
        before, after = (
            function(logits=logits, labels=labels, include_background=choice)
            for choice in (True, False)
        )
        assert np.abs(np.asarray(before) - np.asarray(after)).max() > 1e-5


@pytest.mark.parametrize(("name", "head"), PAIRS)
def test_the_kind_of_a_row_is_the_shape_of_its_values(name, head):
    logits, labels = _example()
    values, _ = _value_and_gradient(name, head)(logits, labels)
    assert loss_kind(values.shape, labels.shape) == _term(name, head).kind


@pytest.mark.parametrize(("name", "head"), PAIRS)
def test_a_loss_pools_where_its_row_says_so(name, head):
    # A second sample changes the value of the first one only where the loss pools.
    logits, labels = _example()
    options = find_loss(name).options
    pooling = {"batch_dice": True} if "batch_dice" in options else {}
    if pooling or name == "balanced_bce":
        pooled = _term(name, head, **pooling)
        assert pooled.pooled
        both, alone = (
            pooled.function(logits=logits[:n], labels=labels[:n])[0] for n in (2, 1)
        )
        assert np.abs(np.asarray(both) - np.asarray(alone)).max() > 1e-4
    options = {"beta": 0.4} if name == "balanced_bce" else {}
    plain = _term(name, head, **options)
    assert not plain.pooled
    both, alone = (
        plain.function(logits=logits[:n], labels=labels[:n])[0] for n in (2, 1)
    )
    np.testing.assert_allclose(both, alone, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(("name", "head"), PAIRS)
@pytest.mark.parametrize("labels", ["empty", "full", "ignored"])
def test_gradients_are_finite_at_the_extremes(name, head, labels):
    value = {"empty": 0, "full": 1, "ignored": IGNORE}[labels]
    full = np.full((2, 8, 7), value)
    logits, _ = _example()
    for scaled in (logits, 1e4 * jnp.sign(logits), -1e4 * jnp.sign(logits)):
        values, gradient = _value_and_gradient(name, head)(scaled, full)
        assert np.isfinite(values).all()
        assert np.isfinite(gradient).all()


@pytest.mark.parametrize(("name", "head"), PAIRS)
def test_bfloat16_is_computed_in_float32(name, head):
    logits, labels = _example(jnp.bfloat16)
    half, _ = _value_and_gradient(name, head)(logits, labels)
    single, _ = _value_and_gradient(name, head)(logits.astype(jnp.float32), labels)
    assert half.dtype == jnp.float32
    np.testing.assert_allclose(half, single, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(("name", "head"), PAIRS)
def test_a_right_prediction_costs_less_than_a_wrong_one(name, head):
    _, labels = _example()
    one_hot = np.eye(3)[np.maximum(labels, 0)]
    both = _value_and_gradient(name, head)
    right, _ = both(jnp.asarray(20 * one_hot - 10, jnp.float32), labels)
    wrong, _ = both(
        jnp.asarray(20 * np.roll(one_hot, 1, axis=-1) - 10, jnp.float32), labels
    )
    assert right.sum() < wrong.sum()


@pytest.mark.parametrize("name", ["cl_dice", "boundary", "unet_weighted_cross_entropy"])
def test_volumes_too(name):
    rng = np.random.default_rng(6)
    logits = jnp.asarray(rng.normal(size=(1, 4, 5, 6, 2)), jnp.float32)
    labels = rng.integers(0, 2, (1, 4, 5, 6))
    values = _function(name, "softmax")(logits=logits, labels=labels)
    assert np.isfinite(values).all()


@pytest.mark.slow
class Variants(chex.TestCase):
    @chex.variants(with_jit=True, without_jit=True, with_pmap=True)
    @parameterized.named_parameters((f"{n}_{h}", n, h) for n, h in PAIRS)
    def test_every_way_of_calling_gives_the_same(self, name, head):
        logits, labels = _example()
        function = _function(name, head)
        loss = self.variant(
            lambda z, y: function(logits=z, labels=y),
            reduce_fn="first_device_output",
        )
        expected, _ = _value_and_gradient(name, head)(logits, labels)
        got = loss(np.asarray(logits), labels.astype(np.int32))
        np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("name", "head", "message"),
    [
        ("bce", "softmax", "than 'softmax'; give --config.model.head=sigmoid, or"),
        ("weighted_bce", "softmax", "use cross_entropy with class_weights"),
        ("lovasz_hinge", "softmax", "use lovasz_softmax"),
        (
            "cross_entropy",
            "sigmoid",
            "'sigmoid'; give --config.model.head=softmax",
        ),
    ],
)
def test_a_loss_of_the_other_head_is_refused(name, head, message):
    with pytest.raises(InputError, match=message):
        create_loss_terms(((name, 1.0, _needed(find_loss(name))),), head=head)


def test_inverse_frequency_is_the_fraction_of_the_others():
    fractions = (0.9, 0.1)
    spec = (("focal", 1.0, {"alpha": "inverse_frequency"}),)
    (term,) = create_loss_terms(spec, head="sigmoid", class_fractions=fractions)
    np.testing.assert_allclose(term.function.keywords["alpha"], (0.1, 0.9))
    spec = (("cross_entropy", 1.0, {"class_weights": "inverse_frequency"}),)
    (term,) = create_loss_terms(spec, class_fractions=(0.5, 0.3, 0.2))
    weights = term.function.keywords["class_weights"]
    np.testing.assert_allclose(np.sum(weights), 1)
    np.testing.assert_allclose(weights, np.array([6, 10, 15]) / 31)
    # A class with a fifth of the pixels has four times as many negatives, so the weight
    # of its positives is above a half.
    fractions = (0.7, 0.2, 0.1)
    spec = (("focal", 1.0, {"alpha": "inverse_frequency"}),)
    (term,) = create_loss_terms(spec, head="sigmoid", class_fractions=fractions)
    np.testing.assert_allclose(term.function.keywords["alpha"], (0.3, 0.8, 0.9))
    (term,) = create_loss_terms(spec, class_fractions=fractions)
    np.testing.assert_allclose(np.sum(term.function.keywords["alpha"]), 1)
    fractions = (0.9, 0.1)
    spec = (("balanced_bce", 1.0, {"beta": "inverse_frequency"}),)
    (term,) = create_loss_terms(spec, head="sigmoid", class_fractions=fractions)
    np.testing.assert_allclose(term.function.keywords["beta"], (0.1, 0.9))
    with pytest.raises(InputError, match="no training case has class 1"):
        create_loss_terms(spec, head="sigmoid", class_fractions=(1.0, 0.0))
