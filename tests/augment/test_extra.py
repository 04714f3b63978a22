"""Augmentations of the user's own: applied last, with a key of their own, checked."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.augment.conftest import example
from unet_jax.augment.draws import example_keys
from unet_jax.augment.policy import (
    AUGMENTATIONS,
    Extra,
    augment,
    augment_batch,
)
from unet_jax.errors import InputError

KEY = jax.random.key(4)
OFF = {f"{name}_probability": 0.0 for name, _ in AUGMENTATIONS}


def _shift(key, image, label, *, most):
    """Move image and label by the same random number of rows."""
    rows = jax.random.randint(key, (), 1, most + 1)
    return jnp.roll(image, rows, 0), jnp.roll(label, rows, 0)


SHIFT = Extra("lab.shifts:shift", _shift, {"most": 4})


def test_it_is_applied_to_image_and_label(variant):
    image, label = example((9, 8))
    moved, moved_label = variant(partial(augment, extra=(SHIFT,), **OFF))(
        KEY, image, label
    )
    (rows,) = (n for n in range(1, 5) if np.array_equal(moved, np.roll(image, n, 0)))
    np.testing.assert_array_equal(moved_label, np.roll(label, rows, 0))


def test_it_is_the_last_and_changes_no_draw_of_the_others():
    image, label = example((9, 8))
    options = {**OFF, "flip_probability": 0.5, "noise_probability": 1.0}
    before, label_before = augment(KEY, image, label, **options)
    after, label_after = augment(KEY, image, label, extra=(SHIFT,), **options)
    (rows,) = (n for n in range(1, 5) if np.array_equal(after, np.roll(before, n, 0)))
    np.testing.assert_array_equal(label_after, np.roll(label_before, rows, 0))


def test_examples_of_a_batch_have_keys_of_their_own():
    image, label = example((9, 8))
    keys = example_keys(KEY, jnp.arange(40))
    batch = jnp.stack([image] * 40), jnp.stack([label] * 40)
    moved, _ = jax.jit(partial(augment_batch, extra=(SHIFT,), **OFF))(keys, *batch)
    assert len(np.unique(np.asarray(moved), axis=0)) == 4


@pytest.mark.parametrize(
    ("function", "found"),
    [
        (lambda key, image, label: (image[:4], label), "float32[4, 8, 2]"),
        (lambda key, image, label: (image.astype("float16"), label), "float16[9, 8, 2"),
        (lambda key, image, label: image, "float32[9, 8, 2]; expected an image and a"),
    ],
)
def test_what_does_not_fit_is_refused(function, found):
    image, label = example((9, 8))
    wrong = Extra("lab:wrong", function, {})
    with pytest.raises(InputError) as refusal:
        augment(KEY, image, label, extra=(wrong,), **OFF)
    assert "augment.extra: 'lab:wrong' returned" in str(refusal.value)
    assert found in str(refusal.value)
