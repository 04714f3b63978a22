import jax.numpy as jnp
import numpy as np
import pytest

from unet_jax.errors import InputError
from unet_jax.evaluation.loss_metrics import create_held_out_losses, held_out_spec
from unet_jax.labels import IGNORE
from unet_jax.losses import binary, overlap
from unet_jax.losses.table import LOSSES
from unet_jax.losses.terms import create_loss_terms
from unet_jax.training.objective import global_totals, objective

ROWS = [loss for loss in LOSSES if "labels" in loss.reads]


def _case(shape=(8, 9)):
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(*shape, 3)).astype(np.float32)
    labels = rng.integers(-1, 3, shape)
    return logits, labels


def _softmax(logits):
    p = np.exp(logits)
    return p / p.sum(-1, keepdims=True)


def _only(metric, loss=(), *, head="softmax", class_fractions=None, **known):
    spec = held_out_spec((metric,), loss)
    return create_held_out_losses(
        spec, head=head, class_fractions=class_fractions, **known
    )[metric]


@pytest.mark.slow
@pytest.mark.parametrize("head", ["softmax", "sigmoid"])
def test_every_loss_of_a_head_is_a_finite_metric(head):
    names = [each.name for each in ROWS if each.head in (None, head)]
    losses = create_held_out_losses(
        held_out_spec(
            ["dice", *(f"loss/{name}" for name in names)],
            (("weighted_bce", 0.5, {"beta": 2.0}),),
        ),
        head=head,
    )
    assert list(losses) == [f"loss/{name}" for name in names]
    logits, labels = _case()
    p = _softmax(logits) if head == "softmax" else 1 / (1 + np.exp(-logits))
    for name, loss in losses.items():
        values = loss.compute(p.astype(np.float32), labels)
        assert values.shape == ((3,) if not loss.of_case else ()), name
        assert np.isfinite(values).all(), name


@pytest.mark.parametrize("shape", [(8, 9), (4, 5, 6)])
def test_values_are_those_of_the_logits(shape):
    logits, labels = _case(shape)
    p = _softmax(logits)
    ours = _only("loss/dice").compute(p, labels)
    given = {"logits": jnp.asarray(logits)[None], "labels": labels[None]}
    np.testing.assert_allclose(ours, overlap.dice_loss(**given)[0], rtol=1e-5)
    ours = _only("loss/focal").compute(p, labels)
    pixels = np.asarray(binary.focal_loss(**given))[0][labels != IGNORE]
    np.testing.assert_allclose(ours, pixels.mean(), rtol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("include_background", [False, True])
@pytest.mark.parametrize("head", ["softmax", "sigmoid"])
def test_every_loss_of_a_case_is_that_of_training(head, include_background):
    names = [each.name for each in ROWS if each.head in (None, head)]
    _assert_as_in_training(names, head, include_background)


@pytest.mark.parametrize("include_background", [False, True])
def test_generalized_dice_counts_the_classes_that_training_does(include_background):
    _assert_as_in_training(["generalized_dice"], "softmax", include_background)


def _assert_as_in_training(names, head, include_background):
    given = (("weighted_bce", 0.5, {"beta": 2.0}),)
    spec = held_out_spec([f"loss/{name}" for name in names], given)
    losses = create_held_out_losses(
        spec, head=head, include_background=include_background
    )
    logits, labels = _case()
    p = _softmax(logits) if head == "softmax" else 1 / (1 + np.exp(-logits))
    batch = labels[None]
    _, parts = objective(
        create_loss_terms(spec, head=head),
        logits=jnp.asarray(logits)[None],
        labels=batch,
        totals=global_totals(batch, axis_name=None),
        include_background=include_background,
        axis_name=None,
    )
    assert len(parts) == len(names)
    for name in names:
        values = losses[f"loss/{name}"].compute(p, labels)
        if not losses[f"loss/{name}"].of_case:
            values = values[0 if include_background else 1 :]
        np.testing.assert_allclose(
            np.mean(values), parts[name], rtol=2e-4, atol=1e-6, err_msg=name
        )


def test_the_sigmoid_head_gets_its_own_scores_back():
    logits, labels = _case()
    p = 1 / (1 + np.exp(-logits))
    loss = _only("loss/bce", head="sigmoid")
    assert not loss.of_case
    pixels = np.asarray(
        binary.bce(logits=jnp.asarray(logits)[None], labels=labels[None])
    )[0][labels != IGNORE]
    np.testing.assert_allclose(loss.compute(p, labels), pixels.mean(0), rtol=1e-4)


def test_parameters_are_those_that_the_run_trains_with():
    logits, labels = _case()
    p = _softmax(logits)
    plain, trained = (
        _only("loss/tversky", loss).compute(p, labels)
        for loss in ((), (("tversky", 0.3, {"beta": 0.95, "alpha": 0.05}),))
    )
    assert not np.allclose(plain, trained)


def test_weights_from_the_training_split():
    logits, labels = _case()
    loss = (("cross_entropy", 1.0, {"class_weights": "inverse_frequency"}),)
    values = [
        _only("loss/cross_entropy", loss, class_fractions=fractions).compute(
            _softmax(logits), labels
        )
        for fractions in ((0.9, 0.05, 0.05), (0.2, 0.4, 0.4))
    ]
    assert values[0] != values[1]


def test_certain_probabilities_stay_finite():
    labels = np.array([[0, 1, 2, IGNORE]])
    p = np.eye(3, dtype=np.float32)[[[1, 1, 0, 2]]]
    loss = _only("loss/cross_entropy").compute(p, labels)
    assert loss == pytest.approx(2 * -np.log(1e-7) / 3, rel=1e-3)


def test_a_loss_of_a_users_own_module_is_a_metric():
    logits, labels = _case()
    known = {"num_classes": 3, "patch_size": (8, 9)}
    loss = _only("loss/unet_jax.losses:dice_loss", **known)
    plain = _only("loss/dice")
    assert not loss.of_case
    for each in (loss, plain):
        assert each.compute(_softmax(logits), labels).shape == (3,)
    np.testing.assert_array_equal(
        loss.compute(_softmax(logits), labels),
        plain.compute(_softmax(logits), labels),
    )
    with pytest.raises(InputError, match="does not read logits and labels"):
        held_out_spec(("loss/unet_jax.losses:soft_ncut_loss",), ())


def test_what_cannot_be_scored_is_refused():
    with pytest.raises(InputError, match="unknown loss 'loss/dize'; expected 'loss/'"):
        held_out_spec(("loss/dize",), ())
    with pytest.raises(InputError, match=r"'bce' needs another model\.head"):
        _only("loss/bce")
    with pytest.raises(InputError, match="needs its parameter 'beta'"):
        _only("loss/weighted_bce", head="sigmoid")
    assert create_held_out_losses((), head="softmax") == {}
