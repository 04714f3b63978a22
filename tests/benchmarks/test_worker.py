"""The protocol, in this process."""

import io
import json

import numpy as np

from benchmarks import worker


def test_every_line_has_an_answer(tmp_path):
    requests = [
        {"do": "time", "calls": 1},
        {
            "do": "prepare",
            "module": "tests.benchmarks.pair",
            "options": {"numbers": [1, 2]},
            "folder": str(tmp_path),
            "cores": [],
        },
        {"do": "check", "file": str(tmp_path / "out.npz")},
        {"do": "warm", "least_seconds": 0.0},
        {"do": "time", "calls": 4},
    ]
    answers = io.StringIO()
    worker.serve([json.dumps(request) for request in requests], answers)
    unready, prepared, checked, warmed, timed = map(
        json.loads, answers.getvalue().splitlines()
    )
    assert "found no task; expected a request to prepare" in unready["error"]
    assert prepared["facts"] == {"count": 2}
    assert prepared["versions"]["numpy"] == np.__version__
    assert checked == {}
    assert np.load(tmp_path / "out.npz")["sum"] == 3
    assert warmed == {"calls": 1}
    assert timed["peak_mib"] == 20
    assert 0.001 <= timed["seconds"] < 1


def test_a_task_may_measure_its_own_seconds(tmp_path, monkeypatch):
    task = worker.Task(
        run=lambda calls: {"seconds": 7.0},
        facts={},
        outputs=dict,
        packages=(),
    )
    server = worker.Server()
    monkeypatch.setattr(server, "_task", task)
    assert server.answer({"do": "time", "calls": 3}) == {"seconds": 7.0}
