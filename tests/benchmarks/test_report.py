import dataclasses
import json

import pytest

from benchmarks import report
from benchmarks.spread import ratio, spread
from benchmarks.turns import Case, Outcome

CASE = Case(
    benchmark="sums",
    name="small",
    unit="sum",
    ours="a",
    peer="b",
    peer_name="another",
    modes=("plain", "clever", "broken"),
)
OUTCOME = Outcome(
    ours={"seconds": [0.1, 0.2, 0.3], "peak_mib": [100.0, 100.0, 100.0]},
    peers={
        "plain": {"seconds": [3.0, 1.5, 1.5], "peak_mib": [50.0, 50.0, 50.0]},
        "clever": {"seconds": [0.4, 0.3, 0.9], "peak_mib": [250.0, 250.0, 250.0]},
    },
    failed={"broken": "Traceback\nRuntimeError: no such thing"},
    differences={"plain": {"sum": {"found": 0.0, "allowed": 1e-6}}},
    facts={"count": 3},
    versions={"ours": {"jax": "1"}, "peer": {"torch": "2"}},
)
ABOUT = {"date": "today", "command": "this", "cpu": "that", "cores": 2}


def test_median_and_quartiles():
    found = spread([4.0, 1.0, 2.0, 3.0, 100.0])
    assert (found.median, found.low, found.high) == (3.0, 2.0, 4.0)
    assert found.values == (4.0, 1.0, 2.0, 3.0, 100.0)


def test_the_ratio_is_of_the_medians_and_its_spread_of_the_rounds():
    found = ratio(ours=[1.0, 2.0, 1.0], peer=[2.0, 4.0, 3.0])
    assert found.median == 3.0
    assert found.values == (2.0, 2.0, 3.0)
    assert (found.low, found.high) == (2.0, 2.5)


def test_the_fastest_mode_counts_and_all_are_kept():
    result = report.result_of(CASE, OUTCOME, ABOUT)
    assert result["best_mode"] == "clever"
    seconds = result["measures"]["seconds"]
    assert seconds["ratio"]["median"] == 2.0
    assert seconds["peers"]["plain"]["median"] == 1.5
    assert result["measures"]["peak_mib"]["ratio"]["median"] == 2.5
    assert result["failed_modes"] == OUTCOME.failed
    assert result["differences"] == OUTCOME.differences
    assert {key: result[key] for key in ABOUT} == ABOUT
    assert json.loads(json.dumps(result)) == result


def test_the_table_has_a_line_for_each_measure():
    failure = report.failure_of(CASE, "Traceback\nWorkerError: it | broke", ABOUT)
    lines = report.table([report.result_of(CASE, OUTCOME, ABOUT), failure]).split("\n")
    assert len({len(line) for line in lines}) == 1
    cells = [[cell.strip() for cell in line.split("|")[1:-1]] for line in lines]
    assert cells[0] == list(report._HEADINGS)
    assert set("".join(cells[1])) == {"-"}
    assert cells[2] == [
        "sums",
        "small",
        "sum",
        "200.0 ms (150.0 to 250.0)",
        "another clever",
        "400.0 ms (350.0 to 650.0)",
        "2.00 (2.25 to 3.50)",
        "plain 1.50 s, broken fails",
    ]
    assert cells[3][2:6] == [
        "peak mib",
        "100 MiB (100 to 100)",
        "another clever",
        "250 MiB (250 to 250)",
    ]
    assert cells[4][:4] == ["sums", "small", "", "failed: WorkerError: it / broke"]


def test_the_only_mode_of_a_peer_is_not_named():
    only = dataclasses.replace(
        OUTCOME, peers={"plain": OUTCOME.peers["plain"]}, failed={}
    )
    line = report.table([report.result_of(CASE, only, ABOUT)]).split("\n")[2]
    assert line.split("|")[5].strip() == "another"


def test_results_of_a_case_replace_older_ones_and_others_stay(tmp_path):
    path = tmp_path / "new" / "results.json"
    other = {**report.failure_of(CASE, "once", ABOUT), "case": "large"}
    for result in (report.failure_of(CASE, "once", ABOUT), other):
        report.add_result(path, result)
    report.add_result(path, report.result_of(CASE, OUTCOME, ABOUT))
    first, second = report.read_results(path)
    assert first["best_mode"] == "clever"
    assert second == other
    assert [file.name for file in path.parent.iterdir()] == ["results.json"]


@pytest.mark.parametrize("content", ["{", "[]", '{"format": 0, "results": []}'])
def test_other_files_are_not_added_to(tmp_path, content):
    path = tmp_path / "results.json"
    path.write_text(content)
    with pytest.raises(ValueError, match=r"expected results of format 1; move it away"):
        report.add_result(path, report.failure_of(CASE, "once", ABOUT))
    assert path.read_text() == content
