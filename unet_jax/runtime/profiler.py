"""Traces some steps of a run with the jax profiler."""

import pathlib

import jax

from unet_jax.errors import InputError
from unet_jax.runtime.shown_path import shown

Steps = tuple[int, int] | None
"""First and last step of the trace; None for no trace."""


def check_profile(profile: Steps, steps: int) -> None:
    """Refuse a trace that the run would never begin or end.

    Raises:
        InputError: the run does not have these steps.
    """
    if profile is not None and not 1 <= profile[0] < profile[1] <= steps:
        raise InputError(
            f"--profile: found {profile[0]}:{profile[1]}, expected two steps of the "
            f"run, 1 to train.steps={steps}, the first one smaller"
        )


def trace(profile: Steps, step: int, workdir: pathlib.Path) -> None:
    """Start or stop the profiler, if it is due before this step.

    The trace goes to ``profile`` in the workdir.
    """
    if profile is not None and step == profile[0]:
        jax.profiler.start_trace(str(workdir / "profile"))
    if profile is not None and step == profile[1]:
        jax.profiler.stop_trace()
        made = shown(workdir / "profile")
        print(f"profile of steps {profile[0]} to {profile[1]}: {made}")
