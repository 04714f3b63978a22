"""The whole network: sizes, options, skips, learning, implementations."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import traverse_util

from tests.subset import slow_after
from unet_jax.models import ops, presets, unet
from unet_jax.models.network import Implemented

_ThreeStages = functools.partial(unet.UNet, num_classes=3, features=(4, 6, 8))


def _image(*shape, seed=0):
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape), jnp.float32)


def _init(model, x):
    """Variables as ``init`` shapes them, without compiling it each time.

    Kernels are random with He's variance; all else is far from its neutral value, so
    that no parameter hides.
    """
    random = np.random.default_rng(0)

    def fill(path, leaf):
        if path[-1].key == "kernel":
            scale = np.sqrt(2 / np.prod(leaf.shape[:-1]))
            return jnp.asarray(scale * random.normal(size=leaf.shape), leaf.dtype)
        return jnp.asarray(random.uniform(0.5, 1.5, leaf.shape), leaf.dtype)

    shapes = jax.eval_shape(model.init, jax.random.key(0), x)
    return jax.tree_util.tree_map_with_path(fill, shapes)


def test_parameter_counts_of_the_presets():
    counts = {}
    for name in list(presets.NETWORKS)[1:]:
        classes = 2 if name == "unet_2015" else 4
        model = presets.create_model(name=name, num_classes=classes)
        size = (188, 188) if name == "unet_2015" else (32, 32)
        variables = jax.eval_shape(
            model.init, jax.random.key(0), jnp.zeros((1, *size, 1))
        )
        counts[name] = sum(leaf.size for leaf in jax.tree.leaves(variables["params"]))
    assert counts == {
        "unet_tiny": 29484,
        "unet_small": 482388,
        "unet_base": 7762084,
        "unet_2015": 31030658,
        "residual_encoder": 34519476,
        "residual_encoder_v0": 36697284,
        "wnet": 234533,
        "mednext_s": 5472068,
        "mednext_b": 10432004,
        "swin_unetr": 25138078,
        "segresnet": 6298596,
    }


def test_parameter_names_and_no_bias_before_a_norm():
    shapes = jax.eval_shape(_ThreeStages().init, jax.random.key(0), _image(1, 8, 8, 1))
    names = set(traverse_util.flatten_dict(shapes["params"], sep="/"))
    stages = ("encoder_0", "encoder_1", "encoder_2", "decoder_0", "decoder_1")
    expected = {"head/kernel", "head/bias", "upsample_0/kernel", "upsample_1/kernel"}
    for stage in stages:
        for index in (0, 1):
            expected |= {f"{stage}/convolution_{index}/kernel"}
            expected |= {f"{stage}/norm_{index}/{part}" for part in ("scale", "bias")}
    assert names == expected


@pytest.mark.parametrize("spatial", [(13, 7), (1, 5), (5, 7, 3)])
def test_any_size_gives_logits_of_that_size(spatial):
    x = _image(2, *spatial, 2)
    model = _ThreeStages(convolutions_per_stage=1)
    logits = jax.jit(model.apply)(_init(model, x), x)
    assert logits.shape == (2, *spatial, 3)
    assert logits.dtype == jnp.float32
    assert np.isfinite(logits).all()


def test_padding_repeats_the_last_pixel():
    x = _image(1, 10, 7, 1)
    model = _ThreeStages(convolutions_per_stage=1)
    variables = _init(model, x)
    padded = jnp.pad(x, ((0, 0), (0, 2), (0, 1), (0, 0)), mode="edge")
    apply = jax.jit(model.apply)
    expected = apply(variables, padded)[:, :10, :7]
    np.testing.assert_allclose(apply(variables, x), expected, atol=1e-5)


@pytest.mark.parametrize(
    ("spatial", "options", "shapes"),
    slow_after(
        1,
        [
            (
                (6, 10, 9),
                {"strides": ((1, 2, 2), 2), "kernel_sizes": ((1, 3, 3), 3, 1)},
                {
                    "encoder_0/convolution_0/kernel": (1, 3, 3, 1, 4),
                    "encoder_1/convolution_0/kernel": (3, 3, 3, 4, 6),
                    "encoder_2/convolution_0/kernel": (1, 1, 1, 6, 8),
                    "upsample_0/kernel": (1, 2, 2, 6, 4),
                    "upsample_1/kernel": (2, 2, 2, 8, 6),
                },
            ),
            (
                (7, 11),
                {"features": (4, 6), "convolutions_per_stage": (1, 3)},
                {
                    "encoder_1/convolution_2/kernel": (3, 3, 6, 6),
                    "decoder_0/convolution_0/kernel": (3, 3, 8, 4),
                },
            ),
            (
                (9, 8),
                {"norm": "group", "norm_groups": 2, "strides": ((1, 3),)}
                | {"features": (4, 6), "upsample": "resize"},
                {"upsample_0/kernel": (1, 1, 6, 4)},
            ),
            ((9, 8), {"norm": "batch", "features": (4, 6)}, {}),
        ],
    ),
)
def test_options_and_implementations(spatial, options, shapes):
    """Each option shapes the parameters, and implementations give the same values."""
    x, weights = _image(2, *spatial, 1), _image(2, *spatial, 3, seed=1)
    model = _ThreeStages(**{"convolutions_per_stage": 1, **options})
    variables = _init(model, x)
    found = traverse_util.flatten_dict(variables["params"], sep="/")
    assert {name: found[name].shape for name in shapes} == shapes

    def gradients(implementation):
        def loss(params):
            logits, _ = Implemented(model, implementation).apply(
                {**variables, "params": params}, x, train=True, mutable=["batch_stats"]
            )
            return jnp.sum(logits * weights), logits

        return jax.jit(jax.grad(loss, has_aux=True))(variables["params"])

    leaves = [jax.tree.leaves(gradients(kind)) for kind in ops.IMPLEMENTATIONS]
    for *others, plain in zip(*leaves, strict=True):
        for found in others:
            # Many layers deep, and a rounding may turn a rectifier: not 1e-5.
            tolerance = 1e-3 * np.abs(plain).max()
            np.testing.assert_allclose(found, plain, rtol=0, atol=tolerance)


PACKED = [
    ((16, 12), {}),
    ((13, 21), {"norm": "batch", "attention": True, "upsample": "resize"}),
    (
        (13, 9),
        {"norm": "group", "dropout": 0.3, "convolutions_per_stage": 3}
        | {"features": (16, 128)},
    ),
    ((12, 18), {"norm": "none", "activation": "relu", "strides": (3, (1, 2))}),
    ((9, 12), {"block": "residual", "downsample": "strided", "deep_supervision": 1}),
    (
        (16, 8),
        {"kernel_sizes": (5, (1, 3)), "decoder_convolutions": 2}
        | {"features": (16, 32)},
    ),
    ((5, 6, 7), {"strides": ((1, 2, 2), 2), "kernel_sizes": ((1, 3, 3), 3, 1)}),
    (
        (4, 8, 5),
        {"block": "residual", "downsample": "strided", "features": (16, 32)},
    ),
    # What is pooled is added.
    ((8, 16), {"block": "residual", "features": (32, 32)}),
]


@pytest.mark.slow
@pytest.mark.parametrize(("spatial", "options"), PACKED)
def test_a_packed_network_is_the_plain_one(spatial, options):
    """Parameters, logits, statistics and gradients, in float64: to rounding."""
    given = {"features": (16, 32, 128), "convolutions_per_stage": 1, **options}
    with jax.enable_x64(True):
        model = _ThreeStages(dtype=jnp.float64, **given)
        x = _image(2, *spatial, 2).astype(jnp.float64)
        variables = jax.tree.map(lambda leaf: leaf.astype(jnp.float64), _init(model, x))
        keys = jax.random.split(jax.random.key(3), 2)
        results = [
            _results(Implemented(model, kind), variables, x, keys)
            for kind in ("tpu", "plain")
        ]
    assert jax.tree.structure(results[0]) == jax.tree.structure(results[1])
    for found, expected in zip(*map(jax.tree.leaves, results), strict=True):
        scale = np.abs(expected).max() or 1.0
        np.testing.assert_allclose(found / scale, expected / scale, rtol=0, atol=1e-9)


def _results(model, variables, x, keys):
    """Logits, statistics and gradients; new variables have the shapes of the given."""
    shapes = jax.tree.map(
        lambda leaf: leaf.shape, jax.eval_shape(model.init, jax.random.key(0), x)
    )
    assert shapes == jax.tree.map(lambda leaf: leaf.shape, variables)

    @jax.jit
    def run(params, x):
        def loss(params, x):
            outputs, updated = model.apply(
                {**variables, "params": params},
                x,
                train=True,
                keys=keys,
                mutable=["batch_stats"],
            )
            values = jax.tree.leaves(outputs)
            weights = [_image(*y.shape, seed=1) for y in values]
            total = sum(jnp.sum(y * w) for y, w in zip(values, weights, strict=True))
            return total, (outputs, updated)

        return jax.grad(loss, argnums=(0, 1), has_aux=True)(params, x)

    results = run(variables["params"], x), jax.jit(model.apply)(variables, x)
    return jax.tree.map(np.asarray, results)


@pytest.mark.parametrize(
    ("options", "packed"),
    [({}, True), ({"upsample": "resize"}, True), ({"padding": "VALID"}, False)],
)
def test_a_network_is_packed_on_tpu_alone(options, packed):
    """Blocks of 2x4 pixels with 128 channels stand between convolutions, or none."""
    size = (60, 60) if options.get("padding") == "VALID" else (16, 16)
    model = _ThreeStages(features=(16, 32, 64), convolutions_per_stage=2, **options)
    x = jax.ShapeDtypeStruct((2, *size, 1), jnp.float32)
    variables = jax.eval_shape(model.init, jax.random.key(0), x)
    for implementation in ops.IMPLEMENTATIONS:
        traced = jax.make_jaxpr(Implemented(model, implementation).apply)
        found = str(traced(variables, x))
        assert ("f32[2,9,5,128]" in found) == (packed and implementation == "tpu")


def _zero(params, *names, rows=slice(None)):
    """Parameters with rows (of input channels) of the named kernels set to 0."""
    flat = traverse_util.flatten_dict(params, sep="/")
    for name in names:
        flat[name] = flat[name].at[..., rows, :].set(0.0)
    return traverse_util.unflatten_dict(flat, sep="/")


@pytest.mark.parametrize("stage", [0, 1])
def test_each_skip_matters(stage):
    x, weights = _image(1, 16, 12, 1), _image(1, 16, 12, 3, seed=1)
    model = _ThreeStages()
    params = _init(model, x)["params"]

    @jax.jit
    def run(params):
        return model.apply({"params": params}, x)

    gradient = jax.jit(jax.grad(lambda params: jnp.sum(run(params) * weights)))

    # The skip's rows are read, and cutting them changes the output.
    reader = f"decoder_{stage}/convolution_0/kernel"
    skip = slice(model.features[stage])
    rows = traverse_util.flatten_dict(gradient(params), sep="/")[reader][..., skip, :]
    assert (np.abs(rows).max((0, 1, 3)) > 1e-3).all()
    cut = run(_zero(params, reader, rows=skip))
    assert np.abs(cut - run(params)).max() > 0.1

    # With what comes from below cut instead, all that is left comes by the skips: of
    # this stage's encoder, not of a deeper one.
    shallow = gradient(_zero(params, f"upsample_{stage}/kernel"))
    deeper = shallow[f"encoder_{stage + 1}"]
    assert all((leaf == 0).all() for leaf in jax.tree.leaves(deeper))
    reached = shallow[f"encoder_{stage}"]["convolution_1"]["kernel"]
    assert np.abs(reached).max() > 1e-3


def test_the_finest_skip_carries_single_pixels():
    """A one-pixel change shows at that pixel though all below it is cut."""
    x = _image(1, 16, 16, 1)
    model = _ThreeStages(norm="batch")  # in evaluation no norm spreads the change
    variables = _init(model, x)
    variables["params"] = _zero(variables["params"], "upsample_0/kernel")
    changed = x.at[0, 6, 9, 0].add(1.0)
    apply = jax.jit(model.apply)
    difference = apply(variables, changed) - apply(variables, x)
    touched = np.abs(difference[0]).max(-1) > 1e-6
    assert touched[6, 9]
    # Four 3x3 convolutions reach four pixels.
    assert not np.delete(touched, range(2, 11), axis=0).any()
    assert not np.delete(touched, range(5, 14), axis=1).any()


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_few_steps_lower_the_loss(dtype):
    x = _image(2, 16, 16, 1)
    labels = (x[..., 0] > 0).astype(jnp.int32) + (x[..., 0] > 1)
    model = unet.UNet(num_classes=3, features=(6, 8), dtype=jnp.dtype(dtype))
    params = jax.jit(model.init)(jax.random.key(0), x)["params"]
    optimizer = optax.adam(1e-2)

    @jax.jit
    def step(params, state):
        def loss(params):
            logits = model.apply({"params": params}, x, train=True)
            assert logits.dtype == jnp.float32
            return optax.softmax_cross_entropy_with_integer_labels(
                logits, labels
            ).mean()

        value, gradient = jax.value_and_grad(loss)(params)
        updates, state = optimizer.update(gradient, state)
        return optax.apply_updates(params, updates), state, value

    state, losses = optimizer.init(params), []
    for _ in range(30):
        params, state, value = step(params, state)
        losses.append(float(value))
    assert all(leaf.dtype == jnp.float32 for leaf in jax.tree.leaves(params))
    assert losses[-1] < 0.5 * losses[0]


def test_float64_stays_float64():
    with jax.enable_x64(True):
        x = jnp.zeros((1, 6, 5, 1), jnp.float64)
        model = _ThreeStages(dtype=jnp.float64, norm="batch")
        variables = jax.tree.map(
            lambda leaf: jax.ShapeDtypeStruct(leaf.shape, jnp.float64),
            jax.eval_shape(model.init, jax.random.key(0), x),
        )
        apply = functools.partial(model.apply, train=True, mutable=["batch_stats"])
        found = jax.eval_shape(apply, variables, x)
    assert {leaf.dtype for leaf in jax.tree.leaves(found)} == {jnp.dtype("float64")}


def test_create_model_overrides_the_preset():
    model = presets.create_model(
        name="unet_tiny",
        num_classes=2,
        dtype="bfloat16",
        axis_name="device",
        features=(2, 4),
        norm="batch",
        kernel_sizes=None,
        convolutions_per_stage=None,
    )
    assert model == unet.UNet(
        num_classes=2,
        features=(2, 4),
        norm="batch",
        dtype=jnp.dtype("bfloat16"),
        axis_name="device",
    )


def test_create_model_refuses_an_unknown_name():
    with pytest.raises(ValueError, match="network 'unet' needs features"):
        presets.create_model(name="unet", num_classes=2)
    with pytest.raises(ValueError, match="unknown network 'vnet'; expected one of"):
        presets.create_model(name="vnet", num_classes=2)


@pytest.mark.parametrize(
    ("options", "shape", "message"),
    [
        ({"strides": (2,)}, (1, 8, 8, 1), "strides has 1 entries; expected 2"),
        ({"kernel_sizes": (3, 3)}, (1, 8, 8, 1), "kernel_sizes has 2 entries"),
        ({"convolutions_per_stage": (1, 2)}, (1, 8, 8, 1), "2 entries; expected 3"),
        ({"strides": (2, (1, 2, 2))}, (1, 8, 8, 1), r"the entry \(1, 2, 2\)"),
        ({"features": (4, 0)}, (1, 8, 8, 1), r"features is \(4, 0\); expected whole"),
        ({"strides": ((2, 0), 2)}, (1, 8, 8, 1), r"strides is \(\(2, 0\), 2\); exp"),
        ({"dropout": (0.0, 1.0, 0.5)}, (1, 8, 8, 1), "expected a fraction from 0 to"),
        ({"deep_supervision": -1}, (1, 8, 8, 1), "deep_supervision is -1; expected"),
        ({}, (8, 8, 1), "expected .batch, .spatial, channels. with 2 or 3"),
        ({"norm": "group", "norm_groups": 4}, (1, 8, 8, 1), "6 channels do not divide"),
    ],
)
def test_wrong_attributes_and_inputs_are_refused(options, shape, message):
    model = _ThreeStages(**options)
    with pytest.raises(ValueError, match=message):
        jax.eval_shape(model.init, jax.random.key(0), jnp.zeros(shape))
