"""Does a config fit a TPU slice, and what will a step cost: before anything is paid."""

import dataclasses
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
from unet_jax.experiment.network import (
    create_network,
    create_optimizer_and_schedule,
    create_train_step,
)
from unet_jax.losses.terms import LossTerm, create_loss_terms, needs_class_fractions
from unet_jax.planning.chips import Slice, parse_topology, slices
from unet_jax.planning.cost import StepCost
from unet_jax.planning.report import aligned_table, bytes_text, count_text, seconds_text
from unet_jax.planning.scaling import (
    HOP_SECONDS,
    largest_batch,
    proportional_memory,
    second_batch,
    sent_bytes,
    step_speed,
)
from unet_jax.planning.topology import (
    HbmExceeded,
    batch_shapes,
    compile_step,
    slice_devices,
)
from unet_jax.training.images_alone import check_losses_of_images
from unet_jax.training.state import TrainState, create_train_state
from unet_jax.training.step import TrainStep


@dataclasses.dataclass(frozen=True)
class Compiled:
    """A batch for which the step was compiled.

    Attributes:
        rows: crops a chip.
        memory_bytes: of HBM that a chip needs.
        cost: of the step; None where the compiler refused it for its memory.
    """

    rows: int
    memory_bytes: float
    cost: StepCost | None

    def fits(self, target: Slice) -> bool:
        """Whether the compiler takes it, and its figures add up to what there is.

        It has taken a step whose figures add up to more: who pays should not rely on
        that.
        """
        return self.cost is not None and self.memory_bytes <= target.chip.hbm_bytes


def plan_run(config: ConfigDict, topology: str | None, *, channels: int = 1) -> None:
    """Compile the training step for a TPU slice, at most twice, and print its cost.

    Args:
        config: of the run that is planned.
        topology: the slice, "v5e:4x4".
        channels: of the images, where no folder of data says it.

    Raises:
        InputError: the slice is unknown, its compiler is not installed, or the config
            cannot be trained.
    """
    # On a host with a TPU, too: a plan takes no chip from those who use them.
    jax.config.update("jax_platforms", "cpu")
    target = parse_topology(topology)
    devices = slice_devices(target)
    config, found = _completed(config, target.chips)
    channels = found or channels
    step, state = _step_and_state(config, channels)
    # Packed kernels are full of zeros: those products are no work of the network.
    plain, _ = _step_and_state(config, channels, implementation="plain")
    accumulation = config.train.accumulation
    rows = -(-config.train.batch_size // (target.chips * accumulation)) * accumulation
    print(_opening(config, target, state, rows=rows, channels=channels))

    def compile_rows(rows: int) -> Compiled:
        batch = batch_shapes(
            rows * target.chips, patch_size=config.train.patch_size, channels=channels
        )
        print(f"compiling   batch {rows * target.chips}: takes minutes", flush=True)
        try:
            cost = compile_step(step, devices, state=state, batch=batch, counted=plain)
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


def _completed(config: ConfigDict, chips: int) -> tuple[ConfigDict, int | None]:
    """Fill in what the data choose, as training would; and the channels they have."""
    config = resolve_source(config)
    check_config(config)
    if config.data.source != "folder":
        return config, None
    if not config.data.path:
        _check_needs_no_data(config)
        return config, None
    with tempfile.TemporaryDirectory() as folder:  # a plan leaves nothing behind
        dataset: Any = open_dataset(config, pathlib.Path(folder))
        config = complete_config(config, dataset, tpu_chips=chips)
        found = fingerprint(dataset.traits).channels
    check_config(config, complete=True)
    return config, found


def _check_needs_no_data(config: ConfigDict) -> None:
    """Refuse a config without data that leaves the step's shape to them."""
    keys = ["data.class_names", "train.patch_size", "train.batch_size"]
    if config.model.name == "unet":
        keys += ["model.features", "model.norm", "model.deep_supervision"]
    missing = [
        key for key in keys if config[key.split(".")[0]][key.split(".")[1]] is None
    ]
    if missing:
        raise InputError(
            "data.path: found nothing, and the data would choose "
            f"{', '.join(missing)}; give --config.data.path=FOLDER, or these keys"
        )


def _step_and_state(
    config: ConfigDict, channels: int, *, implementation: str = "tpu"
) -> tuple[TrainStep, TrainState]:
    """Build the step of a config for TPU, and the shapes of its state."""
    optimizer, _ = create_optimizer_and_schedule(config)
    terms = _loss_terms(config)
    check_losses_of_images(
        config.loss,
        model=config.model.name,
        padding=config.model.padding,
        deep_supervision=config.model.deep_supervision,
        foreground_oversampling=config.data.foreground_oversampling,
    )
    step = create_train_step(config, optimizer, terms, implementation=implementation)
    network = create_network(config, axis_name=None, implementation=implementation)
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
    """Build the losses; weights of the classes' shares cost the same for any shares."""
    shares = None
    if needs_class_fractions(config.loss):
        classes = len(config.data.class_names)
        shares = (1 / classes,) * classes
    return create_loss_terms(config.loss, head=config.model.head, shares=shares)


def _size(tree: Any) -> int:
    """Bytes of all arrays of a tree of shapes."""
    return sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(tree))


def _opening(
    config: ConfigDict, target: Slice, state: TrainState, *, rows: int, channels: int
) -> str:
    """Say what is planned, and for what."""
    chip, train = target.chip, config.train
    parameters = sum(leaf.size for leaf in jax.tree.leaves(state.params))
    patch = " x ".join(map(str, train.patch_size))
    batch = rows * target.chips
    share = f"{batch} crops of {patch} x {channels}, {rows} a chip"
    if batch != train.batch_size:
        share += (
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
            f"batch       {share}",
        ]
    )


