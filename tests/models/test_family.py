"""The family of the U-Net: every option has an effect, every skip matters."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.subset import slow_after
from unet_jax.models import blocks, presets, unet
from unet_jax.models.network import Implemented, outputs_of
from unet_jax.models.unet_for_data import fit_stages

_Two = functools.partial(unet.UNet, num_classes=3, features=(4, 6))
_Three = functools.partial(unet.UNet, num_classes=3, features=(4, 6, 8))


def _image(*shape, seed=0):
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape), jnp.float32)


def _keys(count, seed=0):
    return jax.random.split(jax.random.key(seed), count)


def _init(model, x, **options):
    """Random variables of the right shapes, without compiling ``init``."""
    random = np.random.default_rng(0)

    def fill(path, leaf):
        if path[-1].key == "kernel":
            scale = np.sqrt(2 / np.prod(leaf.shape[:-1]))
            return jnp.asarray(scale * random.normal(size=leaf.shape), leaf.dtype)
        return jnp.asarray(random.uniform(0.5, 1.5, leaf.shape), leaf.dtype)

    shapes = jax.eval_shape(functools.partial(model.init, **options), _keys(1)[0], x)
    return jax.tree_util.tree_map_with_path(fill, shapes)


def _output(model, variables, x, **options):
    """The finest logits."""
    apply = functools.partial(model.apply, mutable=["batch_stats"], **options)
    made, _ = jax.jit(apply)(variables, x)
    return outputs_of(made).logits


# Options that add parameters, or change the function of the same ones.
ADDING = [
    {"block": "residual"},
    {"block": "residual_d", "decoder_block": "plain"},
    {"stem": True},
    {"attention": True},
    {"deep_supervision": 1},
    {"norm": "none"},
    {"decoder_convolutions": 1},
    {"kernel_sizes": ((1, 3), 3, 3)},
    {"upsample": "resize"},
    {"upsample_bias": True},
]
CHANGING = [
    {"downsample": "strided"},
    {"downsample": "centred"},
    {"activation": "relu"},
    {"norm": "group", "norm_groups": 2},
]


@pytest.mark.parametrize("option", slow_after(4, ADDING), ids=str)
def test_options_that_add_parameters_use_them_all(option):
    x = _image(2, 12, 8, 2)
    model = _Three(**option)
    variables = _init(model, x)
    plain = jax.eval_shape(_Three().init, _keys(1)[0], x)
    assert jax.tree.map(jnp.shape, variables) != jax.tree.map(jnp.shape, plain)

    def loss(params):
        outputs = jax.tree.leaves(model.apply({"params": params}, x, train=True))
        return sum(jnp.sum(jnp.sin(output)) for output in outputs)

    for path, leaf in jax.tree_util.tree_leaves_with_path(
        jax.jit(jax.grad(loss))(variables["params"])
    ):
        assert np.abs(leaf).max() > 1e-6, jax.tree_util.keystr(path)


@pytest.mark.parametrize("option", CHANGING, ids=str)
def test_options_without_parameters_change_the_output(option):
    x = _image(2, 12, 8, 2)
    variables = _init(_Three(), x)
    plain = _output(_Three(), variables, x)
    changed = _output(_Three(**option), variables, x)
    assert np.abs(plain - changed).max() > 1e-3


@pytest.mark.parametrize(
    ("option", "shape"),
    [
        ({}, (1, 8, 8, 1)),
        ({"block": "residual", "downsample": "strided"}, (1, 8, 8, 1)),
        ({"attention": True}, (1, 8, 8, 1)),
        ({"padding": "VALID", "norm": "none"}, (1, 44, 44, 1)),
        ({"strides": ((1, 2, 2), 2)}, (1, 4, 8, 8, 1)),
    ],
    ids=str,
)
def test_every_skip_matters(option, shape):
    x = _image(*shape)
    model = _Three(**option)
    variables = _init(model, x)
    whole = _output(model, variables, x)
    for index in (0, 1):
        first = "convolution_0_0" if option.get("block") else "convolution_0"
        kernel = variables["params"][f"decoder_{index}"][first]["kernel"]
        skip = model.features[index]
        cut = kernel.at[..., :skip, :].set(0)
        without = jax.tree.map(lambda leaf: leaf, variables)
        without["params"][f"decoder_{index}"][first]["kernel"] = cut
        assert np.abs(_output(model, without, x) - whole).max() > 1e-3


def test_residual_blocks_add_their_input():
    stage = blocks.Stage(
        features=4, convolutions=2, kernel_size=(3, 3), norm="instance", norm_groups=1,
        block="residual",
    )  # fmt: skip
    x = _image(1, 6, 5, 4)
    variables = jax.eval_shape(
        functools.partial(stage.init, train=False), _keys(1)[0], x
    )
    assert not any("skip" in name for name in variables["params"])
    zeros = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape), variables)
    found = stage.apply(zeros, x, train=False)
    expected = np.where(x > 0, x, 1e-4 * x)  # two leaky activations, nothing else
    np.testing.assert_allclose(found, expected, rtol=1e-6)


def test_the_mean_of_windows_goes_round_a_residual_d_block():
    stage = blocks.Stage(
        features=4, convolutions=1, kernel_size=(3, 3), norm="instance", norm_groups=1,
        block="residual_d", strides=(2, 1), padding="CENTRED", activation="relu",
    )  # fmt: skip
    x = _image(1, 6, 5, 4)
    variables = stage.init(_keys(1)[0], x, train=False)
    assert not any("skip" in name for name in variables["params"])
    # As initialised: the scale of the second norm is 0, so that all else is nothing.
    found = stage.apply(variables, x, train=False)
    mean = (x[:, ::2] + x[:, 1::2]) / 2
    np.testing.assert_allclose(found, np.maximum(mean, 0), atol=1e-6)


def test_attention_weighs_between_nothing_and_all():
    gate = blocks.AttentionGate()
    skip, signal = _image(1, 6, 5, 4), _image(1, 6, 5, 4, seed=1)
    variables = gate.init(_keys(1)[0], skip, signal)
    weights = np.asarray(gate.apply(variables, skip, signal) / skip)
    assert ((weights > 0) & (weights < 1)).all()
    # One weight for all channels of a pixel, and another for another pixel.
    np.testing.assert_allclose(weights[..., 1:], weights[..., :1].repeat(3, -1), 1e-4)
    assert weights.std() > 1e-3


def test_deep_supervision_gives_coarser_logits_in_training_only():
    x = _image(2, 13, 10, 1)
    model = _Three(deep_supervision=1)
    variables = _init(model, x)
    assert _output(model, variables, x, train=False).shape == (2, 13, 10, 3)
    made = jax.eval_shape(lambda: model.apply(variables, x, train=True))
    assert made.logits.shape == (2, 13, 10, 3)
    assert [half.shape for half in made.deep] == [(2, 7, 5, 3)]
    with pytest.raises(ValueError, match="deep_supervision is 2; expected at most 1"):
        jax.eval_shape(_Three(deep_supervision=2).init, _keys(1)[0], x)


def test_dropout_leaves_out_channels_by_the_key_of_the_example():
    dropout = blocks.ChannelDropout(rate=0.4)
    x = jnp.ones((6, 3, 2, 500))
    keys = _keys(6)
    found = np.asarray(dropout.apply({}, x, train=True, keys=keys))
    # A channel is out in all of an example's pixels, or in none.
    np.testing.assert_array_equal(found, found[:, :1, :1].repeat(3, 1).repeat(2, 2))
    np.testing.assert_allclose(np.unique(found), [0, 1 / 0.6], rtol=1e-6)
    assert abs((found == 0).mean() - 0.4) < 0.05
    assert len(np.unique(found[:, 0, 0], axis=0)) == 6
    # An example's draws do not depend on the others.
    alone = dropout.apply({}, x[4:5], train=True, keys=keys[4:5])
    np.testing.assert_array_equal(alone[0], found[4])
    np.testing.assert_array_equal(dropout.apply({}, x, train=False, keys=None), x)
    with pytest.raises(ValueError, match="dropout in training needs keys"):
        dropout.apply({}, x, train=True, keys=None)


def test_each_dropout_of_a_network_draws_its_own():
    x = _image(2, 8, 8, 1)
    model = _Two(dropout=0.5)
    variables = _init(model, x)
    plain = _output(model, variables, x, train=True, keys=_keys(2))
    again = _output(model, variables, x, train=True, keys=_keys(2))
    other = _output(model, variables, x, train=True, keys=_keys(2, seed=1))
    np.testing.assert_array_equal(plain, again)
    assert np.abs(plain - other).max() > 1e-2
    evaluated = _output(model, variables, x, train=False)
    np.testing.assert_array_equal(evaluated, _output(_Two(), variables, x))
    per_stage = _Two(dropout=(0.0, 0.5))
    changed = _output(per_stage, variables, x, train=True, keys=_keys(2))
    assert np.abs(changed - evaluated).max() > 1e-2
    with pytest.raises(ValueError, match="dropout has 3 entries; expected 2"):
        _output(_Two(dropout=(0.0, 0.5, 0.1)), variables, x)


def test_the_network_of_2015_has_the_sizes_of_the_paper():
    model = presets.UNet2015(num_classes=2)
    x = jax.ShapeDtypeStruct((1, 572, 572, 1), jnp.float32)
    variables = jax.eval_shape(model.init, _keys(1)[0], x)
    logits = jax.eval_shape(model.apply, variables, x)
    assert logits.shape == (1, 388, 388, 2)
    assert model.sizes(2).output_size((572, 572)) == (388, 388)
    assert model.sizes(2).margin == (92, 92)
    assert model.sizes(2).total_stride == (16, 16)
    assert model.sizes(2).fitting_size((560, 573)) == (572, 588)
    # 188 leave 4 pixels, fewer than the 16 that windows start at multiples of.
    assert model.sizes(2).fitting_size((40, 189)) == (188, 204)
    assert model.sizes(2).tiling_size((40, 189)) == (204, 204)
    assert model.sizes(2).output_size((204, 204)) == (20, 20)
    with pytest.raises(ValueError, match=r"\(570, 572\) does not .* is \(572, 572\)"):
        jax.eval_shape(model.init, _keys(1)[0], jnp.zeros((1, 570, 572, 1)))


def test_stages_are_left_out_until_half_of_a_patch_is_left_without_padding():
    five = unet.UNet(2, (4, 8, 16, 32, 64), padding="VALID", norm="none")
    network, patch = fit_stages(five, (96, 96), fixed=False)
    assert (network.features, patch) == ((4, 8, 16), (96, 96))
    network, patch = fit_stages(five, (94, 96), fixed=False)
    assert (network.features, patch) == ((4, 8, 16), (92, 96))
    network, patch = fit_stages(five, (94, 96), fixed=True)
    assert (network.features, patch) == ((4, 8), (94, 96))
    network, patch = fit_stages(five, (20, 20), fixed=False)
    assert (len(network.features), patch) == (2, (20, 20))
    network, patch = fit_stages(five, (12, 12), fixed=False)
    assert network.sizes(2).output_size(patch) == (2, 2)
    padded = unet.UNet(2, (4, 8, 16))
    assert fit_stages(padded, (7, 9), fixed=False) == (padded, (7, 9))


def test_without_padding_the_logits_are_the_centre_of_those_with_surroundings():
    model = _Three(padding="VALID", norm="none", activation="relu")
    x = _image(1, 60, 52, 1)
    variables = _init(model, x)
    whole = _output(model, variables, x)
    assert whole.shape[1:3] == model.sizes(2).output_size((60, 52)) == (20, 12)
    # The same pixels from an input that was shifted by the total stride.
    part = _output(model, variables, x[:, 4:56, 4:48])
    np.testing.assert_allclose(whole[:, 4:16, 4:8], part, atol=1e-5)


@pytest.mark.parametrize(
    "option",
    [
        {"block": "residual", "downsample": "strided"},
        {"attention": True, "deep_supervision": 1, "norm": "batch"},
        {"padding": "VALID", "norm": "none"},
        {"block": "residual_d", "downsample": "centred", "stem": True},
    ],
    ids=str,
)
@pytest.mark.slow
@pytest.mark.parametrize("axes", [2, 3])
def test_both_implementations_agree_in_values_and_gradients(option, axes):
    shape = (1, *(44,) * axes, 1) if "padding" in option else (1, *(8, 7, 6)[:axes], 1)
    if axes == 3 and "padding" in option:
        option = {**option, "kernel_sizes": (3, (1, 3, 3), 1)}
        shape = (1, 12, 28, 28, 1)
    x = _image(*shape)
    results = []
    for implementation in ("plain", "cpu"):
        model = Implemented(_Three(**option), implementation)
        variables = _init(model, x)

        def loss(params, model=model, variables=variables):
            found, _ = model.apply(
                {**variables, "params": params}, x, train=True, mutable=["batch_stats"]
            )
            outputs = jax.tree.leaves(outputs_of(found))
            return sum(jnp.mean(jnp.sin(output)) for output in outputs)

        results.append(jax.jit(jax.value_and_grad(loss))(variables["params"]))
    (one, first), (two, second) = results
    np.testing.assert_allclose(one, two, rtol=1e-4, atol=1e-5)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=5e-3, atol=2e-4),
        first,
        second,
    )


@pytest.mark.parametrize("name", ["block", "downsample", "padding", "activation"])
def test_unknown_names_are_refused(name):
    model = _Two(**{name: "other"})
    with pytest.raises(ValueError, match=f"Unknown {name} 'other'; expected one of"):
        jax.eval_shape(model.init, _keys(1)[0], jnp.zeros((1, 8, 8, 1)))


def test_bfloat16_computes_in_bfloat16_and_gives_float32_logits():
    x = _image(1, 8, 8, 1)
    model = _Two(block="residual", attention=True, dtype=jnp.bfloat16)
    variables = _init(model, x)
    found = _output(model, variables, x)
    assert found.dtype == jnp.float32
    assert np.isfinite(found).all()
    exact = _output(_Two(block="residual", attention=True), variables, x)
    assert 0 < np.abs(found - exact).max() < 0.5
