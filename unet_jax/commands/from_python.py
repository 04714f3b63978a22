"""Trains networks and loads finished runs from a program or a notebook."""

import os
from typing import Any

import jax
from ml_collections import ConfigDict

from unet_jax.bucket.place import copy_of, opened
from unet_jax.commands.train import train_and_evaluate
from unet_jax.experiment.ensemble import load_trained
from unet_jax.experiment.trained_run import TrainedRun
from unet_jax.experiment.warmup import fit_warmup
from unet_jax.runtime.platforms import check_platform
from unet_jax.runtime.stop import Stop

_RESULTS_DEPEND_ON = {
    "jax_enable_x64": False,
    "jax_default_matmul_precision": None,
    "jax_default_prng_impl": "threefry2x32",
    "jax_threefry_partitionable": True,
    "jax_numpy_dtype_promotion": "standard",
    "jax_disable_jit": False,
    "jax_default_device": None,
    "jax_num_cpu_devices": -1,
}
"""Settings of jax that change the bits of a training, with their defaults."""


def load(workdir: str | os.PathLike[str]) -> TrainedRun:
    """Load the network of a finished run.

    Args:
        workdir: folder of the run, or ``gs://bucket/folder``; that of a
            cross-validation gives the mean of its folds.

    Returns:
        The run; ``run.predict`` segments arrays and files.

    Raises:
        InputError: there is no run, or none of its checkpoints can be read.

    Example:
        >>> run = load("runs/brain")  # doctest: +SKIP
        >>> labels = run.predict(array, spacing=(1, 1, 1))  # doctest: +SKIP
    """
    check_platform()
    with copy_of(os.fspath(workdir)) as folder:
        return load_trained(folder)


def train(config: ConfigDict, workdir: str | os.PathLike[str]) -> dict[str, Any]:
    """Train a network and score the test split, as the command line does.

    The parameters equal those of the command bit for bit. Where a setting of jax in
    this process prevents that, a line names it. A workdir with a checkpoint is resumed.
    An interrupt (Ctrl-C) ends the training; the last checkpoint stays.

    Args:
        config: config of the run, such as ``unet_jax.configs.brain.get_config()``; it
            is not changed.
        workdir: folder of the run, or ``gs://bucket/folder``.

    Returns:
        The content of test_metrics.json.

    Raises:
        InputError: the config, the data or the workdir cannot be used.
        RunError: the run cannot go on; the message names what is safe.

    Example:
        >>> from unet_jax.configs import smoke
        >>> scores = train(smoke.get_config(), "runs/smoke")  # doctest: +SKIP
        >>> scores["mean"]["dice"]  # doctest: +SKIP
    """
    check_platform()
    config = config.copy_and_resolve_references()
    if line := fit_warmup(config):
        print(f"unet_jax.train: {line}")
    for line in differences():
        print(f"unet_jax.train: {line}")
    stop = Stop()
    with opened(os.fspath(workdir), stop=stop, trains=True) as place:
        return train_and_evaluate(config, place.path, stop=stop, bucket=place.bucket)


def differences() -> list[str]:
    """Return a line for each setting of jax that makes bits differ from a command."""
    lines = []
    for name, default in _RESULTS_DEPEND_ON.items():
        found = getattr(jax.config, name, default)
        expected = os.environ.get(name.upper(), str(default))
        if str(found).lower() not in _spellings(expected):
            lines.append(
                f"{name} is {found} in this process and {expected} in a new one; the "
                "parameters will differ from those of the command"
            )
    return lines


def _spellings(value: str) -> tuple[str, ...]:
    """Return the ways to write a value in the environment."""
    for same in (("true", "1", "t", "y", "yes", "on"), ("false", "0", "no", "off")):
        if value.lower() in same:
            return same
    return (value.lower(),)
