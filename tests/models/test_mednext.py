"""MedNeXt beyond its golden numbers: sizes, options, UpKern."""

import functools
import json
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from benchmarks import golden_networks
from unet_jax.models import mednext
from unet_jax.models.network import Implemented, adapted_params, outputs_of
from unet_jax.models.presets import create_model

_Small = functools.partial(
    mednext.MedNeXt, 3, features=4, expansions=(2, 3, 2), blocks_per_stage=(1, 1, 1)
)


def _image(*shape):
    return jnp.asarray(np.random.default_rng(0).normal(size=shape), jnp.float32)


@pytest.mark.parametrize("spatial", [(13, 10), (5, 9, 6)])
def test_any_size_gives_logits_of_that_size_and_of_its_coarser_grids(
    spatial, formula_params, apply
):
    x = _image(2, *spatial, 2)
    network = _Small(deep_supervision=2)
    params = formula_params(network, x)
    assert apply(network, params, x).shape == (2, *spatial, 3)
    made = outputs_of(apply(network, params, x, train=True))
    assert made.logits.shape == (2, *spatial, 3)
    for level, deep in enumerate(made.deep, start=1):
        assert deep.shape == (2, *(-(-size // 2**level) for size in spatial), 3)
    assert len(made.deep) == 2


def test_padding_repeats_the_last_pixel(formula_params, apply):
    x = _image(1, 13, 10, 1)
    network = _Small()
    params = formula_params(network, x)
    whole = jnp.pad(x, ((0, 0), (0, 3), (0, 2), (0, 0)), mode="edge")
    padded = apply(network, params, whole)[:, :13, :10]
    np.testing.assert_allclose(apply(network, params, x), padded, atol=1e-5)


def test_every_parameter_matters(formula_params, apply):
    x = _image(1, 16, 8, 2)
    network = _Small(deep_supervision=2)

    def loss(params):
        made = apply(network, params, x, train=True)
        return sum(jnp.sum(jnp.sin(y)) for y in (made.logits, *made.deep))

    gradients = jax.jit(jax.grad(loss))(formula_params(network, x))
    for path, leaf in jax.tree_util.tree_leaves_with_path(gradients):
        # A bias before a norm is cancelled by it, in MONAI as here.
        if len(path) == 2 and path[1].key == "bias" and "head" not in path[0].key:
            continue
        assert np.abs(leaf).max() > 1e-4, jax.tree_util.keystr(path)


def test_computes_in_bfloat16_with_logits_in_float32(formula_params, apply):
    x = _image(1, 16, 16, 1)
    params = formula_params(_Small(), x)
    exact = apply(_Small(), params, x)
    found = apply(_Small(dtype=jnp.bfloat16), params, x)
    assert found.dtype == jnp.float32
    assert 0 < np.abs(found - exact).max() < 0.1 * np.abs(exact).max()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"kernel_size": 4}, "kernel_size is 4; expected an odd number"),
        ({"blocks_per_stage": (1, 1)}, "blocks_per_stage has 2 entries; expected 3"),
        ({"deep_supervision": 3}, "deep_supervision is 3; expected 0 to 2"),
    ],
    ids=str,
)
def test_options_that_do_not_fit_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        jax.eval_shape(_Small(**options).init, jax.random.key(0), _image(1, 16, 16, 1))


@pytest.mark.parametrize("axes", [2, 3])
@pytest.mark.parametrize(("index", "size"), [(0, 5), (1, 7)])
def test_upkern_resizes_kernels_as_published(axes, index, size):
    file = pathlib.Path(__file__).parent / "golden.json"
    expected = json.loads(file.read_text())["upkern"][f"{axes}d"][index]
    kernel = golden_networks.weights("kernel", (3,) * axes + (1, 2))
    found = mednext.upkern({"block": {"kernel": kernel}}, kernel_size=size)
    np.testing.assert_allclose(
        golden_networks.stored(found["block"]["kernel"]), expected, atol=1e-6
    )


def test_upkern_changes_depthwise_kernels_alone(formula_params, apply):
    x = _image(1, 16, 8, 1)
    small = formula_params(_Small(), x)
    large = mednext.upkern(small, kernel_size=5)
    expected = jax.eval_shape(_Small(kernel_size=5).init, jax.random.key(0), x)
    assert jax.tree.map(jnp.shape, large) == jax.tree.map(jnp.shape, expected["params"])
    for (path, before), after in zip(
        jax.tree_util.tree_leaves_with_path(small), jax.tree.leaves(large), strict=True
    ):
        if np.ndim(before) <= 2:
            np.testing.assert_array_equal(before, after, jax.tree_util.keystr(path))
    # So does a run that starts from another one.
    network = Implemented(_Small(kernel_size=5), "cpu")
    jax.tree.map(np.testing.assert_array_equal, adapted_params(network, small), large)
    assert np.isfinite(apply(network, large, x)).all()


@pytest.mark.parametrize("name", ["mednext_s", "mednext_b"])
def test_presets_are_the_published_networks(name):
    network = create_model(name=name, num_classes=3, kernel_size=5)
    golden = json.loads((pathlib.Path(__file__).parent / "golden.json").read_text())
    x = jax.ShapeDtypeStruct((1, 32, 32, 32, 1), jnp.float32)
    shapes = jax.eval_shape(
        network.clone(deep_supervision=4).init, jax.random.key(0), x
    )
    count = sum(leaf.size for leaf in jax.tree.leaves(shapes))
    assert count == golden["cases"][f"mednext_{name[-1]}5_3d"]["parameters"]
