"""A disk that fills up or vanishes under a run: one line, and nothing lost."""

import contextlib
import os
import pathlib
import re
import resource
import shutil
import signal
import subprocess
import sys
import time

import pytest

from unet_jax.training.checkpoint import Checkpoints

ROOT = pathlib.Path(__file__).parents[2]
pytestmark = pytest.mark.slow

FLAGS = (
    "--config=configs/smoke.py",
    "--config.model.options.features=(4,8)",
    "--config.train.patch_size=(32,32)",
    "--config.eval.every_steps=10",
    "--config.eval.train_images=2",
    "--config.eval.distance=False",
    "--config.eval.overlap=0.0",
    "--config.eval.window_batch=16",
    "--config.eval.metrics=('dice',)",
    "--config.log.every_steps=5",
    "--config.log.overlays=0",
    "--config.augment.enabled=False",
)


@pytest.fixture(scope="module")
def shared(tmp_path_factory) -> pathlib.Path:
    """Folder of the prepared data and of compiled programs."""
    return tmp_path_factory.mktemp("disks")


_LIMITED = """
import os, resource, sys
limit = int(sys.argv[1])
resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
os.execv(sys.argv[2], sys.argv[2:])
"""


_HUNG = """
import runpy, time
from unet_jax.training.resume import RunCheckpoints
from unet_jax.training.log import TrainingLog
{place} = lambda *_, **how: time.sleep(1000)
runpy.run_module("unet_jax.main", run_name="__main__", alter_sys=True)
"""
"""The program, where a disk or a device does not answer."""


def _start(
    shared, workdir, *extra, file_bytes=None, program=("-m", "unet_jax.main")
) -> subprocess.Popen[str]:
    """Start a run, allowed to write files up to a number of bytes."""
    return subprocess.Popen(
        [
            sys.executable,
            "-c",
            _LIMITED,
            str(resource.RLIM_INFINITY if file_bytes is None else file_bytes),
            sys.executable,
            *program,
            *FLAGS,
            f"--workdir={workdir}",
            f"--config.data.data_dir={shared / 'data'}",
            *extra,
        ],
        cwd=ROOT,
        # A folder of compiled programs that is set for jax goes before the config's.
        env={
            **os.environ,
            "JAX_NUM_CPU_DEVICES": "1",
            "JAX_COMPILATION_CACHE_DIR": str(shared / "compiled"),
        },
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def _ended(process) -> tuple[int, str]:
    try:
        output, _ = process.communicate(timeout=900)
    finally:
        process.kill()
    return process.returncode, output


def _last_message(output: str) -> str:
    assert "Traceback" not in output, output
    return output[output.rindex("unet_jax: error:") :].partition("\n")[0]


@pytest.fixture(scope="module")
def finished(shared) -> pathlib.Path:
    """Workdir of an uninterrupted run."""
    workdir = shared / "finished"
    code, output = _ended(_start(shared, workdir, "--config.train.steps=20"))
    assert code == 0, output
    return workdir


def test_a_full_disk_ends_the_run_in_one_line_and_the_last_checkpoint_is_whole(
    shared, finished
):
    workdir = shared / "full"
    shutil.copytree(finished, workdir)
    # No file may grow beyond what is there: the next checkpoint cannot be written.
    more = "--config.train.steps=40"
    code, output = _ended(_start(shared, workdir, more, file_bytes=9000))
    message = _last_message(output)
    assert code == 1
    assert "; fix the disk, then start the same command again; " in message
    assert message.endswith("; the last good checkpoint is step 20")
    with Checkpoints(workdir / "checkpoints", read_only=True) as checkpoints:
        assert checkpoints.latest_step() == 20
        checkpoints.restore_raw(20)
    code, output = _ended(_start(shared, workdir, more))
    assert code == 0, output
    assert "resumed at step 20 of 40" in output


@contextlib.contextmanager
def _read_only(*folders):
    """Let nobody write into folders, root neither."""
    if os.geteuid():
        shut, opened = ["chmod", "a-w"], ["chmod", "u+w"]
    else:
        shut, opened = ["chattr", "+i"], ["chattr", "-i"]
    if subprocess.run([*shut, *folders], check=False).returncode:
        pytest.skip("this file system has no attribute that stops root")
    try:
        yield
    finally:
        subprocess.run([*opened, *folders], check=True)


def test_a_workdir_that_becomes_read_only_ends_the_run_in_one_line(shared):
    workdir = shared / "read_only"
    process = _start(shared, workdir, "--config.train.steps=100000")
    checkpoints = workdir / "checkpoints"
    _wait_for(checkpoints / "10", process)
    with _read_only(checkpoints, workdir):
        code, output = _ended(process)
    assert code == 1, output
    message = _last_message(output)
    assert "cannot be written (PermissionError: " in message
    assert re.search(r"fix the disk, .*; the last good .* step \d+$", message)
    code, output = _ended(_start(shared, workdir, "--config.train.steps=20"))
    assert code == 0, output
    assert "resumed at step" in output


def _wait_for(path, process):
    """Wait until a run has made it."""
    end = time.monotonic() + 900
    while not path.exists():
        assert time.monotonic() < end
        assert process.poll() is None
        time.sleep(0.05)


def test_a_deleted_workdir_ends_the_run_in_one_line(shared):
    workdir = shared / "deleted"
    process = _start(shared, workdir, "--config.train.steps=100000")
    _wait_for(workdir / "checkpoints" / "10", process)
    shutil.rmtree(workdir, ignore_errors=True)
    code, output = _ended(process)
    assert code == 1, output
    assert str(workdir) in _last_message(output)


@pytest.mark.parametrize(
    ("place", "what"),
    [
        ("RunCheckpoints.save", "the checkpoint of step 10"),
        # Where a step is waited for.
        pytest.param("TrainingLog.pending", "step 5", marks=pytest.mark.soak),
    ],
)
def test_what_hangs_ends_the_run(shared, place, what):
    flags = ("--config.train.steps=20", "--config.train.step_timeout=40")
    program = ("-c", _HUNG.format(place=place))
    workdir = shared / f"hung_{place}"
    code, output = _ended(_start(shared, workdir, *flags, program=program))
    assert code == 42, output
    assert f"{what} has not come back for 40 s (train.step_timeout)" in output
    assert "in _train_steps" in output  # where the main thread stood


def test_a_second_run_on_the_workdir_is_refused(shared):
    workdir = shared / "twice"
    process = _start(shared, workdir, "--config.train.steps=100000")
    _wait_for(workdir / "lease.json", process)
    code, output = _ended(_start(shared, workdir, "--config.train.steps=100000"))
    assert code == 2
    assert f"another run is at work there (host {os.uname().nodename}" in output
    process.send_signal(signal.SIGTERM)
    code, output = _ended(process)
    assert code == 42, output


def test_a_compiled_program_that_does_not_load_is_replaced(shared, finished):
    compiled = shared / "compiled"
    halves = {path: path.stat().st_size // 2 for path in compiled.glob("*-cache")}
    assert halves
    for path, half in halves.items():
        path.write_bytes(path.read_bytes()[:half])
    workdir = shared / "again"
    code, output = _ended(_start(shared, workdir, "--config.train.steps=20"))
    assert code == 0, output
    assert "compilation cache" not in output
    results = [folder / "test_metrics.json" for folder in (finished, workdir)]
    assert results[0].read_bytes() == results[1].read_bytes()
    # They are gone or whole again: the next start finds nothing to complain of. Only
    # what takes long to compile is written.
    whole = [path.stat().st_size > halves[path] for path in halves if path.exists()]
    assert whole
    assert all(whole)
