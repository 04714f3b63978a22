"""Compiles the training step of a config for a TPU slice and prints its cost."""

import importlib.metadata
import pathlib
import tempfile
from typing import Any

import jax
from ml_collections import ConfigDict

from unet_jax.data.fingerprint import fingerprint
from unet_jax.errors import InputError
from unet_jax.experiment.check import check_config
from unet_jax.experiment.complete import complete_config, resolve_source
from unet_jax.experiment.data import open_dataset
from unet_jax.experiment.memory_class import class_of
from unet_jax.experiment.network import (
    create_network_with_shapes,
    create_optimizer_and_schedule,
    crop_size,
)
from unet_jax.experiment.options import given_options
from unet_jax.experiment.previous_stage import previous_channels
from unet_jax.experiment.run import create_train_step
from unet_jax.losses.terms import LossTerm, create_loss_terms, needs_class_fractions
from unet_jax.method import Spacing
from unet_jax.models.presets import network_row
from unet_jax.planning.chips import Slice, parse_topology
from unet_jax.planning.cost import Compiled
from unet_jax.planning.quantities import bytes_text, count_text
from unet_jax.planning.report import plan_text
from unet_jax.planning.scaling import second_batch
from unet_jax.planning.topology import (
    HbmExceeded,
    compile_for_slice,
    global_batch_shapes,
    slice_devices,
)
from unet_jax.training.devices import AXIS
from unet_jax.training.images_alone import check_losses_of_images
from unet_jax.training.step import TrainState, TrainStep, create_train_state


