"""What a config may give a loss is checked before any work, and then computes."""

import inspect

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
import pytest

from unet_jax.commands import evaluate as score
from unet_jax.data.case import Case
from unet_jax.errors import InputError
from unet_jax.experiment import run
from unet_jax.losses.parameters import BOUNDS
from unet_jax.losses.terms import (
    _GIVEN,
    _SIGMOID_ONLY,
    NAMES,
    WITHOUT_LABELS,
    create_loss_terms,
    loss_function,
)

SHARES = "inverse_frequency"


def _create(name, parameters, head=None, classes=3):
    head = head or ("sigmoid" if name in _SIGMOID_ONLY else "softmax")
    needed = {"beta": 2.0} if name == "weighted_bce" else {}
    spec = ((name, 1.0, {**needed, **parameters}),)
    (term,) = create_loss_terms(spec, head=head, num_classes=classes)
    return term


@pytest.mark.parametrize(
    ("name", "parameters", "head", "message"),
    [
        (
            "tversky",
            {"alpha": SHARES},
            None,
            "expected a number from 0.0",
        ),
        ("focal_tversky", {"alpha": SHARES}, None, "expected a number"),
        ("hausdorff_dt", {"alpha": SHARES}, None, "expected a number from 0.1 to 10"),
        ("combo", {"alpha": SHARES}, None, "expected a number from 0.0 to 1.0"),
        ("dice", {"class_weights": (1, 2)}, None, "(3, a number for each class)"),
        ("dice", {"class_weights": SHARES[:6]}, None, "or 'inverse_frequency'"),
        ("dice", {"class_weights": np.ones(3)}, None, "expected a tuple of numbers"),
        ("dice", {"class_weights": (0, 0, 0)}, None, "not all 0"),
        ("dice", {"class_weights": (1, -1, 1)}, None, "from 0 to 1000000.0"),
        ("dice", {"smooth": "x"}, None, "found 'x', expected a number"),
        ("dice", {"squared": "plain"}, None, "found 'plain', expected True or False"),
        ("top_k_cross_entropy", {"k": 10}, None, "'k' of 'top_k_cross_entropy': found"),
        ("mcc", {"smooth": 0.0}, None, "'smooth' of 'mcc': found 0.0"),
        ("cl_dice", {"smooth": 0}, None, "expected a number from 1e-08"),
        ("cl_dice", {"iterations": -1}, None, "expected a whole number from 0 to 1000"),
        ("cl_dice", {"iterations": 2.5}, None, "expected a whole number"),
        ("cross_entropy", {"label_smoothing": 1.5}, None, "from 0.0 to 1.0"),
        ("focal", {"gamma": -1.0}, None, "'gamma' of 'focal': found -1.0"),
        ("focal", {"gamma": float("nan")}, None, "found nan"),
        ("focal", {"alpha": 0.25}, None, "(3, a number for each class)"),
        ("focal", {"alpha": (0.5, 0.5)}, "sigmoid", "(3, a number for each class)"),
        ("focal", {"alpha": 1.5}, "sigmoid", "a number from 0 to 1.0, a tuple"),
        ("weighted_bce", {"beta": -3.0}, None, "'beta' of 'weighted_bce': found -3.0"),
        (
            "weighted_bce",
            {"beta": SHARES},
            None,
            "needs its parameter 'beta'",
        ),
        ("balanced_bce", {"beta": 2.0}, None, "'beta' of 'balanced_bce': found 2.0"),
        ("unet_weighted_cross_entropy", {"sigma": 0}, None, "from 0.001"),
    ],
)
def test_a_value_that_no_loss_can_compute_with_is_refused(
    name, parameters, head, message
):
    with pytest.raises(InputError) as caught:
        _create(name, parameters, head)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_weight_that_is_no_number_is_refused():
    with pytest.raises(InputError, match="weight of 'dice': found nan"):
        create_loss_terms((("dice", float("nan"), {}),))


@pytest.mark.parametrize(
    ("name", "parameters", "head"),
    [
        ("dice", {"class_weights": [1, 2.5, 0]}, None),
        ("dice", {"class_weights": None}, None),
        ("focal", {"alpha": (5.0, 0.0, 2.0)}, None),
        ("focal", {"alpha": 0.25}, "sigmoid"),
        ("balanced_bce", {"beta": (0.1, 0.2, 1.0)}, None),
        ("balanced_bce", {"beta": SHARES}, None),
    ],
)
def test_values_that_it_can_compute_with_are_taken(name, parameters, head):
    (value,) = parameters.values()
    (key,) = parameters
    taken = _create(name, parameters, head).function.keywords[key]
    assert taken == (tuple(value) if isinstance(value, list) else value)


def _options():
    for name in (*NAMES, *WITHOUT_LABELS):
        for key in sorted(set(inspect.signature(loss_function(name)[0]).parameters)):
            if key not in _GIVEN:
                yield name, key


def test_every_parameter_of_every_loss_is_checked():
    # None is left to the loss itself: each refuses what is of no type at all.
    for name, key in _options():
        with pytest.raises(InputError, match=key):
            _create(name, {key: object()})


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "key"),
    [
        (name, key)
        for name, key in _options()
        if name in NAMES and (key in BOUNDS or f"{name} {key}" in BOUNDS)
    ],
)
def test_every_bound_computes(name, key):
    low, high, _ = BOUNDS.get(f"{name} {key}") or BOUNDS[key]
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 2, (1, 5, 6))  # class 2 is absent
    logits = jnp.asarray(rng.normal(size=(1, 5, 6, 3)), jnp.float32)
    logits = logits.at[..., 2].set(-1e4)  # and not predicted
    for value in (low, min(high, 10) if key == "iterations" else high):
        function = _create(name, {key: value}).function

        def total(z, function=function):
            return function(logits=z, labels=labels).sum()

        loss, gradient = jax.value_and_grad(total)(logits)
        assert np.isfinite(loss), value
        assert np.isfinite(gradient).all(), value


class _RareClass:
    """Two hundred cases, of which the sixth and one in the middle have class 2."""

    def __len__(self):
        return 200

    def __getitem__(self, index):
        value = 2 if index in (5, 77) else index % 2
        label = np.full((4, 4), value)
        return Case(str(index), np.zeros((4, 4, 1)), label, None, str(index))


def test_fractions_are_those_of_the_whole_training_split():
    config = ml_collections.ConfigDict(
        {
            "loss": (("cross_entropy", 1.0, {"class_weights": SHARES}),),
            "model": {"head": "softmax"},
            "data": {"class_names": ("bg", "a", "rare"), "include_background": False},
            "eval": {"metrics": ("loss/cross_entropy",)},
        }
    )
    (term,) = run.loss_terms_of(config, _RareClass())
    inverse = 1 / np.array([100, 98, 2])
    np.testing.assert_allclose(
        term.function.keywords["class_weights"], inverse / inverse.sum()
    )
    losses = score.held_out_losses(config, {"train": _RareClass()})
    assert set(losses) == {"loss/cross_entropy"}
