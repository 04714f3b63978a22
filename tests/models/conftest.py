"""Networks with weights by a formula, as the golden numbers have them."""

import jax
import jax.numpy as jnp
import pytest

from benchmarks import golden_networks
from unet_jax.models import ops


@pytest.fixture
def formula_params():
    """Return what makes the parameters of a network for an image."""

    def params_of(network, x):
        shapes = jax.eval_shape(network.init, jax.random.key(0), x)["params"]
        return jax.tree_util.tree_map_with_path(
            lambda path, leaf: jnp.asarray(
                golden_networks.weights("/".join(key.key for key in path), leaf.shape)
            ),
            shapes,
        )

    return params_of


@pytest.fixture
def apply():
    """Return what applies a network as one program, not an operation at a time."""

    # XLA's own depthwise convolutions compile faster; most arrays are small.
    def run(network, params, x, *, implementation="plain", **options):
        def forward(params, x):
            with ops.use_implementation(implementation):
                return network.apply({"params": params}, x, **options)

        return jax.jit(forward)(params, x)

    return run
