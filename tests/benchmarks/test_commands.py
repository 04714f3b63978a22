"""Commands of a few lines are timed from outside."""

import os
import signal
import sys
import time

import pytest

from benchmarks.commands import seconds_to_end, seconds_until
from benchmarks.memory import peak_of

SCRIPT = """
import pathlib, subprocess, sys, time
log = pathlib.Path(sys.argv[1])
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
log.with_name("child").write_text(str(child.pid))
time.sleep(0.3)
with log.open("a", buffering=1) as stream:
    for step in range(int(sys.argv[2])):
        stream.write(f"step {step}\\n")
time.sleep(60 if len(sys.argv) == 3 else 0)
"""


def _is_alive(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    # A zombie has ended, even if no process has waited for it.
    with open(f"/proc/{pid}/stat") as status:
        return status.read().rsplit(")", 1)[1].split()[0] != "Z"


@pytest.fixture
def log(tmp_path):
    path = tmp_path / "log.txt"
    path.write_text("step 2\n")  # of an earlier run
    yield path
    child = tmp_path / "child"
    if child.exists() and _is_alive(int(child.read_text())):
        os.kill(int(child.read_text()), signal.SIGKILL)


def test_a_command_is_timed_until_its_line_and_ends_with_what_it_started(log):
    command = [sys.executable, "-c", SCRIPT, str(log), "3"]
    seconds = seconds_until(command, lambda line: line == "step 2", log=log)
    assert 0.3 <= seconds < 60
    child = int((log.parent / "child").read_text())
    patience = time.monotonic() + 10
    while _is_alive(child) and time.monotonic() < patience:
        time.sleep(0.02)
    assert not _is_alive(child)


def test_a_command_that_ends_too_early_is_an_error(log):
    command = [sys.executable, "-c", SCRIPT, str(log), "2", "ends"]
    with pytest.raises(RuntimeError, match="ended with code 0 before it got there"):
        seconds_until(command, lambda line: line == "step 2", log=log)


def test_a_line_that_comes_with_the_end_counts(log):
    command = [sys.executable, "-c", SCRIPT, str(log), "3", "ends"]
    assert seconds_until(command, lambda line: line == "step 2", log=log) >= 0.3


def test_a_command_to_its_end():
    assert seconds_to_end([sys.executable, "-c", "import time; time.sleep(0.2)"]) >= 0.2
    with pytest.raises(RuntimeError, match=r"ended with code 3, expected 0: .*no luck"):
        seconds_to_end(
            [
                sys.executable,
                "-c",
                "import sys; print('no luck', file=sys.stderr); sys.exit(3)",
            ]
        )


def test_the_peak_is_that_of_the_work():
    with peak_of() as first:
        bytearray(200 << 20)
    with peak_of() as second:
        bytearray(20 << 20)
    assert 190 <= first["added_memory_mib"] <= 260
    assert second["added_memory_mib"] <= 80
    assert first["peak_memory_mib"] - second["peak_memory_mib"] >= 100
