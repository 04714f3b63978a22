import importlib.util

import jax
import numpy as np
import pytest

from unet_jax.commands.plan import _step_and_state
from unet_jax.configs import brain_slab
from unet_jax.errors import InputError
from unet_jax.planning import topology
from unet_jax.planning.chips import parse_topology
from unet_jax.planning.flops import dense_flops
from unet_jax.training.devices import replicate, shard_batch
from unet_jax.training.step import create_train_state, pmap_train_step

INSTALLED = importlib.util.find_spec("libtpu") is not None


def _tiny(**changes):
    config = brain_slab.get_config()
    config.model.name = "unet_tiny"
    config.model.options.features = (4, 8)
    config.train.patch_size = (16, 16)
    config.augment.enabled = False
    config.update_from_flattened_dict(changes)
    return config


def _batch(rows):
    rng = np.random.default_rng(0)
    return {
        "image": rng.normal(size=(rows, 16, 16, 1)).astype(np.float32),
        "label": rng.integers(0, 4, (rows, 16, 16)).astype(np.int32),
        "example_index": np.arange(rows, dtype=np.int32),
    }


@pytest.mark.slow
def test_the_planned_step_is_the_one_that_training_maps():
    config = _tiny()
    step, shapes = _step_and_state(config, 1)
    planned, _ = topology.shard_train_step(step, jax.devices())
    from unet_jax.experiment.network import (
        create_network,
        create_optimizer_and_schedule,
    )

    optimizer, _ = create_optimizer_and_schedule(config)
    state = create_train_state(
        create_network(config, axis_name=None, implementation="plain"),
        optimizer,
        seed=0,
        input_shape=(16, 16, 1),
        ema=False,
    )
    jax.tree.map(
        lambda shape, leaf: np.testing.assert_equal(shape.shape, leaf.shape),
        shapes,
        state,
    )
    rows = _batch(8)
    given = topology.global_batch_shapes(8, patch_size=(16, 16), channels=1)
    for name, array in rows.items():
        assert (given[name].shape, given[name].dtype) == (array.shape, array.dtype)
    copy = jax.tree.map(np.asarray, state)
    trained, metrics = pmap_train_step(step)(replicate(state), shard_batch(rows, 4))
    # Rows are distributed round robin: the same rows in the planned order.
    dealt = {
        name: array.reshape(rows[name].shape)
        for name, array in shard_batch(rows, 4).items()
    }
    other, other_metrics = planned(copy, dealt)
    for name in metrics.keys() - {"problems"}:
        np.testing.assert_allclose(other_metrics[name], metrics[name], rtol=1e-5)
    jax.tree.map(
        lambda one, two: np.testing.assert_allclose(one, two, rtol=1e-4, atol=1e-5),
        other.params,
        trained.params,
    )


def test_accumulation_does_not_change_the_operations():
    counts = []
    for accumulation in (1, 2):
        config = _tiny(**{"train.accumulation": accumulation})
        step, state = _step_and_state(config, 1, implementation="plain")
        mapped, _ = topology.shard_train_step(step, jax.devices())
        batch = topology.global_batch_shapes(16, patch_size=(16, 16), channels=1)
        counts.append(dense_flops(mapped.trace(state, batch).jaxpr))
    assert counts[0] == counts[1] > 0


def test_operations_are_those_of_the_implementation_for_tpu():
    step, state = _step_and_state(_tiny(), 1)
    mapped, _ = topology.shard_train_step(step, jax.devices())
    batch = topology.global_batch_shapes(4, patch_size=(16, 16), channels=1)
    text = str(mapped.trace(state, batch).jaxpr)
    assert "f32[1,5,5,64]" in text  # blocks of 4x4 pixels with 4 channels, shifted


@pytest.mark.parametrize(
    ("message", "needed"),
    [
        (
            "RESOURCE_EXHAUSTED: Ran out of memory on HBM, the total memory required "
            "for HLO temporaries (128.00G) exceeds available HBM (15.75G).",
            128 * 2**30,
        ),
        (
            "RESOURCE_EXHAUSTED: XLA:TPU compile permanent error. Ran out of memory in "
            "memory space hbm. Used 20.50G of 15.75G hbm. Exceeded hbm capacity by "
            "4.75G.\n\nTotal hbm usage >= 20.76G:",
            20.5 * 2**30,
        ),
        (
            "RESOURCE_EXHAUSTED: Ran out of memory in memory space vmem. Used 130.00M "
            "of 128.00M vmem.",
            None,
        ),
        ("RESOURCE_EXHAUSTED: no more hbm", None),
        ("INTERNAL: something else", None),
    ],
)
def test_the_memory_that_is_needed_is_read_from_the_message(message, needed):
    assert topology.needed_memory(message) == needed


@pytest.mark.skipif(INSTALLED, reason="libtpu is installed")
def test_without_libtpu_the_fix_is_named():
    with pytest.raises(InputError) as caught:
        topology.slice_devices(parse_topology("v5e:2x2"))
    assert str(caught.value) == (
        "--mode=plan: libtpu, the compiler for TPUs, is not installed; pip install -e "
        "'.[tpu]' brings it, no TPU is needed"
    )


@pytest.mark.slow
@pytest.mark.skipif(not INSTALLED, reason="libtpu is not installed")
def test_a_tiny_step_compiles_for_a_slice():
    config = _tiny(**{"train.accumulation": 2})
    step, state = _step_and_state(config, 1)
    devices = topology.slice_devices(parse_topology("v5e:2x2"))
    assert len(devices) == 4
    batch = topology.global_batch_shapes(16, patch_size=(16, 16), channels=1)
    cost = topology.compile_for_slice(step, devices, state=state, batch=batch)
    parameters = sum(leaf.size for leaf in jax.tree.leaves(state.params))
    # The gradients and a few other numbers are summed over the chips.
    assert 4 * parameters < cost.program.all_reduce_bytes < 6 * parameters
    assert 1e5 < cost.memory_bytes < 2**30
    assert 1e5 < cost.program.cycles < 1e8
    assert cost.flops > 0
    plain, _ = _step_and_state(config, 1, implementation="plain")
    counted = topology.compile_for_slice(
        step, devices, state=state, batch=batch, counted=plain
    )
    assert counted.program == cost.program
    assert 0 < counted.flops < cost.flops  # without the zeros of packed kernels
