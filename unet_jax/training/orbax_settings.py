"""What Orbax is told: which checkpoints stay, which processes write, what is logged."""

import logging
import sys
from collections.abc import Callable, Sequence
from typing import Any

import jax
from orbax.checkpoint import checkpoint_managers
from orbax.checkpoint.options import MultiprocessingOptions

LATEST_TO_KEEP = 3


class KeepLatestAndBest:
    """Keeps the latest and the best checkpoints; a policy of Orbax."""

    def __init__(self, scores: dict[int, float | None]) -> None:
        """Keep the dict of scores, which grows."""
        self._scores = scores

    def should_preserve(
        self,
        checkpoints: Sequence[checkpoint_managers.PolicyCheckpointInfo],
        *,
        context: Any,
    ) -> list[bool]:
        """Return for each checkpoint whether it is kept."""
        del context
        steps = [checkpoint.step for checkpoint in checkpoints]
        keep = {*sorted(steps)[-LATEST_TO_KEEP:], best_of(steps, self._scores)}
        return [step in keep for step in steps]


def best_of(steps: Sequence[int], scores: dict[int, float | None]) -> int | None:
    """Return the last of the steps with the highest score."""
    scored = {step: score for step in steps if (score := scores.get(step)) is not None}
    return max(scored, key=lambda step: (scored[step], step), default=None)


def by_itself() -> MultiprocessingOptions:
    """Return options with which Orbax waits for no other process."""
    me = jax.process_index()
    return MultiprocessingOptions(
        primary_host=me, active_processes={me}, barrier_sync_key_prefix=f"process{me}"
    )


def drop_noise() -> None:
    """Drop Orbax's log, and tracebacks of errors that are raised as well."""
    logging.getLogger("absl").addFilter(_is_worth_saying)
    if not isinstance(sys.unraisablehook, _DropLateAnswers):
        sys.unraisablehook = _DropLateAnswers(sys.unraisablehook)


def _is_worth_saying(record: logging.LogRecord) -> bool:
    """Drop Orbax's log, hundreds of lines per save, and its tracebacks.

    The errors of these tracebacks are raised, and printed in one line.
    """
    if "/orbax/" not in record.pathname:
        return True
    return record.levelno >= logging.WARNING and not record.exc_info


class _DropLateAnswers:
    """Drops the tracebacks of TensorStore's threads after a save has failed."""

    def __init__(self, show: Callable[[Any], None]) -> None:
        """Keep the hook that shows other exceptions."""
        self._show = show

    def __call__(self, unraisable: Any) -> None:
        """Drop the message of a closed event loop; show all others."""
        if str(unraisable.exc_value) != "Event loop is closed":
            self._show(unraisable)
