"""Compiles the training step for a TPU slice on a machine without a TPU."""

import contextlib
import functools
import os
import re
from collections.abc import Iterator, Sequence
from typing import Any

import jax
import numpy as np
from jax.experimental import topologies
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from unet_jax.errors import InputError
from unet_jax.planning.chips import Slice
from unet_jax.planning.cost import StepCost, read_step_cost
from unet_jax.planning.flops import dense_flops
from unet_jax.training.devices import AXIS
from unet_jax.training.step import TrainState, TrainStep


class HbmExceeded(Exception):
    """The step needs more memory than a chip has.

    Args:
        memory_bytes: memory that the step needs, by the compiler.
    """

    def __init__(self, memory_bytes: float) -> None:
        """Keep the number of bytes."""
        super().__init__(f"the step needs {memory_bytes / 2**30:.2f} GiB of HBM")
        self.memory_bytes = memory_bytes


_ENVIRONMENT = {
    # Several processes may load libtpu at once, since none of them uses a TPU.
    "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",
    # Without these, libtpu asks a metadata server and warns that there is none.
    "TPU_SKIP_MDS_QUERY": "1",
    "TPU_ACCELERATOR_TYPE": "v5litepod-4",
    "TPU_WORKER_HOSTNAMES": "localhost",
}


@contextlib.contextmanager
def _without_a_tpu() -> Iterator[None]:
    """Set the environment that libtpu reads when it is loaded."""
    added = [name for name in _ENVIRONMENT if name not in os.environ]
    os.environ.update({name: _ENVIRONMENT[name] for name in added})
    try:
        yield
    finally:
        for name in added:
            del os.environ[name]


def slice_devices(target: Slice) -> list[Any]:
    """Return devices of a slice, for the compiler only.

    Returns: A device for each chip; programs can be compiled for them, but not run.
    Raises: InputError: the compiler for TPUs is not installed, or does not know the
        slice.
    """
    try:
        with _without_a_tpu():
            description = topologies.get_topology_desc(
                platform="tpu", topology_name=target.name
            )
    except (RuntimeError, NotImplementedError, ValueError) as error:
        reason = str(error).partition("\n")[0]
        if "TPU support not installed" in reason:
            raise InputError(
                "--mode=plan: libtpu, the compiler for TPUs, is not installed; "
                "pip install -e '.[tpu]' brings it, no TPU is needed"
            ) from None
        raise InputError(
            f"--topology: libtpu does not accept {target.name!r}: {reason}"
        ) from None
    return list(description.devices)


def global_batch_shapes(
    rows: int, *, patch_size: Sequence[int], channels: int
) -> dict[str, jax.ShapeDtypeStruct]:
    """Return the shapes and dtypes of a global batch.

    Args:
        rows: crops on all devices together.
        patch_size: pixels of a crop along each axis.
        channels: channels of the images.

    Returns: Shape and dtype of each array of the batch, by name.
    """
    patch = tuple(patch_size)
    return {
        "image": jax.ShapeDtypeStruct((rows, *patch, channels), np.float32),
        "label": jax.ShapeDtypeStruct((rows, *patch), np.int32),
        "example_index": jax.ShapeDtypeStruct((rows,), np.int32),
    }


def shard_train_step(train_step: TrainStep, devices: Sequence[Any]) -> tuple[Any, Mesh]:
    """Map the step over the devices of a slice as pmap does over local devices.

    Args:
        train_step: function ``(state, batch, *, axis_name)``.
        devices: devices of the slice.

    Returns: The jitted step, a function of the whole state (donated) and the global
        batch, and the mesh.
    """
    mesh = Mesh(np.asarray(devices), (AXIS,))
    whole, rows = PartitionSpec(), PartitionSpec(AXIS)
    mapped = jax.shard_map(
        functools.partial(train_step, axis_name=AXIS),
        mesh=mesh,
        in_specs=(whole, rows),
        out_specs=(whole, whole),
        check_vma=False,  # as under pmap: gradients of this device's rows only
    )
    return jax.jit(mapped, donate_argnums=0), mesh


def compile_for_slice(
    train_step: TrainStep,
    devices: Sequence[Any],
    *,
    state: TrainState,
    batch: dict[str, jax.ShapeDtypeStruct],
    counted: TrainStep | None = None,
) -> StepCost:
    """Compile the step for the devices of a slice.

    Args:
        train_step: function ``(state, batch, *, axis_name)``.
        devices: devices of the slice, from `slice_devices`.
        state: shapes of the state.
        batch: shapes of the global batch.
        counted: the step in another implementation, whose operations are counted;
            None counts those of ``train_step``.

    Returns: Cost of a step on each chip.
    Raises: HbmExceeded: the step does not fit into the memory of a chip.
    """

    def trace(step: TrainStep) -> Any:
        mapped, mesh = shard_train_step(step, devices)
        whole, rows = PartitionSpec(), PartitionSpec(AXIS)
        return mapped.trace(_placed(state, mesh, whole), _placed(batch, mesh, rows))

    traced = trace(train_step)
    flops = dense_flops((traced if counted is None else trace(counted)).jaxpr)
    try:
        return read_step_cost(traced.lower().compile(), flops=flops)
    except jax.errors.JaxRuntimeError as error:
        needed = needed_memory(str(error))
        if needed is None:
            raise
    raise HbmExceeded(needed)


def _placed(tree: Any, mesh: Mesh, spec: PartitionSpec) -> Any:
    """Add a sharding over a mesh to the shapes of a tree."""
    sharding = NamedSharding(mesh, spec)
    return jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding),
        tree,
    )


_UNITS = {"K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}


def needed_memory(message: str) -> float | None:
    """Read from a compiler error how much memory the step needs.

    Args:
        message: text of the error.

    Returns: Bytes of HBM, the largest figure of the first line. None if the error has
        another cause.

    Example:
        >>> needed_memory("RESOURCE_EXHAUSTED: Used 17.50G of 15.75G hbm.") / 2**30
        17.5
    """
    first_line = message.partition("\n")[0]
    if "RESOURCE_EXHAUSTED" not in first_line or "hbm" not in first_line.lower():
        return None
    sizes = re.findall(r"([\d.]+)([KMGT])\b", first_line)
    return max((float(size) * _UNITS[unit] for size, unit in sizes), default=None)
