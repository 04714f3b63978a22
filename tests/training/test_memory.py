"""Memory of a step: closed forms, what the compiler counts, and the messages."""

import dataclasses
import functools
import types
from typing import NamedTuple

import jax
import numpy as np
import optax
import pytest

from unet_jax.errors import InputError, RunError
from unet_jax.losses.terms import create_loss_terms
from unet_jax.models.network import Implemented, output_shapes
from unet_jax.models.presets import create_model
from unet_jax.runtime.compilation import step_cost
from unet_jax.training.memory import (
    StepMemory,
    compile_step,
    device_limit,
    explained,
    step_memory,
)
from unet_jax.training.step import create_train_state, make_train_step

GIB = 2**30
# 1 GiB of state, 0.5 of gradients, 0.5 a batch of 8, 16 of activations.
STEP = StepMemory(
    state=GIB,
    gradients=GIB // 2,
    batch=GIB // 2,
    batch_size=8,
    accumulation=1,
    devices=1,
    total=18 * GIB,
    limit=16 * GIB,
)


def test_needs_are_the_fixed_part_and_a_fraction_of_the_rest():
    assert STEP.needs(batch_size=8, accumulation=1) == 18 * GIB
    assert STEP.needs(batch_size=4, accumulation=1) == (1.5 + 0.25 + 8) * GIB
    # Accumulation keeps the batch, and a second sum of gradients.
    assert STEP.needs(batch_size=8, accumulation=2) == (2 + 0.5 + 8) * GIB
    halves = dataclasses.replace(STEP, accumulation=2)
    assert halves.needs(batch_size=8, accumulation=4) == (2 + 0.5 + 15.5 / 2) * GIB


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        (
            {},
            "the step needs 18.0 GiB, and this device has 16.0 GiB for it; "
            "keep train.batch_size=8 by --config.train.accumulation=2 (about 10.5 GiB) "
            "or lower it by --config.train.batch_size=6 (13.9 GiB)",
        ),
        (
            {"batch_size": 32, "devices": 4},  # a multiple of the devices
            "the step needs 18.0 GiB, and this device has 16.0 GiB for it; "
            "keep train.batch_size=32 by --config.train.accumulation=2 (about 10.5 "
            "GiB) or lower it by --config.train.batch_size=24 (13.9 GiB)",
        ),
        (
            {"batch_size": 1},
            "the step needs 18.0 GiB, and this device has 16.0 GiB for it; a single "
            "crop on each device would need about 18.0 GiB: lower train.patch_size to "
            "83 % of its pixels, with "
            "--config.train.batch_size=1",
        ),
        (
            {"limit": GIB},
            "the step needs 18.0 GiB, and this device has 1.0 GiB for it; parameters, "
            "optimizer and gradients alone need 1.5 GiB: choose a smaller network by "
            "model.name or model.options",
        ),
        (
            {"limit": 20 * GIB},
            "the step needs 18.0 GiB, and this device has 20.0 GiB for it, part of "
            "which is taken; keep train.batch_size=8 by --config.train.accumulation=2 "
            "(about 10.5 GiB) or lower it by --config.train.batch_size=5 (11.8 GiB)",
        ),
        (
            {"limit": None},
            "the step needs 18.0 GiB; raise train.accumulation, or lower "
            "train.batch_size or train.patch_size",
        ),
    ],
)
def test_the_message_says_what_to_lower_and_by_how_much(changes, line):
    assert dataclasses.replace(STEP, **changes).explain() == line


def test_a_tpu_compiler_says_itself_what_it_counted():
    text = (
        "RESOURCE_EXHAUSTED: XLA:TPU compile permanent error. Ran out of memory in "
        "memory space hbm. Used 21.95G of 15.48G hbm. Exceeded hbm capacity by 6.47G."
    )
    memory = dataclasses.replace(STEP, total=None, limit=None)
    assert memory.explain(text).startswith(
        "the step needs 21.9 GiB, and this device has 15.5 GiB for it; keep train.batch"
    )
    assert "does not fit into the memory" in memory.explain("RESOURCE_EXHAUSTED: x")


def test_a_step_that_cannot_fit_is_refused_before_it_is_run():
    with pytest.raises(InputError, match=r"needs 18.0 GiB, and this device has 16.0"):
        STEP.check()
    dataclasses.replace(STEP, limit=18 * GIB).check()
    dataclasses.replace(STEP, limit=None).check()


class _State(NamedTuple):
    params: np.ndarray


class _Device:
    platform = "gpu"

    def __init__(self, stats):
        self.stats = stats

    def memory_stats(self):
        return self.stats


def test_limits_come_from_the_device_or_from_the_machine():
    assert device_limit(_Device({"bytes_limit": 7})) == 7
    assert device_limit(_Device(None)) is None
    limit = device_limit(jax.local_devices()[0])
    assert 2**26 < limit * jax.local_device_count() < 2**45


