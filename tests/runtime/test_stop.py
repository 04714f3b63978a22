"""A signal stops a run wherever the main thread is, and saves what can be saved."""

import os
import signal
import subprocess
import sys
import threading
import time

import pytest

from unet_jax.errors import Stopped
from unet_jax.runtime.stop import Stop, StopSignals

_PROGRAM = """
import sys, time, threading
from unet_jax.runtime.stop import StopSignals

with StopSignals(hint="HINT", grace_seconds=float(sys.argv[2])) as stop:
    stop.on_exit(lambda: print("cleared"))
    if sys.argv[1] == "saving":
        with stop.saving():
            print("ready", flush=True)
            for _ in range(100):
                if stop.reason:
                    print("saved after", stop.reason, stop.code)
                    sys.exit(stop.code)
                time.sleep(0.05)
    elif sys.argv[1] == "stuck":
        with stop.saving():
            print("ready", flush=True)
            time.sleep(60)
    else:
        # As in a compile: the main thread runs no Python at all.
        import ctypes
        print("ready", flush=True)
        ctypes.CDLL(None).usleep(30_000_000)
"""


def _send(where, number, *, grace=20.0, again=False):
    """Start the program, send it a signal, and say how it ended and how fast."""
    process = subprocess.Popen(
        [sys.executable, "-c", _PROGRAM, where, str(grace)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout.readline() == "ready\n"
    began = time.monotonic()
    process.send_signal(number)
    if again:
        time.sleep(0.3)
        process.send_signal(number)
    out, err = process.communicate(timeout=50)
    return process.returncode, out, err, time.monotonic() - began


@pytest.mark.parametrize(
    ("number", "name", "code"),
    [
        (signal.SIGTERM, "SIGTERM", 42),
        (signal.SIGUSR1, "SIGUSR1", 42),
        (signal.SIGINT, "Ctrl-C", 130),
    ],
)
def test_where_a_checkpoint_can_be_saved_the_loop_is_told(number, name, code):
    returned, out, err, _ = _send("saving", number)
    assert (returned, out, err) == (code, f"saved after {name} {code}\n", "")


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGTERM, 42), (signal.SIGINT, 130)]
)
def test_elsewhere_the_process_ends_at_once_also_in_the_middle_of_c(number, code):
    returned, out, err, seconds = _send("compiling", number)
    assert (returned, out) == (code, "cleared\n")
    assert err.strip().endswith("nothing new to save\nHINT")
    assert seconds < 10


def test_a_save_that_does_not_end_is_not_waited_for():
    returned, _, err, seconds = _send("stuck", signal.SIGTERM, grace=1.0)
    assert returned == 42
    assert "no checkpoint within 1 s" in err
    assert seconds < 15


def test_what_is_done_on_exit_may_hang(monkeypatch):
    codes = []
    monkeypatch.setattr(os, "_exit", codes.append)
    with StopSignals() as stop:
        stop.on_exit(lambda: time.sleep(60))
        began = time.monotonic()
        stop.leave("a disk hangs")
        assert time.monotonic() - began < 30
    assert codes == [42]


def test_a_second_ctrl_c_does_not_wait():
    returned, _, _, seconds = _send("stuck", signal.SIGINT, again=True)
    assert returned == 130
    assert seconds < 15


def test_the_handlers_from_before_come_back():
    before = [signal.getsignal(n) for n in (signal.SIGTERM, signal.SIGINT)]
    threads = threading.active_count()
    with StopSignals():
        assert signal.getsignal(signal.SIGTERM) != before[0]
    assert [signal.getsignal(n) for n in (signal.SIGTERM, signal.SIGINT)] == before
    assert threading.active_count() == threads


def test_a_run_that_stopped_in_time_is_not_ended_later():
    before = threading.active_count()
    with StopSignals(grace_seconds=60) as stop, stop.saving():
        os.kill(os.getpid(), signal.SIGUSR1)
        end = time.monotonic() + 10
        while threading.active_count() < before + 2 and time.monotonic() < end:
            time.sleep(0.01)
        # The listener, and the timer that would end this process.
        assert threading.active_count() == before + 2
    while threading.active_count() > before and time.monotonic() < end:
        time.sleep(0.01)
    assert threading.active_count() == before


def test_without_a_command_line_leaving_is_an_exception():
    with pytest.raises(Stopped, match="a problem outside: a disk hangs") as caught:
        Stop().leave("a disk hangs")
    assert caught.value.code == 42
