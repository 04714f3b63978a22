"""Times training steps as the loop of a run makes them."""

import pathlib
from typing import Any

import jax
import numpy as np

from benchmarks.ours import nets
from benchmarks.worker import Task
from unet_jax.experiment.run import assemble_run
from unet_jax.runtime import allocator
from unet_jax.training.devices import distribute, shard_batch


class Trainer:
    """A state that steps update."""

    def __init__(self, folder: pathlib.Path, work: dict[str, Any]) -> None:
        """Compile the step, and write the first weights for the peer."""
        allocator.keep_freed_memory()  # as --mode=train does
        config, preprocessing = nets.config_of(work), nets.preprocessing_of(work)
        self._run = assemble_run(config, folder, {}, {}, preprocessing)
        self.state = self._run.create_state()
        self._examples = nets.examples(work)
        nets.hand_over(folder, self.state.eval_variables, self._examples)
        self._step, _ = self._run.compile_step(self.state)
        self._done = 0

    def steps(self, count: int) -> list[float]:
        """Make steps as ``unet_jax.commands.train`` does, and return their losses.

        The host reads no metric before the end, and is two steps ahead at most.
        """
        kept: list[dict[str, Any]] = []
        for _ in range(count):
            index = np.arange(len(self._examples["label"]), dtype=np.int32)
            batch = {**self._examples, "example_index": index}
            rows = shard_batch(batch, jax.local_device_count())
            rate = self._run.schedule(self._done)
            self.state, metrics = self._step(
                self.state.with_learning_rate(rate), distribute(rows)
            )
            self._done += 1
            kept.append(metrics)
            if len(kept) > 2:
                jax.block_until_ready(kept[-3])
        jax.block_until_ready(self.state)
        return [float(metrics["loss"]) for metrics in kept]


def prepare(*, folder: pathlib.Path, work: dict[str, Any]) -> Task:
    """Make the task: one call is one step.

    Args:
        folder: shared with the peer.
        work: description of the work, see ``nets.config_of``.
    """
    trainer = Trainer(folder, work)
    return Task(
        run=lambda calls: trainer.steps(calls) and None,
        facts={"parameters": nets.parameters(trainer.state.eval_variables)},
        outputs=lambda: {"losses": np.array(trainer.steps(3))},
        packages=(*nets.PACKAGES, "optax"),
    )
