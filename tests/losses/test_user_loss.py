"""A loss of a user's own module, named in a config."""

import re
import sys
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from unet_jax.errors import InputError
from unet_jax.labels import IGNORE
from unet_jax.losses.categorical import cross_entropy
from unet_jax.losses.overlap import dice_loss
from unet_jax.losses.terms import (
    create_loss_terms,
    find_loss,
    needs_class_fractions,
    reads_labels,
)
from unet_jax.training.objective import global_totals, objective

KNOWN = {"num_classes": 3, "patch_size": (6, 5)}


@pytest.fixture
def lab(monkeypatch):
    """A module of the user's, as if it lay in the current folder."""
    module = types.ModuleType("lab")
    monkeypatch.setitem(sys.modules, "lab", module)
    return module


def _example():
    rng = np.random.default_rng(0)
    logits = jnp.asarray(rng.normal(size=(2, 6, 5, 3)), jnp.float32)
    return logits, rng.integers(-1, 3, (2, 6, 5))


def _total(terms, **options):
    logits, labels = _example()
    total, parts = objective(
        terms,
        logits=logits,
        labels=labels,
        totals=global_totals(jnp.asarray(labels), axis_name=None),
        include_background=False,
        axis_name=None,
        **options,
    )
    assert list(parts) == [term.name for term in terms]
    return total


def _create(name="lab:loss", parameters=None, **known):
    return create_loss_terms(((name, 1.0, parameters or {}),), **{**KNOWN, **known})


@pytest.mark.parametrize(
    ("function", "kind"),
    [
        (cross_entropy, "pixel"),
        (lambda logits, labels: jax.nn.softplus(logits), "pixel_class"),
        (dice_loss, "class"),
        (lambda *, logits, labels: logits.mean((1, 2, 3)), "sample"),
    ],
)
def test_the_shape_tells_what_a_function_returns(lab, function, kind):
    lab.loss = function
    (known,) = _create()
    assert known.kind == kind
    (unknown,) = _create(num_classes=None, patch_size=None)
    assert unknown.kind is None
    assert _total((known,)) == _total((unknown,))


def test_it_is_the_loss_of_the_package_where_it_does_the_same(lab):
    lab.entropy, lab.dice = cross_entropy, dice_loss
    own = create_loss_terms((("lab:entropy", 0.5, {}), ("lab:dice", 1.0, {})), **KNOWN)
    ours = create_loss_terms((("cross_entropy", 0.5, {}), ("dice", 1.0, {})))
    assert _total(own) == _total(ours)


def test_a_function_of_another_package_is_masked_where_labels_are_ignored():
    # optax does not know IGNORE: -1 selects the last class.
    name = "optax:softmax_cross_entropy_with_integer_labels"
    (term,) = _create(name, {"axis": -1})
    assert term.kind == "pixel"
    logits, labels = _example()
    values = term.function(logits=logits, labels=labels)
    np.testing.assert_array_equal(values[labels == IGNORE], 0)
    expected = _total(create_loss_terms((("cross_entropy", 1.0, {}),)))
    np.testing.assert_allclose(_total((term,)), expected, rtol=1e-6)


def test_a_stated_kind_is_taken(lab):
    def loss(*, logits, labels):
        return logits.mean(-1)

    loss.kind = "pixel"
    lab.loss = loss
    (term,) = _create(num_classes=None)
    assert term.kind == "pixel"
    loss.kind = "image"
    with pytest.raises(InputError, match="found the attribute kind='image', expected"):
        _create()


def test_parameters_and_what_the_step_gives(lab):
    seen = {}

    def loss(*, logits, labels, head, include_background, width=1.0, weights=None):
        seen.update(locals())
        return logits.sum((1, 2, 3)) * width

    lab.loss = loss
    parameters = {"width": 2.0, "weights": "inverse_frequency"}
    assert needs_class_fractions((("lab:loss", 1.0, parameters),))
    fractions = (0.5, 0.25, 0.25)
    (term,) = _create(parameters=parameters, class_fractions=fractions, patch_size=None)
    _total((term,))
    assert seen["head"] == "softmax"
    assert seen["include_background"] is False
    np.testing.assert_allclose(seen["weights"], (0.2, 0.4, 0.4))
    with pytest.raises(InputError, match=r"no parameter 'widht'.*mean 'width'"):
        _create(parameters={"widht": 2.0})
    with pytest.raises(InputError, match="'width' of 'lab:loss': found <object"):
        _create(parameters={"width": object()})


def test_a_missing_parameter_is_named(lab):
    lab.loss = lambda *, logits, labels, width: logits
    with pytest.raises(
        InputError, match="'lab:loss' needs its parameter 'width', a nu"
    ):
        _create()


def test_pooling_follows_from_the_arguments(lab):
    def always(*, logits, labels, axis_name=None):
        return jnp.full(len(logits), logits.mean())

    lab.loss = always
    assert _create()[0].pooled
    lab.loss = dice_loss
    assert not _create()[0].pooled
    assert _create(parameters={"batch_dice": True})[0].pooled


def test_a_loss_of_images_alone(lab):
    lab.loss = lambda *, logits, images: (logits[..., :1] * images).mean((1, 2, 3))
    assert find_loss("lab:loss").reads == ("logits", "images")
    assert not reads_labels((("lab:loss", 1.0, {}),))
    (term,) = _create()
    images = jnp.ones((2, 6, 5, 1))
    logits, _ = _example()
    expected = logits[..., 0].mean()
    np.testing.assert_allclose(_total((term,), images=images), expected, rtol=1e-5)


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (lambda *, logits, labels: logits.mean(), "found a loss of shape ()"),
        (lambda *, logits, labels: logits[0], "found a loss of shape (6, 5, 3)"),
        (lambda *, logits, labels: logits @ jnp.ones((7, 2)), "TypeError"),
        (lambda *, scores, labels: scores, "has no argument 'logits'; expected a func"),
        (lambda **given: given["logits"], "has no argument 'logits'"),
        (int, "Python cannot tell its arguments"),
    ],
)
def test_what_is_no_loss_is_refused_in_one_line(lab, function, message):
    lab.loss = function
    with pytest.raises(InputError, match=re.escape(message)) as caught:
        _create()
    assert str(caught.value).startswith("loss: 'lab:loss'")
    assert "\n" not in str(caught.value)


def test_a_module_that_is_not_there_is_named():
    with pytest.raises(InputError, match="loss: 'no_such_lab:loss': no module"):
        _create("no_such_lab:loss")
