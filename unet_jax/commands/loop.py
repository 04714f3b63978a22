"""The one training loop: step, validate, save, and stop when asked."""

import contextlib
import dataclasses
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NoReturn

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from unet_jax.data.pipeline import TrainIterator
from unet_jax.errors import RunError, Stopped
from unet_jax.experiment.validation import Rows, score_of, updated_best, validation_line
from unet_jax.report.progress import Progress
from unet_jax.report.writer import MetricWriter, NoWriter
from unet_jax.runtime.lease import Lease, NoLease
from unet_jax.runtime.stop import Stop
from unet_jax.runtime.watchdog import Watchdog
from unet_jax.training.memory import explained
from unet_jax.training.nonfinite import NonfiniteSteps, reading_data
from unet_jax.training.optimizer import Schedule
from unet_jax.training.pace import Pace
from unet_jax.training.resume import RunCheckpoints
from unet_jax.training.state import TrainState, distribute, local_copy, replicate
from unet_jax.training.step import STOP, shard_batch
from unet_jax.training.window import MetricWindow, Row

_BEST = ("score", "step", "evaluations_since", "stopped")
"""Keys of the record that `updated_best` gives."""


@dataclasses.dataclass(kw_only=True)
class Loop:
    """From one step to the last, with all that stands around a step.

    Attributes:
        config: the resolved config.
        step_function: the compiled, mapped step.
        schedule: the learning rate of each step.
        batches: of this process.
        validate: ``variables -> scores of each split``.
        checkpoints: of the run.
        pace: how long it goes on.
        nonfinite: judges steps that the device masked.
        writer: of metrics.jsonl.
        progress: the line that the user sees.
        watchdog: of a step that does not come back.
        lease: of the workdir.
        stop: whether the run is asked to stop.
        trace: called before each step, for the profiler.
    """

    config: ConfigDict
    step_function: Callable[..., Any]
    schedule: Schedule
    batches: TrainIterator
    validate: Callable[[dict[str, Any]], Rows]
    checkpoints: RunCheckpoints
    pace: Pace
    nonfinite: NonfiniteSteps
    writer: MetricWriter | NoWriter
    progress: Progress
    watchdog: Watchdog
    lease: Lease | NoLease
    stop: Stop
    trace: Callable[[int], None]
    _votes: deque[jax.Array] = dataclasses.field(default_factory=deque)
    _stopping: bool = False

    def run(
        self, state: TrainState, *, step: int, record: Mapping[str, Any]
    ) -> int | None:
        """Train to the end.

        Args:
            state: on all local devices.
            step: updates done.
            record: of the checkpoint that the state comes from.

        Returns:
            The step of the best checkpoint, None without a score.

        Raises:
            Stopped: the run was asked to stop; where it stands is saved.
        """
        best = {key: record[key] for key in _BEST}
        window = MetricWindow(
            self.config.train.batch_size, self.nonfinite, rows=record.get("window")
        )
        due, last = bool(record.get("evaluation_due")), self.pace.is_over
        self.pace.ready()
        with self.stop.saving():
            while True:
                if due:
                    best = self._validate(state, step, best)
                    window.restart_clock()
                    if last or best["stopped"]:
                        with self._watching_save(step):
                            self.checkpoints.wait()
                        return best["step"]
                if self._is_to_stop(step):
                    with self.watchdog.watching(f"step {step}"):
                        rows = window.rows(step, last_good=self.checkpoints.last_good)
                    self._save_and_leave(state, step, best, rows, due=False)
                step += 1
                self.trace(step)
                # To hand a step over takes no time: it is waited for where it is read.
                with self.watchdog.watching(f"step {step}"):
                    state = self._step(state, step, window)
                    due, last = self.pace.after(step)
                    if due or step % self.config.log.every_steps == 0:
                        window.write(
                            step, self.writer, last_good=self.checkpoints.last_good
                        )
                self.progress.update(
                    step, loss=window.last_loss, total=self.pace.total_steps
                )
                if due and self._is_to_stop(step):
                    self._save_and_leave(state, step, best, [], due=True)

    def _step(self, state: TrainState, step: int, window: MetricWindow) -> TrainState:
        """Make one update."""
        devices = jax.local_device_count()
        with reading_data(step, self.checkpoints.last_good):
            part = shard_batch(next(self.batches), devices)
        if jax.process_count() > 1:
            part[STOP] = np.full(devices, self.stop.reason is not None, np.int32)
        rate = self.schedule(self.pace.place(step))
        state, metrics = self.step_function(
            dataclasses.replace(state, learning_rate=replicate(jnp.float32(rate))),
            distribute(part),
        )
        if jax.process_count() > 1:
            self._votes.append(metrics.pop(STOP))
        window.add(metrics, learning_rate=rate)
        return state

    def _is_to_stop(self, step: int) -> bool:
        """Whether the run ends after this step: the same in every process.

        Votes are read two steps late, when they are there: nothing waits for them.
        """
        if jax.process_count() == 1:
            return self.stop.reason is not None
        with self.watchdog.watching(f"step {step}"):
            while len(self._votes) > 2:
                self._stopping = self._stopping or int(self._votes.popleft()) > 0
        return self._stopping

    def _validate(
        self, state: TrainState, step: int, best: dict[str, Any]
    ) -> dict[str, Any]:
        """Validate after a step, save, and return the record of the best."""
        with self.watchdog.watching(f"step {step}"):
            jax.block_until_ready(state)  # steps under way are no validation
        paused = time.monotonic()
        try:
            with self._validating(step):
                rows = self.validate(local_copy(state.eval_variables))
        except Stopped:
            self._save_and_leave(state, step, best, [], due=True)
        for split, scores in rows.items():
            self.writer.write(step, split, scores)
        score = score_of(rows)
        best = updated_best(best, step, score, self.config)
        with self._watching_save(step):
            self.lease.check()
            self.checkpoints.save(
                step,
                state,
                place=self.batches.get_state(),
                record=self._record(best),
                score=score,
            )
        self.pace.validated(time.monotonic() - paused)
        self.progress.paused(time.monotonic() - paused)
        self.progress.update(step, score=score)
        self.progress.write(validation_line(step, rows, best))
        return best

    def _watching_save(self, step: int) -> contextlib.AbstractContextManager[None]:
        """Watch a save, and the end of the one before it: a disk may hang."""
        return self.watchdog.watching(f"the checkpoint of step {step}")

    @contextlib.contextmanager
    def _validating(self, step: int) -> Iterator[None]:
        """Say what is safe where a case of validation, or memory for it, is gone."""
        line = (
            f"step {step}: validation ran out of memory; lower eval.window_batch, "
            f"which is {self.config.eval.window_batch}, or train.patch_size"
        )
        last_good = self.checkpoints.last_good
        with (
            reading_data(step, last_good),
            explained(lambda _: f"{line}; {last_good()}", RunError),
        ):
            yield

    def _record(self, best: dict[str, Any]) -> dict[str, Any]:
        """What a restart needs to know beside the arrays."""
        self.writer.flush()  # what a checkpoint counts on is on the disk before it
        return {
            **best,
            **self.pace.record(),
            **self.nonfinite.record(),
            "metrics_bytes": self.writer.size(),
        }

    def _save_and_leave(
        self,
        state: TrainState,
        step: int,
        best: dict[str, Any],
        rows: list[Row],
        *,
        due: bool,
    ) -> NoReturn:
        """Save where the run stands, with a validation that is due, and leave."""
        if step:
            record = {**self._record(best), "window": rows, "evaluation_due": due}
            with self._watching_save(step):
                self.lease.check()
                self.checkpoints.wait()
                if step != self.checkpoints.latest_step():
                    self.checkpoints.save_interrupted(
                        step, state, place=self.batches.get_state(), record=record
                    )
        saved = f"step {step} is saved" if step else "no step was done"
        reason = self.stop.reason or "a signal to another process"
        raise Stopped(reason, code=self.stop.code, saved=saved) from None
