"""Runs of several processes: stopped together, resumed exactly, scored by shares."""

import json
import os
import pathlib
import re
import shutil
import signal
import subprocess
import sys
import time

import jax
import numpy as np
import pytest
from PIL import Image

from tests.hosts.test_processes import free_port
from unet_jax.training.checkpoint import Checkpoints

ROOT = pathlib.Path(__file__).parent.parent.parent
pytestmark = pytest.mark.slow

FLAGS = (
    "--config=configs/folder.py",
    "--config.data.class_names=('background','disc')",
    "--config.model.name=unet_tiny",
    "--config.model.features=(4,8)",
    "--config.train.patch_size=(32,32)",
    "--config.train.batch_size=4",
    "--config.train.steps=40",
    "--config.optimizer.warmup_steps=5",
    "--config.augment.enabled=False",
    "--config.eval.every_steps=10",
    "--config.log.every_steps=4",
    "--config.log.overlays=1",
    "--config.train.step_timeout=15",
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> pathlib.Path:
    """Twelve pictures of a disc, five of them for the test: no multiple of 2 or 4."""
    root = tmp_path_factory.mktemp("hosts")
    rng = np.random.default_rng(0)
    for name in ("images", "masks"):
        (root / "data" / name).mkdir(parents=True)
    y, x = np.mgrid[:40, :44]
    for number in range(12):
        centre, radius = rng.uniform(12, 28, 2), rng.uniform(5, 11)
        disc = np.hypot(y - centre[0], x - centre[1]) < radius
        image = 90 + 60 * disc + rng.normal(0, 25, disc.shape)
        pixels = image.clip(0, 255).astype(np.uint8)
        Image.fromarray(pixels).save(root / f"data/images/c{number}.png")
        Image.fromarray(disc.astype(np.uint8)).save(root / f"data/masks/c{number}.png")
    ids = [f"c{number}" for number in range(12)]
    splits = {"train": ids[:4], "validation": ids[4:7], "test": ids[7:]}
    (root / "splits.json").write_text(json.dumps(splits))
    return root


_PROGRAM = """
import os, runpy, signal, time
from unet_jax import train
def before(name, change):
    function = getattr(train, name)
    setattr(train, name, lambda *args, **how: [change(), function(*args, **how)][1])
{change}
runpy.run_module("unet_jax.main", run_name="__main__", alter_sys=True)
"""
"""The program, on a host where something happens before it calls a function."""

_SLOW = 'before("compile_step", lambda: time.sleep(20))'
_READS_SLOWLY = """
import sys
from unet_jax import validation
read_case = validation.read_case
def slowly(*args):
    print("reading", file=sys.stderr, flush=True)
    time.sleep(3)
    return read_case(*args)
validation.read_case = slowly
"""
_DIES = 'before("score_run", lambda: os.kill(os.getpid(), signal.SIGKILL))'


def _start(folder, workdirs, *extra, devices=1, last=None):
    """Start one process a workdir; ``last`` is what happens on the last host."""
    port = free_port()
    together = []
    for place, workdir in enumerate(workdirs):
        program = ["-m", "unet_jax.main"]
        if last is not None and place == len(workdirs) - 1:
            program = ["-c", _PROGRAM.format(change=last)]
        flags = [
            f"--coordinator=localhost:{port}",
            f"--num_processes={len(workdirs)}",
            f"--process_id={place}",
        ]
        log = folder / f"{workdir.name}.{len(workdirs)}.{place}.log"
        with log.open("w") as stream:
            process = subprocess.Popen(
                [
                    sys.executable,
                    *program,
                    *extra,
                    f"--workdir={workdir}",
                    *(flags if len(workdirs) > 1 else []),
                ],
                cwd=ROOT,
                env={**os.environ, "JAX_NUM_CPU_DEVICES": str(devices)},
                stdout=stream,
                stderr=subprocess.STDOUT,
            )
        process.log = log
        together.append(process)
    return together


def _train(folder, workdirs, *extra, devices=1, last=None):
    """Start a training in so many processes."""
    return _start(
        folder,
        workdirs,
        *FLAGS,
        f"--config.data.path={folder / 'data'}",
        f"--config.data.splits={folder / 'splits.json'}",
        f"--config.compilation_cache_dir={folder / 'compiled'}",
        *extra,
        devices=devices,
        last=last,
    )


def _ended(processes) -> tuple[list[int], str]:
    codes = [process.wait(300) for process in processes]
    return codes, "\n".join(process.log.read_text() for process in processes)


def _wait_for(path, processes):
    end = time.monotonic() + 200
    while not path.exists():
        assert time.monotonic() < end
        assert all(process.poll() is None for process in processes), _ended(processes)
        time.sleep(0.02)


@pytest.fixture(scope="module")
def pair(folder) -> pathlib.Path:
    """Workdir of a run by two processes that was left alone."""
    workdir = folder / "pair"
    codes, log = _ended(_train(folder, [workdir] * 2, devices=2))
    assert codes == [0, 0], log
    return workdir


def _state(workdir):
    with Checkpoints(workdir / "checkpoints", read_only=True) as checkpoints:
        return checkpoints.restore_raw(None)


def _assert_equal_runs(first, second):
    jax.tree.map(np.testing.assert_array_equal, _state(first), _state(second))
    for name in ("metrics.jsonl", "test_metrics.json"):
        assert (first / name).read_bytes() == (second / name).read_bytes(), name


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


def test_the_same_checkpoint_gives_the_same_bytes_from_1_2_and_4_processes(
    pair, folder
):
    expected = None
    for number in (1, 2, 4):
        workdir = folder / f"by{number}"
        shutil.copytree(pair, workdir)
        (workdir / "test_metrics.json").unlink()
        codes, log = _ended(_start(folder, [workdir] * number, "--mode=evaluate"))
        assert codes == [0] * number, log
        found = (workdir / "test_metrics.json").read_bytes()
        expected = expected or found
        assert found == expected, number


def test_one_of_two_is_killed_and_the_restarted_pair_ends_as_if_not(pair, folder):
    workdir = folder / "killed"
    processes = _train(folder, [workdir] * 2, devices=2)
    _wait_for(workdir / "checkpoints" / "20", processes)
    began = time.monotonic()
    processes[1].kill()
    codes, log = _ended(processes)
    if 0 not in codes:  # it was not quicker than the kill
        assert codes == [42, -signal.SIGKILL], log
        assert time.monotonic() - began < 15 + 15
        assert "another process" in log
    codes, log = _ended(_train(folder, [workdir] * 2, devices=2))
    assert codes == [0, 0], log
    _assert_equal_runs(pair, workdir)


def test_a_process_that_compiles_for_long_is_waited_for(folder):
    workdir = folder / "slow"
    codes, log = _ended(
        _train(folder, [workdir] * 2, "--config.train.steps=10", last=_SLOW)
    )
    assert codes == [0, 0], log


def test_one_is_killed_while_the_test_split_is_scored(pair, folder):
    workdir = folder / "scoring"
    codes, log = _ended(_train(folder, [workdir] * 2, devices=2, last=_DIES))
    assert codes == [42, -signal.SIGKILL], log
    assert "another process is gone" in log
    assert "Traceback" not in log
    codes, log = _ended(_train(folder, [workdir] * 2, devices=2))
    assert codes == [0, 0], log
    _assert_equal_runs(pair, workdir)


def test_a_signal_is_heard_before_the_others_are_there(folder):
    workdir = folder / "early"
    processes = _train(folder, [workdir] * 2)
    processes[1].kill()
    _wait_until_heard(processes[0], signal.SIGUSR1)
    processes[0].send_signal(signal.SIGUSR1)
    codes, log = _ended(processes)
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


def test_a_signal_to_one_stops_both_at_one_step(pair, folder):
    workdir = folder / "stopped"
    processes = _train(folder, [workdir] * 2, devices=2)
    _wait_for(workdir / "checkpoints" / "10", processes)
    processes[1].send_signal(signal.SIGTERM)
    codes, log = _ended(processes)
    if 0 not in codes:
        assert codes == [42, 42], log
        saved = {line for line in log.splitlines() if "is saved" in line}
        assert len({line.partition(": step")[2] for line in saved}) == 1, log
    codes, log = _ended(_train(folder, [workdir] * 2, devices=2))
    assert codes == [0, 0], log
    _assert_equal_runs(pair, workdir)


def test_a_signal_in_a_validation_cuts_it_off_in_both(pair, folder):
    workdir = folder / "cut"
    processes = _train(folder, [workdir] * 2, devices=2, last=_READS_SLOWLY)
    end = time.monotonic() + 200
    while "reading" not in processes[1].log.read_text():
        assert time.monotonic() < end
        assert processes[1].poll() is None
        time.sleep(0.05)
    processes[1].send_signal(signal.SIGTERM)
    codes, log = _ended(processes)
    assert codes == [42, 42], log
    assert log.count("step 10 is saved") == 2
    assert (workdir / "interrupted" / "10").is_dir()  # without scores
    assert not (workdir / "checkpoints" / "10").exists()
    codes, log = _ended(_train(folder, [workdir] * 2, devices=2))
    assert codes == [0, 0], log
    _assert_equal_runs(pair, workdir)


@pytest.mark.parametrize("number", [1, 4])
def test_a_checkpoint_of_two_processes_restores_in_one_and_in_four(
    pair, folder, number
):
    workdir = folder / f"restored{number}"
    shutil.copytree(pair, workdir)
    more = "--config.train.steps=42"
    codes, log = _ended(_train(folder, [workdir] * number, more))
    assert codes == [0] * number, log
    assert "resumed at step 40 of 42" in log
    assert int(_state(workdir)["step"]) == 42


def test_different_folders_under_one_name_are_refused(folder):
    workdirs = [folder / "here", folder / "there"]
    codes, log = _ended(_train(folder, workdirs))
    assert codes == [2, 2], log
    assert "process 1 does not see the folder of process 0" in log
    assert not (folder / "here" / "config.json").exists()