@pytest.mark.parametrize(
    "error",
    [
        jax.errors.JaxRuntimeError(
            "RESOURCE_EXHAUSTED: Out of memory while trying to allocate 477035 bytes."
        ),
        MemoryError(),
    ],
)
def test_memory_that_ran_out_is_one_line(error):
    with (
        pytest.raises(
            RunError, match=r"train.batch_size=6 .*; step 5 is safe"
        ) as caught,
        explained(lambda text: f"{STEP.explain(text)}; step 5 is safe", RunError),
    ):
        raise error
    assert caught.value.__cause__ is error


@pytest.mark.parametrize(
    "allocate",
    [
        jax.jit(lambda: jax.numpy.zeros(2**44) + 1),
        lambda: np.empty(2**60, np.int8),
    ],
    ids=["device", "host"],
)
def test_what_really_does_not_fit_is_explained(allocate):
    with (
        pytest.raises(
            RunError, match=r"the step needs 18.0 GiB, and this device has 16.0"
        ),
        explained(STEP.explain, RunError),
    ):
        jax.block_until_ready(allocate())


@pytest.mark.parametrize(
    "error",
    [
        jax.errors.JaxRuntimeError("INTERNAL: something else"),
        jax.errors.JaxRuntimeError(
            "RESOURCE_EXHAUSTED: Ran out of memory in memory space vmem. Used 32.42M "
            "of 16.00M vmem"
        ),
        ValueError("Out of memory"),
    ],
)
def test_other_errors_pass(error):
    with pytest.raises(type(error)) as caught, explained(STEP.explain, RunError):
        raise error
    assert caught.value is error


def _measured(batch_size, accumulation):
    """Compile a real step and return its memory by the compiler."""
    model = create_model(
        name="unet_tiny",
        features=(8, 16),
        convolutions_per_stage=1,
        num_classes=3,
        norm="group",
        norm_groups=2,
    )
    # What it needs grows with the batch; "cpu" works in bands of one size, too.
    network = Implemented(model, "plain")
    optimizer = optax.adam(1e-3)
    step = make_train_step(
        network,
        optimizer,
        shapes=output_shapes(network, (32, 32)),
        loss_terms=create_loss_terms((("cross_entropy", 1.0, {}),)),
        include_background=False,
        augmentation=None,
        seed=0,
        accumulation=accumulation,
        ema_decay=0.0,
    )
    state = create_train_state(
        network, optimizer, seed=0, input_shape=(32, 32, 1), ema=False
    )
    shapes = {
        "image": jax.ShapeDtypeStruct((batch_size, 32, 32, 1), np.float32),
        "label": jax.ShapeDtypeStruct((batch_size, 32, 32), np.int32),
        "example_index": jax.ShapeDtypeStruct((batch_size,), np.int32),
    }
    memory = step_memory(
        state,
        {
            key: types.SimpleNamespace(shape=(1, *s.shape), dtype=s.dtype)
            for key, s in shapes.items()
        },
        batch_size=batch_size,
        accumulation=accumulation,
        devices=1,
        device=jax.local_devices()[0],
    )
    mapped = jax.jit(functools.partial(step, axis_name=None), donate_argnums=0)
    compiled, memory = compile_step(mapped, state, shapes, memory)
    assert memory.total == step_cost(compiled)["memory_bytes"]
    return memory


@pytest.mark.slow
def test_estimates_agree_with_what_the_compiler_says_of_the_proposals():
    whole = _measured(16, 1)
    assert whole.state == pytest.approx(3 * whole.gradients, rel=0.01)  # Adam's moments
    assert whole.batch == 16 * (32 * 32 * 8 + 4)
    half, parts = _measured(8, 1).total, _measured(16, 2).total
    assert whole.needs(batch_size=8, accumulation=1) == pytest.approx(half, rel=0.1)
    assert whole.needs(batch_size=16, accumulation=2) == pytest.approx(parts, rel=0.1)
    # What it proposes for a smaller device does fit into it.
    limit = int(whole.needs(batch_size=8, accumulation=1) / 0.94)
    small = dataclasses.replace(whole, limit=limit)
    with pytest.raises(InputError, match=r"lower it by --config.train.batch_size=8 "):
        small.check()
    assert half <= limit


def test_compiling_for_a_device_that_is_too_small_is_refused():
    state = _State(np.zeros(9, np.float32))
    batch = {"image": np.zeros((1, 100_000), np.float32)}
    options = {"batch_size": 1, "accumulation": 1, "devices": 1}
    step = jax.jit(lambda state, batch: jax.numpy.sort(batch["image"]))
    for limit, fits in ((10**9, True), (10**5, False)):
        device = _Device({"bytes_limit": limit})
        memory = step_memory(state, batch, **options, device=device)
        if fits:
            compiled, measured = compile_step(step, None, batch, memory)
            assert compiled(None, batch).shape == (1, 100_000)
            assert measured.total >= 800_000
        else:
            with pytest.raises(
                InputError, match=r"the step needs \d.* has 0.1 MiB for it"
            ):
                compile_step(step, None, batch, memory)
