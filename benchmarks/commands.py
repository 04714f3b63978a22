"""Times commands from their start, from outside."""

import contextlib
import os
import pathlib
import signal
import subprocess
import time
from collections.abc import Callable, Sequence

from benchmarks.turns import ROOT


def seconds_to_end(command: Sequence[str]) -> float:
    """Run a command to its end.

    Args:
        command: program and arguments.

    Raises:
        RuntimeError: it failed.
    """
    began = time.perf_counter()
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    seconds = time.perf_counter() - began
    if done.returncode:
        raise RuntimeError(
            f"{command}: ended with code {done.returncode}, expected 0: {done.stderr}"
        )
    return seconds


def seconds_until(
    command: Sequence[str],
    reached: Callable[[str], bool],
    *,
    log: pathlib.Path,
) -> float:
    """Run a command until it has written a line, then end it.

    Args:
        command: program and arguments.
        reached: function that says whether a line is the expected one.
        log: file that the command writes lines to; it need not be there yet.

    Returns:
        Seconds from the start to that line.

    Raises:
        RuntimeError: it ended without that line.
    """
    log.unlink(missing_ok=True)
    output = log.with_name("output.txt")
    read = 0
    with output.open("w") as stream:
        began = time.perf_counter()
        process = subprocess.Popen(
            command,
            cwd=ROOT,
            stdout=stream,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # what it starts is to end with it
        )
        try:
            while True:
                ended = process.poll() is not None
                lines = log.read_text().split("\n")[:-1] if log.exists() else []
                if any(map(reached, lines[read:])):
                    return time.perf_counter() - began
                read = len(lines)
                if ended:
                    raise RuntimeError(
                        f"{command}: ended with code {process.returncode} before it "
                        f"got there: {output.read_text()[-2000:]}"
                    )
                time.sleep(0.01)
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
