"""Does this machine give the same bits twice? A few steps, made two times, say so."""

import contextlib
import dataclasses
import pathlib
import tempfile
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from unet_jax.errors import RunError
from unet_jax.experiment.complete import resolve_source
from unet_jax.experiment.data import create_batches
from unet_jax.experiment.run import (
    Run,
    batch_shapes,
    check,
    create_state,
    create_step,
    prepare,
)
from unet_jax.runtime.compilation import compile_with_options, compiler_options
from unet_jax.training.state import distribute, local_copy, replicate
from unet_jax.training.step import shard_batch

STEPS = 4
"""Of each time: some for the order of threads to differ, were they to matter."""


def check_determinism(config: ConfigDict) -> str:
    """Make the first steps of a run twice, from data to update, and compare all bits.

    Nothing is written but to a temporary folder. Data are opened, prepared and drawn
    anew each time, by the same threads as in training; the step is compiled once.

    Args:
        config: as given.

    Returns:
        The line that says that they agree.

    Raises:
        InputError: the config or the data cannot be used.
        RunError: they do not agree; the message names where.
    """
    config = resolve_source(config)
    with tempfile.TemporaryDirectory() as folder:
        workdir = pathlib.Path(folder) / "run"
        check(config, workdir)
        run = prepare(config, workdir, None)
        step_function = create_step(run.config, run.optimizer, run.loss_terms)
        states = [_first_steps(run, step_function, workdir) for _ in range(2)]
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
        f"determinism: {STEPS} steps made twice on {jax.device_count()} devices agree "
        f"in every bit of {len(first)} arrays"
    )
    print(line)
    return line


def _first_steps(run: Run, step_function: Any, workdir: pathlib.Path) -> Any:
    """Make the steps from the start."""
    state = create_state(run.config, run.optimizer, run.preprocessing)
    shapes = batch_shapes(run.config, run.preprocessing)
    batches = create_batches(run.config, run.seen["train"], run.preprocessing, workdir)
    compiled = compile_with_options(
        step_function.lower(state, shapes), compiler_options(run.config.deterministic)
    )
    with contextlib.closing(batches):
        for step in range(STEPS):
            rate = replicate(jnp.float32(run.schedule(step)))
            state, _ = compiled(
                dataclasses.replace(state, learning_rate=rate),
                distribute(shard_batch(next(batches), jax.local_device_count())),
            )
        return jax.device_get(local_copy(state))
