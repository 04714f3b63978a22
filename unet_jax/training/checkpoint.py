"""Saves and restores checkpoints: state, place in the data, and record.

Orbax writes in the background and names a checkpoint only when it is whole. The scores
are kept here and not as Orbax's metrics: there a NaN may be the best, and a checkpoint
without a score is never deleted. SHA-256 sums are written last and checked first.
"""

import json
import math
import pathlib
import shutil
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
from orbax.checkpoint.options import MultiprocessingOptions

from unet_jax.errors import InputError, RunError
from unet_jax.hosts import agree
from unet_jax.hosts.lost import is_lost_peer
from unet_jax.training.devices import local_copy
from unet_jax.training.literal_path import LiteralPath
from unet_jax.training.manifest import (
    RUN_FILE,
    check_sums,
    damaged,
    shortened,
    write_sums,
)
from unet_jax.training.named_arrays import (
    check_fit,
    check_same_bits,
    known_fields,
)
from unet_jax.training.orbax_settings import (
    KeepLatestAndBest,
    best_of,
    by_itself,
    drop_noise,
)

_SPARE_BYTES = 2**20
"""Space on the disk for the files beside the arrays."""


class Checkpoints:
    """The checkpoints of one run: the three latest and the best.

    The best is the last with the highest score. A score that is None or not finite is
    never the best.

    Several processes that share a folder write one checkpoint together. If each has a
    folder of its own (`agree.keep_own_folders`), only the first one writes, and all
    read by themselves.

    Args:
        directory: folder of all checkpoints; it is made if it is missing.
        read_only: whether to leave the folder as it is: a run may be writing its
            unfinished checkpoints now.

    Raises:
        InputError: a score cannot be read.
    """

    def __init__(
        self, directory: str | pathlib.Path, *, read_only: bool = False
    ) -> None:
        """Read the scores of the checkpoints."""
        drop_noise()
        # Orbax takes absolute paths only.
        self._directory = pathlib.Path(directory).absolute()
        self._scores: dict[int, float | None] = {}
        self._saving: int | None = None
        self._alone = agree.folders_are_own()
        together = by_itself() if self._alone else MultiprocessingOptions()
        if self._alone and not read_only:
            self._directory.mkdir(parents=True, exist_ok=True)
        self._manager = ocp.CheckpointManager(
            LiteralPath(self._directory),
            options=ocp.CheckpointManagerOptions(
                create=not read_only and not self._alone,
                multiprocessing_options=together,
                cleanup_tmp_directories=not read_only,
                preservation_policy=KeepLatestAndBest(self._scores),
                async_options=ocp.AsyncOptions(post_finalization_callback=self._seal),
            ),
            item_handlers={
                "state": ocp.StandardCheckpointHandler(
                    multiprocessing_options=together
                ),
                "run": ocp.JsonCheckpointHandler(
                    filename=RUN_FILE, multiprocessing_options=together
                ),
            },
        )
        for step in self._manager.all_steps():
            self._scores[step] = self._read_score(step)

    def save(
        self,
        step: int,
        state: Any,
        *,
        iterator_state: dict[str, Any],
        record: dict[str, Any],
        score: float | None,
    ) -> bool:
        """Start to save; the arguments may change or be donated after it returns.

        Waits for the previous save, and raises its error.

        Args:
            step: number of updates done.
            state: pytree of arrays.
            iterator_state: state of the data iterator after the batch of this step.
            record: JSON-able record of the best score, the pace and the logs.
            score: validation score, larger is better; None if not validated.

        Returns:
            False if nothing is written: the step is saved already, or another process
            saves it.
        """
        if step in self._manager.all_steps() or (self._alone and not agree.is_first()):
            return False
        if self._alone:  # each process would write its part of global arrays
            state = jax.tree.map(np.asarray, local_copy(state))
        elif jax.process_count() == 1:
            state = jax.tree.map(_one_copy, state)
        self.wait()
        self._saving = step
        self._check_space(state)
        finite = score is not None and math.isfinite(score)
        self._scores[step] = score if finite else None
        run = {
            "iterator_state": iterator_state,
            "record": record,
            "score": self._scores[step],
        }
        # Orbax writes the text later, in another thread; the dict may change by then.
        run = json.loads(json.dumps(run))
        try:
            return self._manager.save(
                step,
                args=ocp.args.Composite(
                    state=ocp.args.StandardSave(state), run=ocp.args.JsonSave(run)
                ),
                force=True,
            )
        except Exception as error:
            raise self._unwritten(error) from error

    def restore(
        self, step: int | None, template: Any
    ) -> tuple[Any, dict[str, Any], dict[str, Any]]:
        """Read a checkpoint, and place each array as the template's is placed.

        Args:
            step: number of the step; None for the latest.
            template: pytree of arrays (or ``ShapeDtypeStruct`` with a sharding) with
                the structure, shapes and dtypes of the saved state. A field of a
                dataclass that has a default, and that the version that saved the state
                did not know, gets its default.

        Returns:
            State, iterator state and record, as given to ``save``.

        Raises:
            InputError: the checkpoint is missing or damaged, or does not fit.
        """
        step = self._find(step)
        saved = self._shapes(step)
        wanted = known_fields(template, saved)
        check_fit(self.path(step), saved=saved, template=wanted)
        restored = self._read(
            step,
            state=ocp.args.StandardRestore(
                jax.tree.map(_empty if self._alone else _abstract, wanted)
            ),
            run=ocp.args.JsonRestore(),
        )
        state, run = restored.state, restored.run
        if self._alone:
            state = jax.tree.map(_placed, state, wanted)
        if wanted is not template:
            state = type(template)(**state)
        return state, run["iterator_state"], run["record"]

    def restore_raw(self, step: int | None) -> dict[str, Any]:
        """Read the arrays of a state, of the latest step for None, without its classes.

        Returns:
            Nested dicts (and lists for tuples) of NumPy arrays, by attribute name:
            ``params``, ``batch_stats``, ``ema_params``, ...

        Raises:
            InputError: the checkpoint is missing or damaged.
        """
        step = self._find(step)
        template = jax.tree.map(_empty, self._shapes(step))
        return self._read(step, state=ocp.args.StandardRestore(template)).state

    def check_readable(self, step: int, state: Any) -> None:
        """Read a checkpoint of this start back, and compare it with what was saved.

        Where only the first process writes, only that one reads.

        Args:
            state: pytree of arrays that was given to ``save``.

        Raises:
            RunError: it cannot be read, or an array differs.
        """
        if self._alone and not agree.is_first():
            return
        try:
            path = self.path(step)
            check_same_bits(path, self.restore_raw(step), expected=local_copy(state))
        except InputError as error:
            raise RunError(
                f"{str(error).partition(';')[0]}: it was written a moment ago, so no "
                "checkpoint of this run could be used; name a --workdir on another disk"
            ) from error

    def path(self, step: int) -> pathlib.Path:
        """Return the folder of one checkpoint."""
        return self._directory / str(step)

    def latest_step(self) -> int | None:
        """Return the last saved step; None without a checkpoint."""
        return self._manager.latest_step()

    def best_step(self) -> int | None:
        """Return the last step with the highest score; None without a score."""
        return best_of(self._manager.all_steps(), self._scores)

    def score(self, step: int | None) -> float | None:
        """Return the score of a step; None if it has none."""
        return None if step is None else self._scores.get(step)

    def wait(self) -> None:
        """Wait until the last save is on the disk.

        Raises:
            RunError: the checkpoint could not be written.
        """
        try:
            self._manager.wait_until_finished()
        except Exception as error:
            raise self._unwritten(error) from error

    def close(self) -> None:
        """Wait for the last save and end the threads."""
        self._manager.close()

    def __enter__(self) -> "Checkpoints":
        """Return itself."""
        return self

    def __exit__(self, kind: object, *exception: object) -> None:
        """Close; the error of a failed save must not hide the error of the block."""
        try:
            self.close()
        except Exception as error:
            if kind is None:
                raise self._unwritten(error) from error

    def _check_space(self, state: Any) -> None:
        """Refuse a save that does not fit on the disk, before half of it is written."""
        needed = sum(leaf.nbytes for leaf in jax.tree.leaves(state))
        try:
            free = shutil.disk_usage(self._directory).free
        except OSError as error:
            raise self._unwritten(error) from None
        if free < needed + _SPARE_BYTES:
            raise self._unwritten(
                OSError(
                    f"it needs {-(-needed >> 20)} MiB and {free >> 20} MiB are free"
                )
            )

    def _unwritten(self, error: Exception) -> Exception:
        """Make the error of a checkpoint that could not be written."""
        if is_lost_peer(error):
            return error  # the disk is not the problem
        reason = shortened(error)
        return RunError(
            f"{self._directory / str(self._saving)}: the checkpoint cannot be written "
            f"({reason}); fix the disk, then start the same command again"
        )

    def _find(self, step: int | None) -> int:
        """Return the step to read, once it is on the disk."""
        self.wait()
        steps = list(self._manager.all_steps())
        found = self.latest_step() if step is None else step
        if found is None or found not in steps:
            wanted = (
                "no checkpoint" if step is None else f"no checkpoint of step {step}"
            )
            raise InputError(
                f"{self._directory}: {wanted}; found {steps or 'none'}; train first or "
                "name the workdir of a run that has one"
            )
        check_sums(self.path(found))
        return found

    def _seal(self) -> None:
        """Write the sums, in Orbax's thread, before it names the checkpoint."""
        # Until then it is written as <step>.<some suffix>.
        path = next(self._directory.glob(f"{self._saving}.*"))
        write_sums(path)

    def _read_score(self, step: int) -> float | None:
        """Read the score of one checkpoint."""
        path = self.path(step) / "run" / RUN_FILE
        try:
            return json.loads(path.read_text())["score"]
        except FileNotFoundError:
            # A run was killed while it removed this checkpoint, which was neither
            # among the latest nor the best.
            return None
        except Exception as error:
            raise damaged(path, error) from error

    def _shapes(self, step: int) -> Any:
        """Return the saved tree with shapes and dtypes instead of arrays."""
        try:
            return self._manager.item_metadata(step)["state"].tree
        except Exception as error:
            raise damaged(self.path(step), error) from error

    def _read(self, step: int, **args: Any) -> Any:
        """Read some items of one checkpoint."""
        try:
            return self._manager.restore(step, args=ocp.args.Composite(**args))
        except Exception as error:
            if is_lost_peer(error):
                raise
            raise damaged(self.path(step), error) from error


def _abstract(leaf: Any) -> Any:
    """Describe how a leaf is restored."""
    if isinstance(leaf, np.ndarray):
        return leaf
    return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=leaf.sharding)


def _one_copy(leaf: Any) -> Any:
    """Return one device's copy of a replicated array.

    Of several copies Orbax writes a piece each: it compiles a slice for every shape.
    """
    if isinstance(leaf, jax.Array) and leaf.is_fully_replicated:
        return leaf.addressable_data(0)
    return leaf


def _empty(leaf: Any) -> np.ndarray:
    """Allocate a leaf on the host."""
    return np.empty(leaf.shape, leaf.dtype)


def _placed(array: np.ndarray, leaf: Any) -> jax.Array:
    """Place an array that every process has read as the template's leaf."""
    return jax.make_array_from_callback(
        array.shape, leaf.sharding, lambda index: array[index]
    )
