"""One of several processes that run the same steps; started by test_processes.py.

python worker.py OUTPUT COORDINATOR NUMBER PLACE
"""

import sys

import jax
import jax.numpy as jnp
import numpy as np

from unet_jax.data.case import Case
from unet_jax.data.pipeline import make_train_iterator
from unet_jax.data.prepared import PreparedCases
from unet_jax.hosts import agree
from unet_jax.hosts.start import Processes, start
from unet_jax.losses.terms import create_loss_terms
from unet_jax.models.network import output_shapes
from unet_jax.models.presets import create_model
from unet_jax.training.devices import (
    AXIS,
    distribute,
    local_copy,
    replicate,
    shard_batch,
)
from unet_jax.training.optimizer import create_optimizer
from unet_jax.training.step import create_train_state, make_train_step, pmap_train_step

BATCH, SIZE, CLASSES = 8, 16, 3


def _batches():
    """Return the batches of this process, of five pictures with uneven classes."""
    rng = np.random.default_rng(0)
    cases = []
    for number in range(5):
        label = rng.integers(0, CLASSES, (24, 24))
        label[: 4 * number] = -1 if number % 2 else 0
        image = label[..., None] + rng.normal(size=(24, 24, 1))
        cases.append(
            Case(id=str(number), image=image, label=label, spacing=None, group="g")
        )
    prepared = PreparedCases(
        cases,
        lambda case: (case.image.astype(np.float32), case.label.astype(np.int8)),
        num_classes=CLASSES,
        spatial_dims=2,
        by_slice=False,
        cache_bytes=2**20,
        seed=0,
    )
    return make_train_iterator(
        prepared,
        seed=0,
        global_batch_size=BATCH,
        patch_size=(SIZE, SIZE),
        foreground_oversampling=0.5,
        process_index=jax.process_index(),
        process_count=jax.process_count(),
        rows_at_once=jax.local_device_count(),
        num_threads=1,
        prefetch_batches=1,
    )


def _step_and_state(optimizer):
    """Return the real step with parts, batch Dice and batch norm, and its state."""

    def model(axis_name):
        return create_model(
            name="unet_tiny",
            features=(4, 8),
            num_classes=CLASSES,
            norm="batch",
            dtype="float64",
            axis_name=axis_name,
        )

    losses = (("dice", 1.0, {"batch_dice": True}), ("cross_entropy", 0.5, {}))
    step = make_train_step(
        model(AXIS),
        optimizer,
        shapes=output_shapes(model(None), (SIZE, SIZE)),
        loss_terms=create_loss_terms(losses),
        include_background=False,
        augmentation=None,
        seed=3,
        accumulation=2,
        ema_decay=0.9,
    )
    state = create_train_state(
        model(None), optimizer, seed=0, input_shape=(SIZE, SIZE, 1), ema=False
    )
    return pmap_train_step(step), state


def _run(state, step, batches, count):
    """Run steps on the batches of all processes."""
    for _ in range(count):
        part = shard_batch(next(batches), jax.local_device_count())
        state, _ = step(state, distribute(part))
    return local_copy(state)


def main(output: str, coordinator: str, number: str, place: str) -> None:
    """Write the first batch, and the parameters after twenty steps in float64."""
    if int(number) > 1:
        processes = Processes(coordinator, int(number), int(place))
        start(processes, heartbeat_seconds=60)
    results = {}
    seen = next(_batches())
    rows = [
        np.frombuffer(part, np.float32).reshape(-1, SIZE, SIZE)
        for part in agree.gather(seen["image"][..., 0].tobytes())
    ]
    places = [
        np.frombuffer(part, np.int32)
        for part in agree.gather(seen["example_index"].tobytes())
    ]
    order = np.argsort(np.concatenate(places))
    results["batch"] = np.concatenate(rows)[order]
    results["places"] = np.concatenate(places)[order]

    with jax.enable_x64(True):
        # AdamW would not see a gradient that is too large by a factor.
        optimizer = create_optimizer(
            name="sgd", weight_decay=1e-4, momentum=0.9, gradient_clip=0.0
        )
        step, state = _step_and_state(optimizer)
        state = jax.tree.map(
            lambda a: a.astype(jnp.float64) if a.dtype == jnp.float32 else a, state
        ).replace(learning_rate=jnp.float64(1e-2))
        state = _run(replicate(state), step, _batches(), 20)
        for path, leaf in jax.tree_util.tree_leaves_with_path(state.params):
            assert leaf.dtype == jnp.float64
            results[f"parameter{jax.tree_util.keystr(path)}"] = np.asarray(leaf)
    if agree.is_first():
        np.savez(output, **results)


if __name__ == "__main__":
    main(*sys.argv[1:])
