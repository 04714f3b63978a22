"""Workers are separate processes here; only their work is small."""

import dataclasses
import json
import signal
import sys

import pytest

from benchmarks.same_work import OtherWorkError
from benchmarks.turns import Case, Worker, WorkerError, take_turns

CASE = Case(
    benchmark="sums",
    name="small",
    unit="sum",
    ours="tests.benchmarks.pair",
    peer="tests.benchmarks.pair",
    peer_name="another",
    modes=("plain", "clever"),
    options={"numbers": [1.0, 2.0, 4.0], "slow": "plain"},
    tolerances={"sum": 1e-6},
    least_seconds=0.01,
)


def _with(**options):
    return dataclasses.replace(CASE, options={**CASE.options, **options})


@pytest.fixture
def turns(tmp_path):
    """Run a case in this Python, and keep the messages."""

    def run(case, *, repeats=3, peer_python=sys.executable):
        return take_turns(
            case,
            our_python=sys.executable,
            peer_python=peer_python,
            repeats=repeats,
            cores=(),
            folder=tmp_path,
            say=said.append,
        )

    said = []
    run.said = said
    run.folder = tmp_path
    return run


def test_sides_take_turns_and_the_order_is_reversed(turns):
    outcome = turns(CASE)
    lines = (turns.folder / "turns.txt").read_text().split("\n")
    # Two calls to warm up and to find the number of calls, for each side in turn.
    order = [line.split()[0] for line in lines[6:] if line]
    assert order == [
        *("ours", "plain", "clever"),
        *("clever", "plain", "ours"),
        *("ours", "plain", "clever"),
    ]
    assert len(outcome.ours["seconds"]) == 3
    assert outcome.facts == {"count": 3}
    assert outcome.best_mode == "clever"
    assert outcome.ours["peak_mib"] == [20.0] * 3
    assert outcome.versions["ours"]["python"] == ".".join(
        map(str, sys.version_info[:3])
    )
    assert len(turns.said) == 3


def test_a_repeat_has_enough_calls_to_last_long_enough(turns):
    case = _with(seconds={"ours": 0.3, "plain": 0.02, "clever": 0.001})
    outcome = turns(dataclasses.replace(case, least_seconds=0.05), repeats=1)
    lines = (turns.folder / "turns.txt").read_text().split("\n")
    calls = dict(line.split() for line in lines[6:] if line)
    assert calls == {"ours": "1", "plain": "3", "clever": "50"}
    assert outcome.ours["seconds"] == [0.3]


def test_work_of_minutes_is_not_warmed_up_and_has_fewer_rounds(turns):
    outcome = turns(dataclasses.replace(CASE, least_seconds=None, repeats=2), repeats=9)
    assert len((turns.folder / "turns.txt").read_text().splitlines()) == 2 * 3
    assert len(outcome.ours["seconds"]) == 2


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"longer": "clever"}, "count: found 3 in ours and 4 in the peer's"),
        ({"wrong": "plain"}, "sum: the two sides differ by 0.0667"),
    ],
)
def test_other_work_is_refused_before_it_is_timed(turns, options, message):
    with pytest.raises(OtherWorkError, match=message):
        turns(_with(**options))
    assert not (turns.folder / "turns.txt").exists()


def test_a_mode_that_fails_is_reported_and_the_others_count(turns):
    outcome = turns(_with(broken="clever"))
    assert "no such thing here" in outcome.failed["clever"]
    assert outcome.best_mode == "plain"
    assert turns.said[0] == "  clever does not work: RuntimeError: no such thing here"


def test_ours_must_work(turns):
    with pytest.raises(WorkerError, match="no such thing here"):
        turns(_with(broken="ours"))


def test_a_peer_that_works_in_no_mode_is_an_error(turns):
    case = dataclasses.replace(CASE, modes=("plain",))
    with pytest.raises(WorkerError, match="no mode of the peer works"):
        turns(
            dataclasses.replace(case, options={**case.options, "broken": "plain"}),
        )


def test_the_last_lines_of_a_process_that_ends_are_shown(tmp_path):
    worker = Worker(sys.executable, tmp_path / "log")
    with pytest.raises(WorkerError, match=r"(?s)prepare: .*No module named 'nowhere'"):
        worker.ask(
            do="prepare", module="nowhere", options={}, folder=str(tmp_path), cores=[]
        )
    with pytest.raises(WorkerError, match=r"(?s)ask: .*expected 'prepare'"):
        worker.ask(do="ask")
    worker._process.terminate()
    with pytest.raises(WorkerError, match="time: the process ended with code -15"):
        worker.ask(do="time", calls=1)
    worker.close()


def test_a_process_that_does_not_end_is_ended(tmp_path):
    worker = Worker(sys.executable, tmp_path / "log")
    options = {"numbers": [1.0], "slow": "ours"}
    worker.ask(
        do="prepare",
        module="tests.benchmarks.pair",
        options=options,
        folder=str(tmp_path),
        cores=[],
    )
    process = worker._process
    request = json.dumps({"do": "time", "calls": 10_000})  # 200 s
    process.stdin.write(request + "\n")
    process.stdin.flush()
    worker.close(patience=0.2)
    assert process.returncode == -signal.SIGKILL
