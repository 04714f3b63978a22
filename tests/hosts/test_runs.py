"""Runs of several processes: stopped together, resumed exactly, scored in parts."""

import json
import pathlib
import re
import shutil
import signal
import time

import pytest

from tests.hosts.together import (
    assert_equal_runs,
    ended,
    make_data,
    start,
    state,
    train,
    wait_for,
)

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> pathlib.Path:
    """Folder with the data of the runs."""
    root = tmp_path_factory.mktemp("hosts")
    make_data(root)
    return root


_SLOW = 'before("unet_jax.experiment.run.compile_step", lambda: time.sleep(20))'
_STEPS_SLOWLY = 'before("unet_jax.commands.train.shard_batch", lambda: time.sleep(0.1))'
_READS_SLOWLY = """
import sys
from unet_jax.experiment import validation
read_case = validation.read_case
def slowly(*args):
    print("reading", file=sys.stderr, flush=True)
    time.sleep(3)
    return read_case(*args)
validation.read_case = slowly
"""
_SCORE = "unet_jax.commands.train.score_run"
_DIES = f'before("{_SCORE}", lambda: os.kill(os.getpid(), signal.SIGKILL))'


_PATIENT = "--config.train.step_timeout=200"
"""For runs of which no process dies: a busy machine is no problem."""


@pytest.fixture(scope="module")
def pair(folder) -> pathlib.Path:
    """Workdir of an uninterrupted run of two processes."""
    workdir = folder / "pair"
    codes, log = ended(train(folder, [workdir] * 2, _PATIENT, devices=2))
    assert codes == [0, 0], log
    return workdir


def test_one_process_alone_writes_and_every_case_is_scored_once(pair, folder):
    rows = json.loads((pair / "test_metrics.json").read_text())["per_case"]
    assert [row["id"] for row in rows] == [f"c{number}" for number in range(7, 12)]
    assert len(list((pair / "predictions").iterdir())) == 5
    lines = (pair / "metrics.jsonl").read_text().splitlines()
    steps = [(json.loads(line)["step"], json.loads(line)["split"]) for line in lines]
    assert steps == sorted(steps, key=lambda entry: entry[0])
    assert len(steps) == 12 + 2 * 4  # a line is written at each validation too
    other = (folder / "pair.2.1.log").read_text()
    assert "Dice" not in other
    assert not (pair / "lease.json").exists()


@pytest.mark.parametrize("number", [1, 4])
def test_a_checkpoint_of_two_processes_is_scored_and_resumed_by_one_and_by_four(
    pair, folder, number, command_line
):
    workdir = folder / f"by{number}"
    shutil.copytree(pair, workdir)
    (workdir / "test_metrics.json").unlink()
    if number == 1:
        answer = command_line("--mode=evaluate", f"--workdir={workdir}")
        codes, log = [answer.code], answer.stderr
    else:
        codes, log = ended(start(folder, [workdir] * number, "--mode=evaluate"))
    assert codes == [0] * number, log
    expected = (pair / "test_metrics.json").read_bytes()
    assert (workdir / "test_metrics.json").read_bytes() == expected

    more = "--config.train.steps=42"
    codes, log = ended(train(folder, [workdir] * number, _PATIENT, more))
    assert codes == [0] * number, log
    assert "resumed at step 40 of 42" in log
    assert int(state(workdir)["step"]) == 42


@pytest.mark.soak
def test_a_process_that_compiles_for_long_is_waited_for(folder):
    workdir = folder / "slow"
    codes, log = ended(
        train(folder, [workdir] * 2, "--config.train.steps=10", last=_SLOW)
    )
    assert codes == [0, 0], log


def test_a_signal_is_heard_before_the_others_are_there(folder):
    workdir = folder / "early"
    processes = train(folder, [workdir] * 2)
    processes[1].kill()
    _wait_until_heard(processes[0], signal.SIGUSR1)
    processes[0].send_signal(signal.SIGUSR1)
    codes, log = ended(processes)
    assert codes == [42, -signal.SIGKILL], log
    assert "stopped by SIGUSR1: nothing new to save" in log
    assert not workdir.exists()


def _wait_until_heard(process, number):
    """Wait until a process has a handler for a signal."""
    end = time.monotonic() + 100
    while True:
        status = pathlib.Path(f"/proc/{process.pid}/status").read_text()
        caught = re.search(r"SigCgt:\s*(\w+)", status)
        if caught and int(caught[1], 16) >> (number - 1) & 1:
            return
        assert time.monotonic() < end
        time.sleep(0.05)


def test_a_pair_that_is_stopped_cut_off_and_killed_ends_as_if_left_alone(pair, folder):
    workdir = folder / "interrupted"

    def started(last=None):
        return train(folder, [workdir] * 2, devices=2, last=last)

    # A signal to one process stops both at the same step.
    processes = started(_STEPS_SLOWLY)
    wait_for(workdir / "checkpoints" / "10", processes)
    processes[1].send_signal(signal.SIGTERM)
    codes, log = ended(processes)
    assert codes == [42, 42], log
    saved = {line for line in log.splitlines() if "is saved" in line}
    assert len({line.partition(": step")[2] for line in saved}) == 1, log

    # A signal in a validation cuts it off in both.
    processes = started(_READS_SLOWLY)
    _wait_until_it_says("reading", processes[1])
    processes[1].send_signal(signal.SIGTERM)
    codes, log = ended(processes)
    assert codes == [42, 42], log
    assert log.count("step 20 is saved") == 2
    assert (workdir / "interrupted" / "20").is_dir()  # without scores
    assert not (workdir / "checkpoints" / "20").exists()

    # One is killed while they train: the other one ends by itself.
    processes = started(_STEPS_SLOWLY)
    wait_for(workdir / "checkpoints" / "30", processes)
    began = time.monotonic()
    processes[1].kill()
    codes, log = ended(processes)
    assert codes == [42, -signal.SIGKILL], log
    assert time.monotonic() - began < 15 + 15
    assert "another process" in log

    # One is killed while the test split is scored.
    codes, log = ended(started(_DIES))
    assert codes == [42, -signal.SIGKILL], log
    assert "another process is gone" in log
    assert "Traceback" not in log

    codes, log = ended(started())
    assert codes == [0, 0], log
    assert_equal_runs(pair, workdir)


def _wait_until_it_says(word, process):
    """Wait until the log of a process has a word."""
    end = time.monotonic() + 900
    while word not in process.log.read_text():
        assert time.monotonic() < end
        assert process.poll() is None
        time.sleep(0.05)


def test_different_folders_under_one_name_are_refused(folder):
    workdirs = [folder / "here", folder / "there"]
    codes, log = ended(train(folder, workdirs))
    assert codes == [2, 2], log
    assert "process 1 does not see the folder of process 0" in log
    assert not (folder / "here" / "config.json").exists()
