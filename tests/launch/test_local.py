"""launch/local.sh: one process as it is, several that find each other; the signals."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest

from tests.launch.conftest import ROOT

SCRIPT = ROOT / "launch" / "local.sh"


def _start(commands, *flags, **environment):
    """Start the script in a session of its own."""
    return subprocess.Popen(
        [str(SCRIPT), *flags],
        env=commands.environment | environment,
        start_new_session=True,
    )


def _wait_until_ready(commands, processes):
    for process in range(processes):
        path = commands.records / f"program.{process}.ready"
        for _ in range(1500):
            if path.exists():
                break
            time.sleep(0.02)
        else:
            pytest.fail(f"process {process} did not start")


@pytest.mark.parametrize("code", [0, 1, 2, 42, 130])
def test_one_process_gets_the_flags_and_gives_its_code(commands, code):
    flags = ["--config=configs/brain.py", "--config.data.label_map=((1, 2), 1)"]
    assert _start(commands, *flags, CODES=str(code)).wait(30) == code
    assert commands.starts(0) == [["0", "", "", "-m", "unet_jax.main", *flags]]


def test_one_process_takes_the_place_of_the_script(commands):
    job = _start(commands, CODES="notice:42")
    _wait_until_ready(commands, 1)
    job.send_signal(signal.SIGTERM)
    assert job.wait(30) == 42


def test_several_processes_are_told_who_they_are(commands):
    assert _start(commands, "--a=b c", PROCESSES="3", CODES="0").wait(30) == 0
    for process in range(3):
        assert commands.starts(process) == [
            [
                *(str(process), "", str(process), "-m", "unet_jax.main", "--a=b c"),
                "--coordinator=localhost:29400",
                "--num_processes=3",
                f"--process_id={process}",
            ]
        ]


def test_the_port_can_be_chosen(commands):
    _start(commands, PROCESSES="2", CODES="0", PORT="31000").wait(30)
    assert "--coordinator=localhost:31000" in commands.starts(1)[0]


@pytest.mark.parametrize(
    ("codes", "highest"),
    [((42, 0, 1), 42), ((0, 1, 0), 1), ((1, 42, "abort"), 134), ((0, 0, 2), 2)],
)
def test_the_highest_code_is_that_of_the_run(commands, codes, highest):
    each = {f"CODE_{process}": str(code) for process, code in enumerate(codes)}
    assert _start(commands, PROCESSES="3", CODES="0", **each).wait(30) == highest


@pytest.mark.parametrize(("name", "code"), [("TERM", 42), ("USR1", 42), ("INT", 130)])
def test_a_signal_reaches_every_process_once(commands, name, code):
    job = _start(commands, PROCESSES="3", CODES="notice:42")
    _wait_until_ready(commands, 3)
    # As a terminal does on Ctrl-C: to the foreground group, which is the script's.
    os.killpg(job.pid, signal.Signals[f"SIG{name}"])
    assert job.wait(30) == code
    for process in range(3):
        assert commands.record(f"program.{process}.signals") == [f"heard {name}"]


@pytest.mark.slow
def test_a_real_run_from_the_command_to_its_scores(tmp_path):
    command = [
        *(str(SCRIPT), "--config=configs/smoke.py", f"--workdir={tmp_path / 'run'}"),
        "--config.train.steps=2",
        "--config.optimizer.warmup_steps=1",
        "--config.eval.every_steps=2",
        "--config.eval.train_images=2",
        "--config.eval.overlap=0.0",
        "--config.log.overlays=0",
        "--config.augment.enabled=False",
        f"--config.data.data_dir={tmp_path / 'data'}",
    ]
    environment = os.environ | {"PYTHON": sys.executable, "JAX_NUM_CPU_DEVICES": "1"}
    answer = subprocess.run(
        command,
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=900,
        check=False,
    )
    assert answer.returncode == 0, answer.stderr
    assert f"scores: {tmp_path / 'run'}" in answer.stdout.splitlines()[-2]
    scores = json.loads((tmp_path / "run" / "test_metrics.json").read_text())
    assert 0 <= scores["mean"]["dice"] <= 1
