"""A CPU changes what is drawn, other platforms select: one result, true branches."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.augment.conftest import example
from unet_jax.augment.branches import where_drawn
from unet_jax.augment.draws import example_keys
from unet_jax.augment.policy import augment, augment_batch

KEYS = example_keys(jax.random.key(2), jnp.arange(24))
# Often enough that every pair of steps meets in some example, elastic and channels too.
OPTIONS = {
    "elastic_spacing": 5.0,
    **{
        f"{name}_probability": 0.5
        for name in (
            *("rotation", "scaling", "elastic", "noise", "blur", "brightness"),
            *("contrast", "low_resolution", "gamma_inverted", "gamma"),
        )
    },
}


def _batch(shape):
    image, label = example(shape)
    count = len(KEYS)
    images = jnp.stack([image * (1 + number / count) for number in range(count)])
    return images, jnp.stack([label] * count)


@pytest.fixture
def elsewhere(monkeypatch):
    """Trace what other platforms than CPUs run."""
    monkeypatch.setattr(
        jax.lax, "platform_dependent", lambda *args, default, **_: default(*args)
    )


@pytest.mark.slow
@pytest.mark.parametrize("shape", [(24, 21), (9, 8, 7)])
def test_both_forms_give_the_same_examples(shape, request):
    run = partial(augment_batch, **OPTIONS)
    images, labels = jax.jit(run)(KEYS, *_batch(shape))
    request.getfixturevalue("elsewhere")
    other, other_labels = jax.jit(lambda *batch: run(*batch))(KEYS, *_batch(shape))
    np.testing.assert_allclose(images, other, atol=3e-5)
    np.testing.assert_array_equal(labels, other_labels)


@pytest.mark.slow
def test_an_example_by_itself_is_the_one_of_the_batch():
    images, labels = _batch((24, 21))
    run = jax.jit(partial(augment, **OPTIONS))
    whole, whole_labels = jax.jit(partial(augment_batch, **OPTIONS))(
        KEYS, images, labels
    )
    for number in range(6):
        image, label = run(KEYS[number], images[number], labels[number])
        np.testing.assert_allclose(image, whole[number], atol=3e-5)
        np.testing.assert_array_equal(label, whole_labels[number])


def _noted(image, number, notes):
    jax.debug.callback(lambda value: notes.append(int(value)), number)
    return image + number


def test_what_is_not_drawn_is_not_worked_out():
    notes = []
    run = jax.vmap(
        lambda applied, image, number: where_drawn(
            applied, partial(_noted, notes=notes), image, number
        )
    )
    applied = jnp.array([False, True, False, True])
    changed = jax.jit(run)(applied, jnp.zeros((4, 3)), jnp.arange(4))
    jax.effects_barrier()
    assert sorted(notes) == [1, 3]
    np.testing.assert_array_equal(changed[:, 0], [0, 1, 0, 3])


def test_elsewhere_all_are_worked_out_and_selected(elsewhere):
    text = str(
        jax.make_jaxpr(
            jax.vmap(lambda applied, image: where_drawn(applied, jnp.negative, image))
        )(jnp.ones(4, bool), jnp.ones((4, 3)))
    )
    assert "while" not in text
    assert "select_n" in text


def test_numbers_that_are_equal_for_all_examples_may_stay_unbatched():
    run = jax.vmap(
        lambda applied, number: where_drawn(applied, jnp.add, jnp.zeros(3), number),
        in_axes=(0, None),
    )
    changed = run(jnp.array([False, True]), jnp.float32(2.0))
    np.testing.assert_array_equal(changed, [[0, 0, 0], [2, 2, 2]])
