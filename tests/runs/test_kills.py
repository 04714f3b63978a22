"""A run that is killed again and again ends like an uninterrupted one."""

import contextlib
import dataclasses
import json
import os
import pathlib
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator

import jax
import numpy as np
import pytest

from unet_jax.training.checkpoint import Checkpoints

ROOT = pathlib.Path(__file__).parents[2]
EVERY, STEPS = 40, 240
PATIENCE = 1800.0
"""Seconds for one start to end by itself: the long test may run beside other work."""

FLAGS = (
    "--config=configs/smoke.py",
    "--config.model.options.features=(4,8)",
    "--config.train.patch_size=(32,32)",
    f"--config.train.steps={STEPS}",
    f"--config.eval.every_steps={EVERY}",
    "--config.eval.train_images=2",
    "--config.eval.distance=False",
    "--config.eval.overlap=0.0",
    "--config.eval.window_batch=16",
    "--config.log.every_steps=7",
    "--config.eval.metrics=('dice',)",
    "--config.log.overlays=0",
)


@dataclasses.dataclass
class Start:
    """One start of the command."""

    workdir: pathlib.Path
    process: subprocess.Popen[bytes]

    def has(self, pattern: str) -> bool:
        """Return whether this start has made the file or folder."""
        found = list(self.workdir.glob(pattern))
        return any(_mtime(path) >= self.wall for path in found)

    def last_line(self) -> dict[str, object]:
        """The newest line of metrics.jsonl."""
        try:
            text = (self.workdir / "metrics.jsonl").read_bytes().splitlines()[-1]
            return json.loads(text)
        except (OSError, ValueError, IndexError):
            return {}

    def __post_init__(self):
        self.wall = time.time() - 0.01


def _mtime(path):
    try:
        return path.stat().st_mtime
    except OSError:
        return 0.0


def _is_validating(start: Start) -> bool:
    """The last line is of a step that is validated, and its scores are not there."""
    line = start.last_line()
    due = bool(line) and line["step"] % EVERY == 0 and "dice" not in line
    return due and start.has("timing.jsonl")


PHASES: dict[str, tuple[Callable[[Start], bool], float]] = {
    # When it has begun, and the longest wait from then on.
    "start": (lambda start: True, 1.5),
    "data": (lambda start: start.has("lease.json"), 1.0),
    "compile": (lambda start: start.has("config.json"), 1.5),
    "step": (lambda start: start.has("timing.jsonl"), 0.3),
    "save": (lambda start: start.has("checkpoints/*tmp*"), 0.03),
    "evaluation": (_is_validating, 0.1),
    "scores": (lambda start: start.has("figures/curves.png"), 1.0),
}


def _command(shared, workdir, *extra) -> list[str]:
    return [
        sys.executable,
        "-m",
        "unet_jax.main",
        *FLAGS,
        f"--workdir={workdir}",
        f"--config.data.data_dir={workdir.parent / (workdir.name + '_data')}",
        *extra,
    ]


@contextlib.contextmanager
def _started(shared, workdir, log, *extra) -> Iterator[Start]:
    """Start the command; no process outlives the test."""
    process = subprocess.Popen(
        _command(shared, workdir, *extra),
        cwd=ROOT,
        env={**os.environ, "JAX_NUM_CPU_DEVICES": "1"},
        stdout=log,
        stderr=subprocess.STDOUT,
    )
    try:
        yield Start(workdir, process)
    finally:
        process.kill()
        process.wait()


def _code_left_alone(shared, workdir, log) -> int:
    """Start the command, and wait for its end."""
    with _started(shared, workdir, log) as start:
        return start.process.wait(PATIENCE)


def _kill_in(start: Start, phase: str, number: int, wait: float) -> bool:
    """Send the signal in a phase; return False if the run was quicker."""
    condition, longest = PHASES[phase]
    while start.process.poll() is None and not condition(start):
        time.sleep(0.002)
    end = time.monotonic() + wait * longest
    while start.process.poll() is None and time.monotonic() < end:
        time.sleep(0.002)
    if start.process.poll() is not None:
        return False
    start.process.send_signal(number)
    return True


def _run_with_kills(shared, workdir, plan, rng) -> Counter[str]:
    """Start again and again, each time killed in the next phase, and then let it end.

    A run that was too quick for a phase has ended: the rest of the plan is dropped.
    """
    done: Counter[str] = Counter()
    log_path = workdir.parent / f"{workdir.name}.log"
    with log_path.open("ab") as log:
        for phase in plan:
            number = rng.choice([signal.SIGKILL] * 3 + [signal.SIGTERM])
            with _started(shared, workdir, log) as start:
                killed = _kill_in(start, phase, number, rng.random())
                code = start.process.wait(PATIENCE)
            if not killed or code == 0:
                break
            # Before main has begun nothing listens to SIGTERM.
            early = -signal.SIGTERM if phase == "start" else 42
            assert code in (-signal.SIGKILL, 42, early), log_path.read_text()
            done[phase] += 1
        code = _code_left_alone(shared, workdir, log)
    assert code == 0, log_path.read_text()
    return done


def _assert_equal_runs(first, second):
    """Check that parameters, optimizer state, metrics and scores have equal bits."""
    states = []
    for workdir in (first, second):
        with Checkpoints(workdir / "checkpoints", read_only=True) as checkpoints:
            states.append(checkpoints.restore_raw(None))
    jax.tree.map(np.testing.assert_array_equal, *states)
    for name in ("metrics.jsonl", "test_metrics.json"):
        assert (first / name).read_bytes() == (second / name).read_bytes(), name
    for workdir in (first, second):
        kept = sorted(p.name for p in (workdir / "checkpoints").iterdir())
        assert kept == sorted(p.name for p in (first / "checkpoints").iterdir())
        assert not (workdir / "interrupted").exists()
        assert not (workdir / "damaged").exists()
        assert not (workdir / "lease.json").exists()


@pytest.fixture(scope="module")
def shared(tmp_path_factory) -> pathlib.Path:
    """Folder of the runs."""
    return tmp_path_factory.mktemp("kills")


@pytest.fixture(scope="module")
def left_alone(shared) -> pathlib.Path:
    """Workdir of an uninterrupted run."""
    workdir = shared / "alone"
    with (shared / "alone.log").open("wb") as log:
        code = _code_left_alone(shared, workdir, log)
    assert code == 0, (shared / "alone.log").read_text()
    return workdir


@pytest.mark.slow
def test_five_kills_change_nothing(shared, left_alone):
    plan = ["data", "compile", "step", "save", "evaluation"]
    done = _run_with_kills(shared, shared / "killed", plan, random.Random(0))
    assert done.total() == 5
    _assert_equal_runs(left_alone, shared / "killed")


@pytest.mark.slow
@pytest.mark.soak
def test_a_hundred_kills_change_nothing(shared, left_alone):
    rng, done, runs = random.Random(), Counter(), 0
    while done.total() < 100:
        runs += 1
        workdir = shared / f"killed{runs}"
        early = [phase for phase in PHASES if phase != "scores"]
        plan = [*rng.sample(early * 2, 2 * len(early)), "scores"]
        done += _run_with_kills(shared, workdir, plan, rng)
        _assert_equal_runs(left_alone, workdir)
        # What is known where the long test is itself cut off.
        print(f"run {runs} is equal after {done.total()} kills in all", flush=True)
    print(f"{done.total()} kills in {runs} runs, nothing lost: {dict(done)}")
    assert all(done[phase] >= 5 for phase in PHASES), done
