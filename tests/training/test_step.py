"""One step is the same function on one device and on four."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from unet_jax.augment.policy import AUGMENTATIONS
from unet_jax.errors import InputError
from unet_jax.labels import IGNORE
from unet_jax.losses.terms import create_loss_terms
from unet_jax.models.network import output_shapes
from unet_jax.models.presets import create_model
from unet_jax.training.devices import AXIS, check_batch_size, replicate, shard_batch
from unet_jax.training.optimizer import create_optimizer
from unet_jax.training.step import (
    TrainState,
    averaged_variables,
    create_train_state,
    make_train_step,
    pmap_train_step,
)

BATCH, SIZE, CLASSES = 8, 16, 3
LOSS = (("dice", 1.0, {"batch_dice": True}), ("cross_entropy", 0.5, {}))
# Few, so that the step compiles quickly; tests/augment has all of them.
AUGMENTATION = {
    f"{name}_probability": 1.0 if name in ("rotation", "noise") else 0.0
    for name, _ in AUGMENTATIONS
}
SAMPLE_LOSS = (("dice", 1.0, {}), ("cross_entropy", 1.0, {}))


# An optimiser whose state is the gradient: a difference of parameters would round it.
_KEEP_GRADIENTS = optax.GradientTransformation(
    init=lambda params: jax.tree.map(jnp.zeros_like, params),
    update=lambda gradients, state, params: (
        jax.tree.map(jnp.zeros_like, params),
        gradients,
    ),
)


def _batch(dtype=np.float32):
    """Return eight crops with uneven classes and ignored pixels."""
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 2, (BATCH, SIZE, SIZE)).astype(np.int32)
    # Class 2 is in rows 1 and 6 alone: with four devices two of them never see it.
    labels[1, :8], labels[6, 4:] = 2, 2
    labels[0, :, :13] = IGNORE
    labels[2] = IGNORE
    images = labels[..., None] + rng.normal(size=(BATCH, SIZE, SIZE, 1))
    index = np.arange(40, 40 + BATCH, dtype=np.int32)
    return {"image": images.astype(dtype), "label": labels, "example_index": index}


def _model(norm, axis_name, dtype="float32"):
    return create_model(
        name="unet_tiny",
        features=(4, 8),
        num_classes=CLASSES,
        norm=norm,
        norm_groups=2,
        dtype=dtype,
        axis_name=axis_name,
    )


def _steps(norm, optimizer, *, loss=LOSS, accumulation=1, augmentation=None, **kwargs):
    """Return the step for four devices, the step for one, and their first state."""
    dtype = kwargs.pop("dtype", "float32")
    options = {
        "shapes": output_shapes(_model(norm, None), (SIZE, SIZE)),
        "loss_terms": create_loss_terms(loss),
        "include_background": False,
        "augmentation": augmentation,
        "seed": 3,
        "accumulation": accumulation,
        "ema_decay": 0.9,
    }
    many = make_train_step(_model(norm, AXIS, dtype), optimizer, **options)
    one = make_train_step(_model(norm, None, dtype), optimizer, **options)
    state = create_train_state(
        _model(norm, None, dtype),
        optimizer,
        seed=0,
        input_shape=(SIZE, SIZE, 1),
        **kwargs,
    )
    return many, one, state


def _close(actual, expected, rtol):
    """Compare pytrees, each leaf on the scale of its own largest value."""
    for (path, a), b in zip(
        jax.tree_util.tree_leaves_with_path(actual),
        jax.tree.leaves(expected),
        strict=True,
    ):
        scale = max(np.abs(b).max(), 1e-30)
        error = np.abs(np.asarray(a) - np.asarray(b)).max() / scale
        assert error < rtol, f"{jax.tree_util.keystr(path)}: {error:.1e}"


@pytest.mark.parametrize(
    ("norm", "accumulation", "loss"),
    [
        ("instance", 1, SAMPLE_LOSS),
        pytest.param("group", 2, LOSS, marks=pytest.mark.slow),
        pytest.param("batch", 1, SAMPLE_LOSS, marks=pytest.mark.slow),
        pytest.param("batch", 2, LOSS, marks=pytest.mark.slow),
    ],
)
def test_gradients_on_four_devices_are_those_on_one(norm, accumulation, loss):
    many, one, state = _steps(
        norm,
        _KEEP_GRADIENTS,
        loss=loss,
        accumulation=accumulation,
        augmentation=AUGMENTATION if norm == "instance" else None,
        ema=False,
    )
    batch = _batch()
    expected, expected_metrics = jax.jit(functools.partial(one, axis_name=None))(
        state, batch
    )
    actual, metrics = pmap_train_step(many)(replicate(state), shard_batch(batch, 4))
    gradients = expected.opt_state
    assert all(np.abs(leaf).max() > 0 for leaf in jax.tree.leaves(gradients))
    _close(actual.opt_state, gradients, 1e-5)
    _close(actual.batch_stats, expected.batch_stats, 1e-5)
    _close(metrics, expected_metrics, 1e-5)


def _float64(state: TrainState) -> TrainState:
    return jax.tree.map(
        lambda a: a.astype(jnp.float64) if a.dtype == jnp.float32 else a, state
    )


@pytest.mark.slow
@pytest.mark.parametrize("norm", ["group", "batch"])
def test_twenty_steps_in_float64_agree(norm):
    with jax.enable_x64(True):
        optimizer = create_optimizer(
            name="adamw",
            weight_decay=1e-3,
            momentum=0.0,
            gradient_clip=1.0,
        )
        many, one, state = _steps(
            norm,
            optimizer,
            accumulation=2,
            augmentation=AUGMENTATION if norm == "group" else None,
            ema=True,
            dtype="float64",
        )
        state = _float64(state).replace(learning_rate=jnp.float64(1e-2))
        many, one = (
            pmap_train_step(many),
            jax.jit(functools.partial(one, axis_name=None)),
        )
        first, second = replicate(jax.tree.map(jnp.copy, state)), state
        for step in range(20):
            batch = _batch(np.float64)
            batch["example_index"] += BATCH * step
            first, _ = many(first, shard_batch(batch, 4))
            second, _ = one(second, batch)
        assert first.params["head"]["kernel"].dtype == jnp.float64
        assert int(first.step) == 20
        _close(first.params, second.params, 1e-9)
        _close(first.ema_params, second.ema_params, 1e-9)
        moved = jax.tree.map(
            lambda a, b: np.abs(a - b).max(), first.params, state.params
        )
        assert min(jax.tree.leaves(moved)) > 1e-3


@pytest.mark.slow
def test_accumulation_is_the_step_on_the_whole_batch():
    # With per-sample losses and norms, how the batch is cut cannot matter.
    results = []
    for accumulation in (1, 4):
        _, one, state = _steps(
            "instance",
            optax.sgd(1.0),
            loss=SAMPLE_LOSS,
            accumulation=accumulation,
            ema=False,
        )
        state, _ = jax.jit(functools.partial(one, axis_name=None))(state, _batch())
        results.append(state.params)
    _close(results[1], results[0], 1e-5)


def test_the_step_is_compiled_once_gives_its_buffers_away_and_learns():
    traces, losses = [], []
    many, _, state = _steps("instance", optax.adam(1e-2), loss=SAMPLE_LOSS, ema=True)

    def counted(state, batch, *, axis_name):
        traces.append(axis_name)
        return many(state, batch, axis_name=axis_name)

    step = pmap_train_step(counted)
    state = replicate(state)
    for _ in range(30):
        before = state
        state, metrics = step(state, shard_batch(_batch(), 4))
        losses.append(float(metrics["loss"]))
        assert before.params["head"]["kernel"].is_deleted()
        assert before.opt_state[0].mu["head"]["kernel"].is_deleted()
        assert before.ema_params["head"]["kernel"].is_deleted()
    assert traces == [AXIS]
    assert losses[-1] < 0.7 * losses[0]
    parts = float(metrics["dice_loss"] + metrics["cross_entropy_loss"])
    assert parts == pytest.approx(losses[-1], rel=1e-5)


def test_augmentation_follows_the_example_and_not_its_place():
    _, one, state = _steps(
        "instance",
        optax.sgd(1.0),
        loss=SAMPLE_LOSS,
        augmentation=AUGMENTATION,
        ema=False,
    )
    step = jax.jit(functools.partial(one, axis_name=None))
    batch = _batch()
    turned = {key: np.roll(value, 3, axis=0) for key, value in batch.items()}
    other = {**batch, "example_index": batch["example_index"] + 1}
    loss = float(step(state, batch)[1]["loss"])
    assert float(step(state, turned)[1]["loss"]) == pytest.approx(loss, rel=1e-5)
    assert float(step(state, other)[1]["loss"]) != pytest.approx(loss, rel=1e-4)


def test_the_moving_averages_follow_parameters_and_statistics():
    _, one, state = _steps("batch", optax.sgd(0.1), ema=True)
    start = np.asarray(state.params["head"]["kernel"])
    step = jax.jit(functools.partial(one, axis_name=None))
    after, _ = step(state, _batch())
    moved = np.asarray(after.params["head"]["kernel"])
    # The first decay is (1 + 0) / (10 + 0).
    np.testing.assert_allclose(
        after.ema_params["head"]["kernel"], 0.1 * start + 0.9 * moved, rtol=1e-5
    )
    norm = ("encoder_0", "norm_0", "var")
    start, moved, average = (
        functools.reduce(dict.get, norm, stats)
        for stats in (state.batch_stats, after.batch_stats, after.ema_batch_stats)
    )
    assert np.abs(moved - start).max() > 1e-3
    np.testing.assert_allclose(average, 0.1 * start + 0.9 * moved, rtol=1e-5)
    assert after.eval_variables["params"] is after.ema_params
    assert after.eval_variables["batch_stats"] is after.ema_batch_stats


@pytest.mark.parametrize(("norm", "ema"), [("instance", True), ("batch", False)])
def test_without_average_or_batch_norm_there_are_no_averaged_statistics(norm, ema):
    *_, state = _steps(norm, optax.sgd(0.1), ema=ema)
    assert state.ema_batch_stats is None
    found = jax.tree.leaves(state.eval_variables["batch_stats"])
    for leaf, one in zip(found, jax.tree.leaves(state.batch_stats), strict=True):
        assert leaf is one


def test_a_checkpoint_of_version_0_1_is_scored_with_the_statistics_that_it_has():
    saved = {"params": {"k": 1}, "batch_stats": {"m": 2}, "ema_params": {"k": 3}}
    expected = {"params": {"k": 3}, "batch_stats": {"m": 2}}
    assert averaged_variables(saved) == expected
    saved["ema_batch_stats"] = {"m": 4}
    assert averaged_variables(saved) == {**expected, "batch_stats": {"m": 4}}
    alone = {"params": {"k": 1}, "batch_stats": None, "ema_params": None}
    assert averaged_variables(alone) == {"params": {"k": 1}, "batch_stats": {}}


def test_a_run_that_began_without_averaged_statistics_goes_on_without():
    _, one, state = _steps("batch", optax.sgd(0.1), ema=True)
    step = jax.jit(functools.partial(one, axis_name=None))
    after, _ = step(state.replace(ema_batch_stats=None), _batch())
    assert after.ema_batch_stats is None
    assert after.eval_variables["batch_stats"] is after.batch_stats


def test_rows_are_dealt_to_the_devices_like_cards():
    dealt = shard_batch({"x": np.arange(8)}, 4)["x"]
    np.testing.assert_array_equal(dealt, [[0, 4], [1, 5], [2, 6], [3, 7]])


@pytest.mark.parametrize(
    ("size", "devices", "accumulation", "proposed"),
    [(6, 4, 1, 8), (8, 4, 4, 16), (0, 1, 1, 1), (3, 2, 1, 4)],
)
def test_a_batch_that_does_not_divide_is_refused(size, devices, accumulation, proposed):
    with pytest.raises(InputError, match=rf"found {size}, .*batch_size={proposed}$"):
        check_batch_size(size, devices=devices, accumulation=accumulation)
    check_batch_size(proposed, devices=devices, accumulation=accumulation)
