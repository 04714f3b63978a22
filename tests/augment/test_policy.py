"""The whole policy: identity, determinism, fractions, options, batches, devices."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.augment.conftest import example
from unet_jax.augment.draws import example_keys
from unet_jax.augment.kinds import Value
from unet_jax.augment.policy import (
    AUGMENTATIONS,
    augment,
    augment_batch,
    default_options,
    resolve_options,
)
from unet_jax.augment.synthesis import Synthesis

KEY = jax.random.key(11)
STEPS = [f"{name}_probability" for name, _ in AUGMENTATIONS]
SHAPE = (24, 21)
RUN = jax.jit(augment_batch)  # With its defaults, compiled once a shape.
OFF = dict.fromkeys(STEPS, 0.0)
ALL_CHANNELS = {
    "blur_channel_probability": 1.0,
    "low_resolution_channel_probability": 1.0,
    # The default limits include strengths that change nothing.
    "low_resolution_scale": (0.5, 0.7),
    "scaling_factor": (1.3, 1.4),
    "elastic_spacing": 4.0,
    "elastic_magnitude": (0.3, 0.3),
    "synthesis": True,
    "num_classes": 3,
}


def _batch(size, shape, channels=1):
    image, label = example(shape, channels=channels)
    images = jnp.stack([image + 0.1 * number for number in range(size)])
    return images, jnp.stack([label] * size)


def test_all_off_traces_to_nothing():
    image, label = example((7, 5))
    jaxpr = jax.make_jaxpr(lambda *a: augment(*a, **OFF))(KEY, image, label)
    text = str(jaxpr)
    assert "gather" not in text
    assert "dot_general" not in text
    assert "exp" not in text
    moved, moved_label = augment(KEY, image, label, **OFF)
    np.testing.assert_array_equal(moved, image)
    np.testing.assert_array_equal(moved_label, label)


@pytest.mark.parametrize("name", STEPS)
def test_each_step_by_itself_changes_a_volume(name):
    image, label = example((7, 6, 5))
    options = {**OFF, **ALL_CHANNELS, name: 1.0}
    moved, moved_label = jax.jit(partial(augment, **options))(KEY, image, label)
    assert moved.shape == image.shape
    assert moved.dtype == image.dtype
    assert np.abs(moved - image).max() > 1e-3
    moves_values = issubclass(
        dict(AUGMENTATIONS)[name.removesuffix("_probability")], Value | Synthesis
    )
    assert np.array_equal(moved_label, label) == moves_values


@pytest.mark.parametrize("name", STEPS)
def test_fractions_of_changed_examples_match_the_probability(name):
    images, labels = _batch(1, (8, 8))
    keys = example_keys(KEY, jnp.arange(600))
    options = {**OFF, **ALL_CHANNELS, "flip_axes": (0,), name: 0.3}

    @jax.jit
    def changed(keys):
        run = jax.vmap(lambda key: augment(key, images[0], labels[0], **options)[0])
        return jnp.any(run(keys) != images, axis=(1, 2, 3))

    # The standard error is 1.9 %.
    assert 0.22 < float(changed(keys).mean()) < 0.38


def test_axes_are_mirrored_independently():
    image, label = example((6, 5))
    options = {**OFF, "flip_probability": 0.5}
    run = jax.jit(jax.vmap(lambda key: augment(key, image, label, **options)[0]))
    moved = run(example_keys(KEY, jnp.arange(400)))
    wanted = [image, image[::-1], image[:, ::-1], image[::-1, ::-1]]
    fractions = [float((moved == one).all((1, 2, 3)).mean()) for one in wanted]
    assert sum(fractions) == pytest.approx(1.0)
    assert min(fractions) > 0.16  # 4 standard errors below 1/4


def test_axes_of_mirroring_can_be_taken_away():
    image, label = example((6, 5))
    options = {**OFF, "flip_probability": 1.0}
    moved, _ = augment(KEY, image, label, **options, flip_axes=())
    np.testing.assert_array_equal(moved, image)
    moved, _ = augment(KEY, image, label, **options, flip_axes=(1,))
    np.testing.assert_array_equal(moved, image[:, ::-1])


@pytest.mark.slow
@pytest.mark.parametrize("shape", [SHAPE, (7, 6, 5)])
def test_defaults_are_determined_by_the_keys(shape):
    images, labels = _batch(8, shape)
    keys = example_keys(KEY, jnp.arange(8))
    moved, moved_labels = RUN(keys, images, labels)
    again, again_labels = RUN(keys, images, labels)
    np.testing.assert_array_equal(moved, again)
    np.testing.assert_array_equal(moved_labels, again_labels)
    other, other_labels = RUN(example_keys(KEY, jnp.arange(8, 16)), images, labels)
    assert not np.array_equal(moved, other)
    assert not np.array_equal(moved_labels, other_labels)
    assert moved.dtype == images.dtype
    assert moved_labels.dtype == labels.dtype
    assert np.all(np.isfinite(moved))
    assert set(np.unique(moved_labels)) == set(np.unique(labels))


def test_constant_images_stay_finite():
    _, labels = _batch(8, SHAPE)
    images = jnp.full((8, *SHAPE, 1), 2.5, jnp.float32)
    for start in range(0, 80, 8):
        keys = example_keys(KEY, jnp.arange(start, start + 8))
        moved, _ = RUN(keys, images, labels)
        assert np.all(np.isfinite(moved))


@pytest.mark.slow
def test_plain_jit_and_vmap_agree(variant):
    image, label = example((9, 8))
    run = partial(augment, **{**ALL_CHANNELS, **dict.fromkeys(STEPS, 1.0)})
    moved, moved_label = variant(run)(KEY, image, label)
    expected, expected_label = jax.jit(run)(KEY, image, label)
    assert np.abs(expected - image).max() > 0.1
    np.testing.assert_allclose(moved, expected, atol=3e-5)
    np.testing.assert_array_equal(moved_label, expected_label)


@pytest.mark.slow
def test_an_example_does_not_depend_on_its_batch_or_device():
    images, labels = _batch(8, SHAPE)
    index = jnp.arange(100, 108)
    whole, whole_labels = RUN(example_keys(KEY, index), images, labels)

    def shards(array):
        return array.reshape(4, 2, *array.shape[1:])

    parts, part_labels = jax.pmap(
        lambda index, *arrays: augment_batch(example_keys(KEY, index), *arrays)
    )(shards(index), shards(images), shards(labels))
    # The draws are the same; two compiled programs may round differently.
    np.testing.assert_allclose(parts.reshape(whole.shape), whole, rtol=0, atol=1e-5)
    np.testing.assert_array_equal(part_labels.reshape(labels.shape), whole_labels)


def test_one_step_left_out_does_not_change_the_draws_of_another():
    image, label = example((9, 8))
    options = {**OFF, "brightness_probability": 1.0}
    alone, _ = jax.jit(partial(augment, **options))(KEY, image, label)
    options["flip_probability"] = 1.0
    both, _ = jax.jit(partial(augment, **options))(KEY, image, label)
    np.testing.assert_allclose(both, alone[::-1, ::-1], rtol=1e-6)


@pytest.mark.parametrize("dtype", [jnp.float16, jnp.bfloat16, jnp.float32])
@pytest.mark.parametrize("label_dtype", [jnp.int8, jnp.int32])
def test_dtypes_are_kept(dtype, label_dtype):
    image, label = example((9, 8))
    moved, moved_label = jax.eval_shape(
        partial(augment, elastic_probability=1.0),
        KEY,
        image.astype(dtype),
        label.astype(label_dtype),
    )
    assert moved.dtype == dtype
    assert moved_label.dtype == label_dtype


def test_float64_stays_float64_and_float32_stays_float32():
    with jax.enable_x64(True):
        for dtype in (jnp.float32, jnp.float64):
            image, label = jnp.ones((6, 5, 1), dtype), jnp.zeros((6, 5), jnp.int32)
            on = dict.fromkeys(STEPS, 1.0)
            run = partial(augment, **on, synthesis=True)
            moved, _ = jax.eval_shape(run, jax.random.key(0), image, label)
            assert moved.dtype == dtype


def test_options_are_resolved():
    options = resolve_options({"blur_sigma": [1, 2], "noise_probability": 1})
    assert list(options) == [name for name, _ in AUGMENTATIONS]
    assert options["blur"].sigma == (1.0, 2.0)
    assert isinstance(options["blur"].sigma[0], float)
    assert options["noise"].probability == 1.0
    assert options["flip"].probability == 0.5


def test_an_unknown_option_is_refused_with_the_valid_ones():
    with pytest.raises(ValueError, match=r"'rotate_probability'.*'rotation_probabil"):
        augment(KEY, jnp.zeros((4, 4, 1)), jnp.zeros((4, 4), int), rotate_probability=1)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("noise_probability", 1.5),
        ("noise_probability", float("nan")),
        ("noise_probability", "often"),
        ("blur_sigma", (1.0, 0.5)),
        ("blur_sigma", 1.0),
        ("blur_sigma", (0.5, 1.0, 2.0)),
        ("low_resolution_scale", (0.0, 1.0)),
        ("gamma_exponent", (-1.0, 1.0)),
        ("elastic_spacing", 0.0),
        ("flip_axes", (0, 3)),
        ("flip_axes", 1),
    ],
)
def test_values_out_of_bounds_are_refused(name, value):
    with pytest.raises(ValueError, match=f"Option {name} is .*; expected"):
        resolve_options({name: value})


def test_defaults_pass_their_own_check():
    resolved = resolve_options(default_options())
    assert resolved == {name: one() for name, one in AUGMENTATIONS}
