"""What a training step reads and writes."""

from typing import Any

import flax.linen as nn
import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import Mesh, NamedSharding, PartitionSpec

AXIS = "devices"
"""Name of the mapped axis of the training step."""

_WHOLE = PartitionSpec()


@flax.struct.dataclass
class TrainState:
    """One pytree with all that a run carries from step to step.

    There is no random key in it: every key is folded from the configured seed and the
    global index of the example.

    Attributes:
        step: number of updates done, int32 scalar.
        params: float32 parameters.
        batch_stats: running statistics of batch norm; empty for other norms.
        opt_state: the optimiser's.
        learning_rate: factor of the next update, float32 scalar. The host sets it, from
            the schedule or the clock; 1 for an optimiser that has a rate of its own.
        ema_params: exponential moving average of the parameters; None when it is off.
    """

    step: jax.Array
    params: Any
    batch_stats: Any
    opt_state: optax.OptState
    learning_rate: jax.Array
    ema_params: Any = None

    @property
    def eval_variables(self) -> dict[str, Any]:
        """The variables that validation, test and prediction use."""
        params = self.params if self.ema_params is None else self.ema_params
        return {"params": params, "batch_stats": self.batch_stats}


def create_train_state(
    model: nn.Module,
    optimizer: optax.GradientTransformation,
    *,
    seed: int,
    input_shape: tuple[int, ...],
    ema: bool,
) -> TrainState:
    """Initialise the parameters and the optimiser.

    Args:
        model: the network.
        optimizer: the gradient transformation.
        seed: of the initial parameters.
        input_shape: ``(*patch_size, channels)``.
        ema: whether to keep a moving average of the parameters.

    Returns:
        The state of step 0.
    """

    def create() -> TrainState:
        variables = model.init(jax.random.key(seed), jnp.zeros((1, *input_shape)))
        params = variables["params"]
        return TrainState(
            step=jnp.int32(0),
            params=params,
            batch_stats=variables.get("batch_stats", {}),
            opt_state=optimizer.init(params),
            learning_rate=jnp.float32(1),
            # A copy: the step donates its buffers, and one buffer can go only once.
            ema_params=jax.tree.map(jnp.copy, params) if ema else None,
        )

    return jax.jit(create)()


def replicate(tree: Any) -> Any:
    """Put a state on every device of all processes, as the pmap-ed step expects it.

    Without this, two processes of two devices each die in the first donated step. Of
    several processes the arrays are global ones, which Orbax can save.

    Args:
        tree: pytree of arrays of this process, the same in every one.
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


def local_copy(tree: Any) -> Any:
    """Give what this process has of arrays that `replicate` placed.

    Args:
        tree: pytree of such arrays.

    Returns:
        Arrays on the local devices; the tree itself where there is one process.
    """
    if jax.process_count() == 1:
        return tree
    sharding = NamedSharding(Mesh(np.asarray(jax.local_devices()), (AXIS,)), _WHOLE)

    def part(leaf: jax.Array) -> jax.Array:
        copies = [shard.data for shard in leaf.addressable_shards]
        return jax.make_array_from_single_device_arrays(leaf.shape, sharding, copies)

    return jax.tree.map(part, tree)


def distribute(batch: dict[str, np.ndarray]) -> dict[str, Any]:
    """Make one batch of all devices out of the parts of the processes.

    Args:
        batch: arrays ``(local devices, ...)`` of this process.

    Returns:
        The batch itself where there is one process.
    """
    if jax.process_count() == 1:
        return batch
    sharding = NamedSharding(_mesh(), PartitionSpec(AXIS))
    return {
        key: jax.make_array_from_process_local_data(sharding, array)
        for key, array in batch.items()
    }


def _mesh() -> Mesh:
    """All devices, those of a process side by side, in pmap's order."""
    devices = [
        device
        for process in range(jax.process_count())
        for device in jax.local_devices(process_index=process)
    ]
    return Mesh(np.asarray(devices), (AXIS,))