def plan_run(config: ConfigDict, topology: str | None, *, channels: int = 1) -> None:
    """Compile the training step for a TPU slice, at most twice, and print its cost.

    Args:
        config: config of the planned run.
        topology: name of the slice, such as "v5e:4x4".
        channels: channels of the images, where no folder of data gives them.

    Raises: InputError: the slice is unknown, its compiler is not installed, or the
        config cannot be trained.
    """
    # Also on a host with TPUs: a plan must not take a chip from other processes.
    jax.config.update("jax_platforms", "cpu")
    target = parse_topology(topology)
    devices = slice_devices(target)
    config, found = _completed(config, target)
    channels = (found or channels) * (2 * config.data.adjacent_slices + 1)
    channels += previous_channels(config)
    step, state = _step_and_state(config, channels)
    # Packed kernels contain many zeros; their products are not useful operations.
    plain, _ = _step_and_state(config, channels, implementation="plain")
    accumulation = config.train.accumulation
    rows = -(-config.train.batch_size // (target.chips * accumulation)) * accumulation
    print(_opening(config, target, state, rows=rows, channels=channels))

    def compile_rows(rows: int) -> Compiled:
        batch = global_batch_shapes(
            rows * target.chips,
            patch_size=crop_size(config, _spacing(config)),
            channels=channels,
        )
        print(f"compiling   batch {rows * target.chips}: takes minutes", flush=True)
        try:
            cost = compile_for_slice(
                step, devices, state=state, batch=batch, counted=plain
            )
        except HbmExceeded as error:
            return Compiled(rows, error.memory_bytes, None)
        return Compiled(rows, cost.memory_bytes, cost)

    compiled = [compile_rows(rows)]
    other = second_batch(
        rows,
        compiled[0].memory_bytes,
        fixed_bytes=_size(state),
        chip=target.chip,
        multiple=accumulation,
    )
    if other is not None:
        compiled.append(compile_rows(other))
    print(plan_text(compiled, target, multiple=accumulation, fixed_bytes=_size(state)))


def _completed(config: ConfigDict, target: Slice) -> tuple[ConfigDict, int | None]:
    """Complete a config from its data, as training would; also return the channels."""
    config = resolve_source(config)
    check_config(config)
    if config.data.source != "folder":
        return config, None
    if not config.data.path:
        _check_needs_no_data(config)
        return config, None
    with tempfile.TemporaryDirectory() as folder:  # a plan leaves no files
        dataset: Any = open_dataset(config, pathlib.Path(folder))
        memory = None
        if config.train.memory_gib is None:
            chip = target.chip
            memory = class_of(kind=chip.name, usable_bytes=chip.hbm_bytes)
        config = complete_config(config, dataset, tpu_chips=target.chips, memory=memory)
        found = fingerprint(dataset.traits).channels
    check_config(config, complete=True)
    return config, found


def _check_needs_no_data(config: ConfigDict) -> None:
    """Refuse a config without data that needs data to decide the shape of the step."""
    keys = ["data.class_names", "train.patch_size", "train.batch_size"]
    missing = [
        key for key in keys if config[key.split(".")[0]][key.split(".")[1]] is None
    ]
    given = given_options(config)
    missing += [
        f"model.options.{name}"
        for name in network_row(config.model.name).left_to_data
        if name not in given
    ]
    if missing:
        raise InputError(
            "data.path: found nothing, expected a folder of data that decides "
            f"{', '.join(missing)}; give --config.data.path=FOLDER, or these keys"
        )


def _spacing(config: ConfigDict) -> Spacing:
    """Return the spacing of the training grid where the config gives it."""
    spacing, dims = config.data.spacing, len(config.train.patch_size)
    known = isinstance(spacing, tuple) and len(spacing) == dims
    return tuple(map(float, spacing)) if known else None


def _step_and_state(
    config: ConfigDict, channels: int, *, implementation: str = "tpu"
) -> tuple[TrainStep, TrainState]:
    """Build the training step of a config for TPU, and the shapes of its state."""
    optimizer, _ = create_optimizer_and_schedule(config)
    terms = _loss_terms(config)
    check_losses_of_images(
        config.loss, foreground_oversampling=config.data.foreground_oversampling
    )
    network, shapes = create_network_with_shapes(
        config, axis_name=AXIS, implementation=implementation
    )
    step = create_train_step(
        config, network, optimizer, terms, shapes, _spacing(config)
    )
    state = jax.eval_shape(
        lambda: create_train_state(
            network,
            optimizer,
            seed=config.seed,
            input_shape=(*config.train.patch_size, channels),
            ema=config.train.ema_decay > 0,
        )
    )
    return step, state


def _loss_terms(config: ConfigDict) -> tuple[LossTerm, ...]:
    """Build the losses with equal class fractions: the cost does not depend on them."""
    fractions = None
    if needs_class_fractions(config.loss):
        classes = len(config.data.class_names)
        fractions = (1 / classes,) * classes
    return create_loss_terms(
        config.loss, head=config.model.head, class_fractions=fractions
    )


def _size(tree: Any) -> int:
    """Bytes of all arrays of a tree of shapes."""
    return sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(tree))


def _opening(
    config: ConfigDict, target: Slice, state: TrainState, *, rows: int, channels: int
) -> str:
    """Write the header of a plan: slice, network and batch."""
    chip, train = target.chip, config.train
    parameters = sum(leaf.size for leaf in jax.tree.leaves(state.params))
    patch = " x ".join(map(str, train.patch_size))
    batch = rows * target.chips
    batch_text = f"{batch} crops of {patch} x {channels}, {rows} a chip"
    if batch != train.batch_size:
        batch_text += (
            f" (train.batch_size={train.batch_size} does not divide among "
            f"{target.chips} chips x train.accumulation {train.accumulation})"
        )
    versions = ", ".join(
        f"{name} {importlib.metadata.version(name)}" for name in ("jax", "libtpu")
    )
    return "\n".join(
        [
            f"plan        {config.name} on {target.name}; {versions}",
            f"slice       {target.chips} chips, each with "
            f"{bytes_text(chip.hbm_bytes)} of HBM at "
            f"{count_text(chip.hbm_bytes_per_second, 'B/s')}, "
            f"{count_text(chip.flops_per_second, 'FLOP/s')} in bfloat16, "
            f"{chip.cycles_per_second / 1e9:.2f} GHz",
            f"network     {config.model.name}, {parameters:,} parameters, "
            f"{config.model.dtype}, {len(config.data.class_names)} classes",
            f"batch       {batch_text}",
        ]
    )
