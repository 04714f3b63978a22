"""What a config may give a loss is checked before any work, and then computes."""

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
import pytest

from unet_jax.commands import evaluate as score
from unet_jax.data.case import Case
from unet_jax.errors import InputError
from unet_jax.experiment import run
from unet_jax.losses.parameters import Number, WholeNumber
from unet_jax.losses.table import LOSSES
from unet_jax.losses.terms import create_loss_terms, find_loss

INVERSE = "inverse_frequency"


def _create(name, parameters, head=None, classes=3):
    head = head or find_loss(name).head or "softmax"
    needed = {"beta": 2.0} if name == "weighted_bce" else {}
    spec = ((name, 1.0, {**needed, **parameters}),)
    (term,) = create_loss_terms(spec, head=head, num_classes=classes)
    return term


@pytest.mark.parametrize(
    ("name", "parameters", "head", "message"),
    [
        (
            "tversky",
            {"alpha": INVERSE},
            None,
            "expected a number from 0.0",
        ),
        ("focal_tversky", {"alpha": INVERSE}, None, "expected a number"),
        ("hausdorff_dt", {"alpha": INVERSE}, None, "expected a number from 0.1 to 10"),
        ("combo", {"alpha": INVERSE}, None, "expected a number from 0.0 to 1.0"),
        ("dice", {"class_weights": (1, 2)}, None, "(3, a number for each class)"),
        ("dice", {"class_weights": INVERSE[:6]}, None, "or 'inverse_frequency'"),
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
            {"beta": INVERSE},
            None,
            "expected a number from 0.0 to 1000000.0 (above 1 for fewer false neg",
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
        ("balanced_bce", {"beta": INVERSE}, None),
    ],
)
def test_values_that_it_can_compute_with_are_taken(name, parameters, head):
    (value,) = parameters.values()
    (key,) = parameters
    taken = _create(name, parameters, head).function.keywords[key]
    assert taken == (tuple(value) if isinstance(value, list) else value)


def test_a_missing_parameter_is_named_with_what_is_expected():
    with pytest.raises(InputError) as caught:
        create_loss_terms((("weighted_bce", 1.0, {}),), head="sigmoid")
    assert str(caught.value) == (
        "loss: 'weighted_bce' needs its parameter 'beta', a number from 0.0 to "
        "1000000.0 (above 1 for fewer false negatives, below 1 for fewer false "
        'positives); write ("weighted_bce", weight, {"beta": value})'
    )


def test_a_misspelt_name_gets_the_nearest_one():
    with pytest.raises(InputError, match=r"'bach_dice'; .*; did you mean 'batch_dice'"):
        _create("dice", {"bach_dice": True})
    with pytest.raises(InputError, match=r"'dyce'; expected .*; did you mean 'dice'"):
        create_loss_terms((("dyce", 1.0, {}),))


OPTIONS = [(loss.name, key) for loss in LOSSES for key in loss.options]


@pytest.mark.parametrize("loss", LOSSES, ids=lambda loss: loss.name)
def test_a_row_has_the_parameters_of_its_function(loss):
    assert set(loss.parameters) == set(loss.options)
    assert bool(loss.head) == bool(loss.instead)
    assert loss.not_pooled_with in ("", *loss.options)


@pytest.mark.parametrize(("name", "key"), OPTIONS)
def test_every_parameter_of_every_loss_is_checked(name, key):
    with pytest.raises(InputError, match=key):
        _create(name, {key: object()})


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "key"),
    [
        (loss.name, key)
        for loss in LOSSES
        for key, parameter in loss.parameters.items()
        if "labels" in loss.reads and isinstance(parameter, Number | WholeNumber)
    ],
)
def test_every_bound_computes(name, key):
    bounds = find_loss(name).parameters[key]
    low, high = bounds.low, bounds.high
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
            "loss": (("cross_entropy", 1.0, {"class_weights": INVERSE}),),
            "model": {"head": "softmax"},
            "data": {"class_names": ("bg", "a", "rare"), "include_background": False},
            "eval": {"metrics": ("loss/cross_entropy",)},
            "train": {"patch_size": (4, 4)},
        }
    )
    (term,) = run.loss_terms_of(config, _RareClass())
    inverse = 1 / np.array([100, 98, 2])
    np.testing.assert_allclose(
        term.function.keywords["class_weights"], inverse / inverse.sum()
    )
    losses = score.held_out_losses(config, {"train": _RareClass()})
    assert set(losses) == {"loss/cross_entropy"}
