"""Runs a few training steps twice and compares the results bit for bit."""

import contextlib
import pathlib
import tempfile
from typing import Any

import jax
import numpy as np
from ml_collections import ConfigDict

from unet_jax.errors import RunError
from unet_jax.experiment.complete import resolve_source
from unet_jax.experiment.data import create_batches
from unet_jax.experiment.run import Run, check, create_run
from unet_jax.training.devices import distribute, local_copy, shard_batch

STEPS = 4
"""Enough for a difference in the order of threads to show."""


def check_determinism(config: ConfigDict) -> str:
    """Run the first steps of a config twice, from data to update, and compare all bits.

    Batches are drawn again each time, by the same threads as in training. Only a
    temporary folder is written.

    Raises:
        InputError: the config or the data cannot be used.
        RunError: the results differ; the message names an array.
    """
    config = resolve_source(config)
    with tempfile.TemporaryDirectory() as folder:
        workdir = pathlib.Path(folder) / "run"
        check(config, workdir)
        run = create_run(config, workdir)
        train_step, _ = run.compile_step(run.create_state())
        states = [_first_steps(run, train_step) for _ in range(2)]
    first, second = (jax.tree_util.tree_leaves_with_path(state) for state in states)
    wrong = [
        jax.tree_util.keystr(path, simple=True, separator="/")
        for (path, one), (_, other) in zip(first, second, strict=True)
        if np.asarray(one).tobytes() != np.asarray(other).tobytes()
    ]
    if wrong:
        raise RunError(
            f"determinism: after {STEPS} steps {len(wrong)} of {len(first)} arrays "
            f"differ between two equal runs, {wrong[0]} among them; "
            "deterministic=True asks the compiler for reproducible operations"
        )
    line = (
        f"determinism: {STEPS} steps run twice on {jax.device_count()} devices agree "
        f"in every bit of {len(first)} arrays"
    )
    print(line)
    return line


def _first_steps(run: Run, train_step: Any) -> Any:
    """Run the first steps; return the state on the host."""
    state = run.create_state()
    batches = create_batches(
        run.config,
        run.seen["train"],
        run.preprocessing,
        run.workdir,
        previous=run.previous,
    )
    with contextlib.closing(batches):
        for step in range(STEPS):
            rows = shard_batch(next(batches), jax.local_device_count())
            state, _ = train_step(
                state.with_learning_rate(run.schedule(step)), distribute(rows)
            )
        return jax.device_get(local_copy(state))
