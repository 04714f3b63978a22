"""Parts of a network learn at rates of their own, or not at all."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from unet_jax.errors import InputError
from unet_jax.training.optimizer import create_optimizer
from unet_jax.training.stage_rates import with_stage_rates

PARAMS = {
    "stem": {"kernel": jnp.asarray([[-0.0, 0.0], [1.5, -2.0]])},
    "encoder_0": {"kernel": jnp.full((2, 3), 0.3), "bias": jnp.asarray([-0.0, 0.1])},
    "encoder_10": {"bias": jnp.ones(2)},
    "decoder_0": {"kernel": jnp.ones((2, 2))},
}
GRADIENTS = jax.tree.map(lambda leaf: jnp.full_like(leaf, 0.5), PARAMS)


def _optimizer(name):
    return create_optimizer(name=name, weight_decay=0.1, momentum=0.9, gradient_clip=1)


def _after(optimizer, steps=2):
    @jax.jit
    def step(params, state):
        updates, state = optimizer.update(GRADIENTS, state, params)
        updates = jax.tree.map(lambda leaf: jnp.float32(0.1) * leaf, updates)
        return optax.apply_updates(params, updates), state

    params, state = PARAMS, optimizer.init(PARAMS)
    for _ in range(steps):
        params, state = step(params, state)
    return params


@pytest.mark.parametrize("name", ["adamw", "sgd", "muon"])
def test_frozen_parameters_keep_every_bit(name):
    found = _after(with_stage_rates(_optimizer(name), freeze=("encoder",)))
    for part in ("stem", "encoder_0", "encoder_10"):
        for key, leaf in PARAMS[part].items():
            assert np.asarray(found[part][key]).tobytes() == np.asarray(leaf).tobytes()
    assert np.abs(found["decoder_0"]["kernel"] - 1).min() > 0.01


def test_frozen_gradients_do_not_count_when_they_are_clipped():
    alone = {"decoder_0": GRADIENTS["decoder_0"]}
    optimizer = _optimizer("sgd")
    params = {"decoder_0": PARAMS["decoder_0"]}
    expected, _ = optimizer.update(alone, optimizer.init(params), params)
    frozen = with_stage_rates(optimizer, freeze=("encoder",))
    found, _ = frozen.update(GRADIENTS, frozen.init(PARAMS), PARAMS)
    np.testing.assert_array_equal(
        found["decoder_0"]["kernel"], expected["decoder_0"]["kernel"]
    )


def test_the_last_factor_that_fits_holds():
    optimizer = optax.sgd(1.0)
    factors = (("encoder", 0.5), ("encoder_10", 0.25))
    found = with_stage_rates(optimizer, factors=factors)
    updates, _ = found.update(GRADIENTS, found.init(PARAMS), PARAMS)
    assert updates["stem"]["kernel"][0, 0] == -0.25
    assert updates["encoder_0"]["bias"][0] == -0.25
    assert updates["encoder_10"]["bias"][0] == -0.125
    assert updates["decoder_0"]["kernel"][0, 0] == -0.5


def test_without_parts_the_optimizer_is_the_same_object():
    optimizer = optax.sgd(1.0)
    assert with_stage_rates(optimizer) is optimizer


def test_a_part_that_the_network_lacks_is_refused():
    optimizer = with_stage_rates(optax.sgd(1.0), freeze=("bottleneck",))
    with pytest.raises(InputError, match=r"no part 'bottleneck'.*decoder_0, encoder_0"):
        jax.eval_shape(optimizer.init, PARAMS)
