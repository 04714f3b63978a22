"""Compares the TPU compiler's estimates for our training step and a naive one.

    pip install -e '.[tpu]'
    python -m benchmarks.tpu_cycles

Both steps are the real one of the config, with augmentation, losses and update,
compiled for a v5e:2x2 by libtpu; only the network differs. The 2-D cases are those of
configs/brain_slab.py with its batch on each chip, over all four of them, and with 64
crops a chip. One line of JSON for each: estimated cycles, bytes of HBM read and
written, and HBM a chip; then their ratio.
"""

import argparse
import dataclasses
import importlib.metadata
import json
import time
from typing import Any

import flax.linen as nn
import jax
from ml_collections import ConfigDict

from benchmarks.naive_unet import NaiveUNet
from unet_jax.configs import brain_slab, volume_3d
from unet_jax.experiment.network import (
    create_augmentation,
    create_network,
    create_optimizer_and_schedule,
)
from unet_jax.losses.terms import create_loss_terms
from unet_jax.models.network import output_shapes
from unet_jax.models.sizes import stage_counts
from unet_jax.planning.chips import parse_topology
from unet_jax.planning.topology import (
    HbmExceeded,
    batch_shapes,
    compile_step,
    slice_devices,
)
from unet_jax.training.devices import AXIS
from unet_jax.training.step import (
    TrainState,
    TrainStep,
    create_train_state,
    make_train_step,
)

TOPOLOGY = "v5e:2x2"


@dataclasses.dataclass(frozen=True)
class Case:
    """A config and the crops that a chip has of a batch.

    Attributes:
        config: config of the run.
        rows: crops a chip.
    """

    config: ConfigDict
    rows: int


def cases() -> dict[str, Case]:
    """Return what is compared, by name."""
    flat = brain_slab.get_config()
    flat.model.dtype = "bfloat16"
    deep = volume_3d.get_config()
    deep.data.class_names = ("background", "organ", "lesion")
    return {
        "2d": Case(flat, flat.train.batch_size),
        "2d_shared": Case(
            flat, flat.train.batch_size // parse_topology(TOPOLOGY).chips
        ),
        "2d_full": Case(flat, 64),
        "3d": Case(deep, 1),
    }


def naive_network(ours: Any, *, axis_name: str | None) -> NaiveUNet:
    """Return the naive network of the same layers.

    Args:
        ours: the network of the config.
        axis_name: mapped axis of batch norm.
    """
    stages = len(ours.features)
    down = stage_counts("", ours.convolutions_per_stage, stages)
    up = down[:-1]
    if ours.decoder_convolutions is not None:
        up = stage_counts("", ours.decoder_convolutions, stages - 1)
    return NaiveUNet(
        num_classes=ours.num_classes,
        features=ours.features,
        convolutions_per_stage=down,
        decoder_convolutions=up,
        block=ours.block,
        downsample=ours.downsample,
        norm=ours.norm,
        deep_supervision=ours.deep_supervision,
        dtype=ours.dtype,
        axis_name=axis_name,
    )


def step_and_state(
    config: ConfigDict, network: nn.Module, initial: nn.Module
) -> tuple[TrainStep, TrainState]:
    """Build the training step of a config around a network, and its state's shapes.

    Args:
        config: config of the run.
        network: network with the name of the mapped axis.
        initial: the network without that name, which makes the state.
    """
    optimizer, _ = create_optimizer_and_schedule(config)
    step = make_train_step(
        network,
        optimizer,
        shapes=output_shapes(initial, tuple(config.train.patch_size)),
        loss_terms=create_loss_terms(config.loss, head=config.model.head),
        include_background=config.data.include_background,
        augmentation=create_augmentation(config),
        seed=config.seed,
        accumulation=config.train.accumulation,
        ema_decay=config.train.ema_decay,
    )
    state = jax.eval_shape(
        lambda: create_train_state(
            initial,
            optimizer,
            seed=config.seed,
            input_shape=(*config.train.patch_size, 1),
            ema=config.train.ema_decay > 0,
        )
    )
    return step, state


def networks(config: ConfigDict) -> dict[str, tuple[nn.Module, nn.Module]]:
    """Return each network with and without the name of the mapped axis.

    Args:
        config: config of the run.
    """
    found: dict[str, tuple[nn.Module, nn.Module]] = {}
    for name, implementation in (("tpu", "tpu"), ("plain", "plain")):
        found[name] = tuple(
            create_network(config, axis_name=axis, implementation=implementation)
            for axis in (AXIS, None)
        )
    found["naive"] = tuple(
        naive_network(found["plain"][0].network, axis_name=axis)
        for axis in (AXIS, None)
    )
    return found


def measure(case: Case, name: str, devices: list[Any]) -> dict[str, float]:
    """Compile the step of one network.

    Args:
        case: name of the compared case.
        name: name of the network.
        devices: devices of the slice.
    """
    step, state = step_and_state(case.config, *networks(case.config)[name])
    batch = batch_shapes(
        case.rows * len(devices), patch_size=case.config.train.patch_size, channels=1
    )
    figures = {
        "parameters": sum(leaf.size for leaf in jax.tree.leaves(state.params)),
        "crops_a_chip": case.rows,
    }
    start = time.perf_counter()
    try:
        cost = compile_step(step, devices, state=state, batch=batch)
    except HbmExceeded as error:
        return {**figures, "fits": False, "memory_bytes": error.memory_bytes}
    return {
        **figures,
        "fits": True,
        "memory_bytes": cost.memory_bytes,
        "cycles": cost.program.cycles,
        "hbm_bytes": cost.program.hbm_bytes,
        "flops": cost.flops,
        "compile_seconds": round(time.perf_counter() - start),
    }


def main() -> None:
    """Compile what the command asks for, and print it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cases", nargs="+", default=list(cases()))
    parser.add_argument("--networks", nargs="+", default=["tpu", "naive"])
    options = parser.parse_args()
    jax.config.update("jax_platforms", "cpu")
    devices = slice_devices(parse_topology(TOPOLOGY))
    versions = {
        name: importlib.metadata.version(name) for name in ("jax", "libtpu", "flax")
    }
    print(json.dumps({"topology": TOPOLOGY, **versions}), flush=True)
    for case in options.cases:
        results = {}
        for name in options.networks:
            results[name] = measure(cases()[case], name, devices)
            print(
                json.dumps({"case": case, "network": name, **results[name]}), flush=True
            )
        ours, naive = results.get("tpu", {}), results.get("naive", {})
        if "cycles" in ours and "cycles" in naive:
            assert ours["parameters"] == naive["parameters"]
            ratio = naive["cycles"] / ours["cycles"]
            print(json.dumps({"case": case, "naive / ours, cycles": round(ratio, 2)}))


if __name__ == "__main__":
    main()
