"""Training steps as the loop of a run makes them."""

import dataclasses
import pathlib
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.ours import nets
from benchmarks.worker import Task
from unet_jax.experiment import run
from unet_jax.experiment.network import create_optimizer_and_schedule
from unet_jax.losses.terms import create_loss_terms
from unet_jax.runtime import allocator
from unet_jax.runtime.compilation import compiler_options
from unet_jax.training.memory import compile_step
from unet_jax.training.state import distribute, replicate
from unet_jax.training.step import shard_batch


class Trainer:
    """A state that goes on from step to step."""

    def __init__(self, folder: pathlib.Path, work: dict[str, Any]) -> None:
        """Compile the step, and hand the first weights over."""
        allocator.keep_freed_memory()  # as --mode=train does
        config, preprocessing = nets.config_of(work), nets.preprocessing_of(work)
        optimizer, self._schedule = create_optimizer_and_schedule(config)
        terms = create_loss_terms(config.loss, num_classes=work["classes"])
        self.state = run.create_state(config, optimizer, preprocessing)
        self._examples = nets.examples(work)
        nets.hand_over(folder, self.state.eval_variables, self._examples)
        shapes = run.batch_shapes(config, preprocessing)
        self._step, _ = compile_step(
            run.create_step(config, optimizer, terms),
            self.state,
            shapes,
            run.count_memory(config, self.state, shapes),
            options=compiler_options(config.deterministic),
        )
        self._done = 0

    def steps(self, count: int) -> list[float]:
        """Make steps as ``unet_jax.commands.loop`` does, and return their losses.

        The host reads no metric before the end, and is two steps ahead at most.
        """
        kept: list[dict[str, Any]] = []
        for _ in range(count):
            index = np.arange(len(self._examples["label"]), dtype=np.int32)
            batch = {**self._examples, "example_index": index}
            rate = replicate(jnp.float32(float(self._schedule(self._done))))
            state = dataclasses.replace(self.state, learning_rate=rate)
            part = shard_batch(batch, jax.local_device_count())
            self.state, metrics = self._step(state, distribute(part))
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
        work: see ``nets.config_of``.
    """
    trainer = Trainer(folder, work)
    return Task(
        run=lambda calls: trainer.steps(calls) and None,
        facts={"parameters": nets.parameters(trainer.state.eval_variables)},
        outputs=lambda: {"losses": np.array(trainer.steps(3))},
        packages=(*nets.PACKAGES, "optax"),
    )
