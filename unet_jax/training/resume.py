"""Resumes a run from its newest checkpoint, scored or interrupted."""

import pathlib
import shutil
from collections.abc import Collection
from typing import Any, NamedTuple, Protocol

from unet_jax.errors import RunError
from unet_jax.hosts import agree
from unet_jax.training.checkpoint import Checkpoints
from unet_jax.training.manifest import move_aside, set_damaged_aside, steps_in
from unet_jax.training.orbax_settings import LATEST_TO_KEEP

FOLDER = "checkpoints"
_INTERRUPTED = "interrupted"


class Restored(NamedTuple):
    """A restored state, and what was saved with it.

    Attributes:
        step: number of updates done.
        state: the training state.
        place: state of the data iterator.
        record: record that was saved with the state.
    """

    step: int
    state: Any
    place: dict[str, Any]
    record: dict[str, Any]


class Bucket(Protocol):
    """A bucket that receives checkpoints when they are on the disk."""

    def saved(self) -> None:
        """Send the checkpoints, and wait until they are there."""


class RunCheckpoints:
    """The checkpoints that a training run writes and resumes from.

    Each validation saves one in ``checkpoints``. A run that is asked to stop saves its
    state in ``interrupted``, so that the latest and the best checkpoint are those of an
    uninterrupted run; the next validation removes it. Damaged checkpoints are moved to
    ``damaged``, with a line printed for each. The first checkpoint that is written is
    read back at once: a folder that gives nothing back must not cost a whole training.

    Args:
        workdir: folder of the run.
        bucket: bucket that the workdir is a copy of, or None; each save waits for it.

    Raises:
        InputError: there are checkpoints, and all are damaged; or the processes have
            copies that differ.
    """

    def __init__(self, workdir: pathlib.Path, *, bucket: Bucket | None = None) -> None:
        """Set damaged checkpoints aside, and find the newest."""
        self._workdir, self._bucket = workdir, bucket
        folders = [workdir / FOLDER, workdir / _INTERRUPTED]
        agree.on_each_folder(lambda: _set_aside(folders))
        self._scored = Checkpoints(workdir / FOLDER)
        interrupted = steps_in(workdir / _INTERRUPTED)
        newest = self._scored.latest_step() or 0
        self._interrupted = max(interrupted, default=0)
        self._was_read_back = False
        self._newest = 0  # saved since then, here or by the first process for all
        if interrupted and self._interrupted <= newest:
            self._remove_interrupted()
        if agree.folders_are_own():
            agree.check_equal("the newest checkpoint", str(self.latest_step()))

    def latest_step(self) -> int:
        """Return the step that a restart would resume from; 0 without a checkpoint."""
        return max(self._scored.latest_step() or 0, self._interrupted, self._newest)

    def restore(self, template: Any) -> Restored:
        """Read the newest checkpoint, like the template's arrays.

        If the best checkpoint is lost, the record names the best one left.

        Raises:
            InputError: the checkpoint does not fit.
        """
        if self._interrupted:
            folder = self._workdir / _INTERRUPTED
            with Checkpoints(folder, read_only=True) as checkpoints:
                state, place, record = checkpoints.restore(self._interrupted, template)
        else:
            state, place, record = self._scored.restore(None, template)
        best = record.get("step")
        if best is not None and best not in steps_in(self._workdir / FOLDER):
            found = self._scored.best_step()
            print(
                f"the best checkpoint, step {best}, is lost; the best left is {found}"
            )
            record = {**record, "step": found, "score": self._scored.score(found)}
        return Restored(self.latest_step(), state, place, record)

    def save(
        self,
        step: int,
        state: Any,
        *,
        place: dict[str, Any],
        record: dict[str, Any],
        score: float,
    ) -> None:
        """Start to save a validated state; see `Checkpoints.save`.

        Raises:
            RunError: the checkpoint cannot be written, or not read back.
        """
        self.wait()
        self._scored.save(step, state, iterator_state=place, record=record, score=score)
        self._read_first_back(self._scored, step, state)
        self._newest = step
        if self._bucket is not None:
            self.wait()
            self._bucket.saved()

    def save_interrupted(
        self, step: int, state: Any, *, place: dict[str, Any], record: dict[str, Any]
    ) -> None:
        """Save a state that was not validated, and wait for it."""
        self._scored.wait()
        with Checkpoints(self._workdir / _INTERRUPTED) as checkpoints:
            checkpoints.save(
                step, state, iterator_state=place, record=record, score=None
            )
            checkpoints.wait()
            self._read_first_back(checkpoints, step, state)
        self._interrupted = step
        if self._bucket is not None:
            self._bucket.saved()

    def best_step(self) -> int | None:
        """Return the last step with the highest score; None without a score."""
        return self._scored.best_step()

    def wait(self) -> None:
        """Wait until the last save is on the disk."""
        self._scored.wait()
        if 0 < self._interrupted < (self._scored.latest_step() or 0):
            self._remove_interrupted()

    def __enter__(self) -> "RunCheckpoints":
        """Return itself."""
        return self

    def __exit__(self, *exception: Any) -> None:
        """Wait for the last save, and end the threads."""
        if exception[0] is None:
            self.wait()
        self._scored.__exit__(*exception)

    def _read_first_back(self, checkpoints: Checkpoints, step: int, state: Any) -> None:
        """Read a checkpoint back if it is the first one of this start."""
        if self._was_read_back:
            return
        try:
            checkpoints.check_readable(step, state)
        except RunError as error:
            if not agree.is_first():
                raise
            # Else a restart, and the message, would take it for a good one.
            aside = move_aside(checkpoints.path(step))
            raise RunError(f"{error}; it was moved to {aside}") from error
        self._was_read_back = True

    def _remove_interrupted(self) -> None:
        """Remove the interrupted state: a later checkpoint replaces it."""
        self._interrupted = 0
        if agree.is_first() or agree.folders_are_own():
            shutil.rmtree(self._workdir / _INTERRUPTED, ignore_errors=True)


def _set_aside(folders: list[pathlib.Path]) -> None:
    """Set damaged checkpoints aside, and print which."""
    for line in set_damaged_aside(folders, latest_to_keep=LATEST_TO_KEEP):
        print(line)


def has_checkpoint(workdir: pathlib.Path) -> bool:
    """Return whether a run has saved a checkpoint; its folder may be missing."""
    folders = (workdir / FOLDER, workdir / _INTERRUPTED)
    return any(steps_in(folder) for folder in folders)


def last_good(workdir: pathlib.Path) -> str:
    """Say which checkpoint a run would resume from."""
    steps = [
        step for name in (FOLDER, _INTERRUPTED) for step in steps_in(workdir / name)
    ]
    return last_good_of(steps)


def last_good_of(steps: Collection[int]) -> str:
    """Say from which of some checkpoints a run would resume."""
    if not steps:
        return "no checkpoint was saved yet"
    return f"the last good checkpoint is step {max(steps)}"
