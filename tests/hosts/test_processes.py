"""Real processes on loopback give the results of one with as many devices."""

import os
import pathlib
import socket
import subprocess
import sys

import numpy as np
import pytest

ROOT = pathlib.Path(__file__).parents[2]
pytestmark = pytest.mark.slow


def free_port() -> int:
    """Return a free port."""
    with socket.socket() as listener:
        listener.bind(("localhost", 0))
        return listener.getsockname()[1]


def _results(folder, number, devices) -> dict[str, np.ndarray]:
    """Run the steps in several processes; return the results of the first."""
    output = folder / f"{number}x{devices}.npz"
    coordinator = f"localhost:{free_port()}"
    processes = [
        subprocess.Popen(
            [
                sys.executable,
                str(ROOT / "tests" / "hosts" / "worker.py"),
                str(output),
                coordinator,
                str(number),
                str(place),
            ],
            cwd=ROOT,
            env={
                **os.environ,
                "JAX_NUM_CPU_DEVICES": str(devices),
                "PYTHONPATH": str(ROOT),
            },
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for place in range(number)
    ]
    outputs = [process.communicate(timeout=900)[0] for process in processes]
    assert [process.returncode for process in processes] == [0] * number, outputs
    with np.load(output) as arrays:
        return dict(arrays)


@pytest.fixture(scope="module")
def one_process(tmp_path_factory) -> dict[str, np.ndarray]:
    """Results of one process with four devices."""
    return _results(tmp_path_factory.mktemp("one"), 1, 4)


@pytest.mark.parametrize(
    ("number", "devices"), [(2, 2), pytest.param(4, 1, marks=pytest.mark.soak)]
)
def test_processes_see_the_same_batches_and_make_the_same_steps(
    tmp_path, one_process, number, devices
):
    several = _results(tmp_path, number, devices)
    assert several.keys() == one_process.keys()
    np.testing.assert_array_equal(several["places"], one_process["places"])
    np.testing.assert_array_equal(several["batch"], one_process["batch"])
    for name, expected in one_process.items():
        scale = max(np.abs(expected).max(), 1e-30)
        error = np.abs(several[name] - expected).max() / scale
        if name.startswith("parameter"):
            assert error < 1e-9, name
