"""Places state and batches on the devices of all processes.

The state is one array on every device. A batch is cut by rows: each process puts its
own rows on its own devices.
"""

from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from unet_jax.errors import InputError, setting

AXIS = "devices"
"""Name of the mapped axis of the training step."""

STOP = "stop"
"""Key of the votes for a stop, in a batch and in the metrics."""

_WHOLE = PartitionSpec()


def replicate(tree: Any) -> Any:
    """Put a state on every device of all processes, as the pmap-ed step expects it.

    Without this, two processes of two devices each die in the first donated step. With
    several processes the arrays, equal in each, become global ones, which Orbax can
    save.
    """
    # The axis has the step's name: another one would be another placement, and the
    # step would be compiled again for the state that it gave back.
    sharding = NamedSharding(_mesh(), _WHOLE)
    if jax.process_count() == 1:
        return jax.device_put(tree, sharding)

    def join(leaf: jax.Array) -> jax.Array:
        copies = [
            jax.device_put(np.asarray(leaf), device) for device in jax.local_devices()
        ]
        return jax.make_array_from_single_device_arrays(leaf.shape, sharding, copies)

    return jax.tree.map(join, tree)


def replicated_shapes(tree: Any) -> Any:
    """Describe what `replicate` makes of a tree of shapes, to restore a state."""
    sharding = NamedSharding(_mesh(), _WHOLE)
    return jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding),
        tree,
    )


def local_copy(tree: Any) -> Any:
    """Return the local copies of arrays that `replicate` placed.

    With a single process it is the tree itself.
    """
    if jax.process_count() == 1:
        return tree
    sharding = _local()

    def part(leaf: jax.Array) -> jax.Array:
        copies = [shard.data for shard in leaf.addressable_shards]
        return jax.make_array_from_single_device_arrays(leaf.shape, sharding, copies)

    return jax.tree.map(part, tree)


def on_local_devices(tree: Any) -> Any:
    """Put arrays whole on every device of this process, as `local_copy` returns them.

    A compiled network takes both without being compiled again.
    """
    return jax.device_put(tree, _local())


def shard_batch(batch: dict[str, np.ndarray], devices: int) -> dict[str, np.ndarray]:
    """Deal the rows of a batch to the devices like cards: row i to device i mod n.

    A part of gradient accumulation is then the same set of rows for any number of
    devices, and so are batch Dice and batch norm.

    Returns:
        Arrays ``(local devices, rows per device, ...)``.
    """
    return {
        key: np.swapaxes(
            array.reshape(array.shape[0] // devices, devices, *array.shape[1:]), 0, 1
        )
        for key, array in batch.items()
    }


def distribute(batch: dict[str, np.ndarray]) -> dict[str, Any]:
    """Join the parts that the processes hold to one batch on all devices.

    With a single process it is the batch itself, ``(local devices, ...)``.
    """
    if jax.process_count() == 1:
        return batch
    sharding = NamedSharding(_mesh(), PartitionSpec(AXIS))
    return {
        key: jax.make_array_from_process_local_data(sharding, array)
        for key, array in batch.items()
    }


def batch_shapes(
    batch_size: int,
    *,
    patch_size: Sequence[int],
    channels: int,
    labelled: int = 0,
) -> dict[str, Any]:
    """Describe a distributed batch, so that the step compiles before a batch is there.

    Args:
        labelled: number of classes, where a batch says which ones are labelled.

    Returns:
        Shapes by key; with several processes arrays of zeros, votes included.
    """
    devices = jax.local_device_count()
    rows = (devices, batch_size // jax.device_count())
    shapes: dict[str, Any] = {
        "image": ((*rows, *patch_size, channels), np.float32),
        "label": ((*rows, *patch_size), np.int32),
        "example_index": (rows, np.int32),
    }
    if labelled:
        shapes["labelled"] = ((*rows, labelled), np.bool_)
    if jax.process_count() == 1:
        return {key: jax.ShapeDtypeStruct(*kind) for key, kind in shapes.items()}
    # With several processes pmap is lowered for arrays only.
    shapes[STOP] = ((devices,), np.int32)
    return distribute({key: np.zeros(*kind) for key, kind in shapes.items()})


def check_batch_size(
    batch_size: int, *, devices: int, accumulation: int, processes: int = 1
) -> None:
    """Refuse a global batch that does not divide by the devices of all processes.

    Raises:
        InputError: the batch does not divide.
    """
    parts = devices * accumulation
    if batch_size < 1 or batch_size % parts or batch_size % processes:
        raise InputError(
            f"train.batch_size: found {batch_size}, expected a multiple of {parts} "
            f"({devices} devices x train.accumulation {accumulation}); give "
            f"{setting('train.batch_size', max(1, round(batch_size / parts)) * parts)}"
        )


def _local() -> NamedSharding:
    """Whole copies on the devices of this process."""
    return NamedSharding(Mesh(np.asarray(jax.local_devices()), (AXIS,)), _WHOLE)


def _mesh() -> Mesh:
    """All devices in pmap's order: the devices of a process side by side."""
    devices = [
        device
        for process in range(jax.process_count())
        for device in jax.local_devices(process_index=process)
    ]
    return Mesh(np.asarray(devices), (AXIS,))