def plan_text(
    compiled: list[Compiled], target: Slice, *, multiple: int, fixed_bytes: float
) -> str:
    """Write the plan of the batches that were compiled.

    Args:
        compiled: one batch or two; the config's first.
        target: the slice.
        multiple: of which a chip's share of a batch is one.
        fixed_bytes: of the state.

    Returns:
        Lines of text: the cost of a step, the largest batch, and other slices.
    """
    fitting = [batch for batch in compiled if batch.fits(target)]
    parts = [
        _step_table(compiled, target),
        _largest_text(compiled, target, multiple, fixed_bytes),
    ]
    if fitting:
        parts += [_growth_table(batch, target) for batch in fitting]
        parts.append(_growth_note(target))
    return "\n" + "\n\n".join(parts)


def _step_table(compiled: list[Compiled], target: Slice) -> str:
    """One column for each batch that was compiled."""
    columns = [
        [
            "a step",
            "crops a chip",
            "fits",
            "HBM a chip",
            "FLOPs a chip",
            "HBM read and written",
            "cycles (compiler)",
            "time of these",
            "all-reduced",
            "in exchanges",
            "time of these (estimate)",
            "step (estimate)",
            "crops a second",
            "utilisation",
        ]
    ]
    known = any(batch.cost is not None for batch in compiled)
    if not known:
        columns[0] = columns[0][:4]
    for batch in compiled:
        cells = [
            f"batch {batch.rows * target.chips:,}",
            f"{batch.rows}",
            "yes" if batch.fits(target) else "no",
            bytes_text(batch.memory_bytes),
        ]
        columns.append([*cells, *(_cost_cells(batch, target) if known else ())])
    return aligned_table(list(zip(*columns, strict=True)))


def _cost_cells(batch: Compiled, target: Slice) -> list[str]:
    """What a step costs; nothing is known of one that the compiler refused."""
    cost = batch.cost
    if cost is None:
        return ["-"] * 10
    speed = step_speed(cost, target, rows=batch.rows)
    return [
        count_text(cost.flops, "FLOP"),
        bytes_text(cost.program.hbm_bytes),
        count_text(cost.program.cycles),
        seconds_text(speed.compute_seconds),
        bytes_text(cost.program.all_reduce_bytes),
        f"{cost.program.all_reduces}",
        seconds_text(speed.exchange_seconds),
        seconds_text(speed.seconds),
        count_text(speed.crops_per_second),
        f"{100 * speed.utilisation:.1f} %",
    ]


def _largest_text(
    compiled: list[Compiled], target: Slice, multiple: int, fixed_bytes: float
) -> str:
    """Say which batch is the largest that fits, and how that is known."""
    limit = target.chip.hbm_bytes
    first, *others = sorted(compiled, key=lambda batch: batch.rows)
    if not others and first.fits(target):
        more = first.rows + multiple
        needed = proportional_memory(
            first.rows, first.memory_bytes, fixed_bytes=fixed_bytes, wanted=more
        )
        return (
            f"largest batch: {first.rows * target.chips:,} ({first.rows:,} a chip), "
            f"compiled; {more} a chip would need {bytes_text(needed)} of "
            f"{bytes_text(limit)} (estimate)"
        )
    if not others:
        return (
            f"largest batch: none; {first.rows} a chip need "
            f"{bytes_text(first.memory_bytes)} of {bytes_text(limit)}.\nLower "
            "train.patch_size or model.features, or take a chip with more memory."
        )
    (last,) = others
    points = (first.rows, first.memory_bytes), (last.rows, last.memory_bytes)
    rows = largest_batch(points, hbm_bytes=limit, multiple=multiple)
    each = (last.memory_bytes - first.memory_bytes) / (last.rows - first.rows)
    known = "derived"
    if any(batch.rows == rows and batch.fits(target) for batch in compiled):
        known = "compiled"
    if rows == 0:
        return f"largest batch: none fits; {bytes_text(each)} a crop, derived"
    return (
        f"largest batch: {rows * target.chips:,} ({rows:,} a chip), {known}; "
        f"a crop takes {bytes_text(each)} of {bytes_text(limit)}"
    )


def _growth_table(batch: Compiled, target: Slice) -> str:
    """The same share of a batch a chip on other slices of the chip."""
    cost = batch.cost
    assert cost is not None
    listed = {one.chips: one for one in slices(target.chip)} | {target.chips: target}
    rows = [
        [
            "slice",
            "chips",
            "batch",
            "sent a chip",
            "exchanges",
            "step",
            "crops/s",
            "efficiency",
            "",
        ]
    ]
    for chips, one in sorted(listed.items()):
        speed = step_speed(cost, one, rows=batch.rows)
        rows.append(
            [
                one.name,
                f"{chips}",
                f"{batch.rows * chips:,}",
                bytes_text(sent_bytes(cost, one)),
                seconds_text(speed.exchange_seconds),
                seconds_text(speed.seconds),
                count_text(speed.crops_per_second),
                f"{100 * speed.compute_seconds / speed.seconds:.1f} %",
                "compiled" if one == target else "estimate",
            ]
        )
    return aligned_table(rows)


def _growth_note(target: Slice) -> str:
    """Say what the estimates rest on."""
    link = count_text(target.chip.ring_bytes_per_second, "B/s")
    return (
        "Estimate: a chip's share takes the same cycles on any slice. Exchanges are "
        f"ring\nall-reduces at {link} and {seconds_text(HOP_SECONDS)} a hop, none of "
        "them hidden behind work; efficiency\nis what they leave of a step."
    )
