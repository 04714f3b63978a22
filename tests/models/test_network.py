"""The implementation of a network is part of it, whoever traces it and when."""

from concurrent.futures import ThreadPoolExecutor

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from unet_jax.models import ops
from unet_jax.models.network import Implemented, Outputs, outputs_of, sizes_of
from unet_jax.models.unet import UNet


class _Spy(nn.Module):
    """Gives the number of the implementation in which it is traced."""

    @nn.compact
    def __call__(self, x, *, train=False, keys=None):
        number = ops.IMPLEMENTATIONS.index(ops.current_implementation())
        return nn.Dense(1, name="head")(x) * 0 + number


class _Nested(nn.Module):
    """A network within a network, and operations before and after it."""

    @nn.compact
    def __call__(self, x, *, train=False, keys=None):
        before = _Spy(name="before")(x)
        inner = Implemented(_Spy(), "plain", name="inner")(x)
        return jnp.concatenate([before, inner, _Spy(name="after")(x)], -1)


def _found(network, function=jax.jit):
    x = jnp.ones((1, 2, 2, 1))
    variables = network.init(jax.random.key(0), x)
    made = function(network.apply)(variables, x)
    return [ops.IMPLEMENTATIONS[int(number)] for number in made[0, 0, 0]]


def test_one_program_for_each_implementation():
    for kind in ops.IMPLEMENTATIONS:
        assert _found(Implemented(_Spy(), kind)) == [kind]
        assert _found(Implemented(_Spy(), kind), lambda apply: apply) == [kind]
    assert _found(Implemented(_Spy())) == _found(_Spy()) == ["cpu"]


def test_the_inner_implementation_ends_with_its_network():
    assert _found(Implemented(_Nested(), "tpu")) == ["tpu", "plain", "tpu"]
    assert _found(_Nested()) == ["cpu", "plain", "cpu"]


def test_transformed_programs_have_it_too():
    network = Implemented(_Spy(), "tpu")
    x = jnp.ones((4, 1, 2, 2, 1))
    variables = network.init(jax.random.key(0), x[0])
    tpu = ops.IMPLEMENTATIONS.index("tpu")

    def scanned(variables, x):
        return jax.lax.scan(lambda _, one: (0, network.apply(variables, one)), 0, x)[1]

    mapped = [
        jax.vmap(network.apply, (None, 0)),
        jax.pmap(network.apply, in_axes=(None, 0)),
        jax.jit(scanned),
        jax.checkpoint(jax.vmap(network.apply, (None, 0))),
    ]
    for function in mapped:
        assert (np.asarray(function(variables, x)) == tpu).all()


def test_threads_do_not_see_each_others():
    kinds = ["tpu", "plain"] * 4
    with ThreadPoolExecutor(4) as threads:
        found = threads.map(lambda kind: _found(Implemented(_Spy(), kind)), kinds)
        assert list(found) == [[kind] for kind in kinds]


def test_it_adds_no_level_to_parameters_statistics_or_dropout():
    network = UNet(2, (2, 4), norm="batch", dropout=0.5, deep_supervision=0)
    x = jnp.arange(64.0).reshape(1, 8, 8, 1)
    keys = jax.random.split(jax.random.key(1), 1)

    def run(network):
        variables = network.init(jax.random.key(0), x)
        made = network.apply(
            variables, x, train=True, keys=keys, mutable=["batch_stats"]
        )
        return variables, made

    jax.tree.map(
        np.testing.assert_array_equal, run(network), run(Implemented(network, "cpu"))
    )


def test_it_has_the_sizes_of_its_network():
    network = UNet(2, (2, 4), padding="VALID", norm="none")
    assert sizes_of(Implemented(network), 2) == network.sizes(2)
    assert sizes_of(Implemented(_Spy()), 3).margin == (0, 0, 0)


def test_logits_alone_are_outputs():
    logits = jnp.ones(3)
    assert outputs_of(logits).logits is logits
    assert outputs_of(logits).deep == ()
    outputs = Outputs(logits, reconstruction=logits)
    assert outputs_of(outputs) is outputs
