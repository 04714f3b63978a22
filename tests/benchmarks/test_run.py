"""The command, with cases that need no packages."""

import dataclasses
import json

import pytest

from benchmarks import run
from tests.benchmarks.test_turns import CASE


@pytest.fixture
def command(monkeypatch, tmp_path, capsys):
    """Run the command over given cases; exit code, text and results."""

    def call(*arguments, cases):
        monkeypatch.setattr(run, "CASES", cases)
        path = tmp_path / "results.json"
        code = run.main([*arguments, f"--output={path}", "--repeats=1", "--cores=1"])
        return code, capsys.readouterr().out, json.loads(path.read_text())["results"]

    return call


def _case(name, **options):
    return dataclasses.replace(CASE, name=name, options={"numbers": [1.0], **options})


def test_results_are_printed_and_kept(command):
    code, text, results = command(cases=[_case("good")])
    assert code == 0
    assert "| sums      | good | sum" in text
    (result,) = results
    assert result["measures"]["seconds"]["ours"]["median"] > 0
    assert result["cores"] == 1
    assert result["command"].startswith("python -m benchmarks.run")
    assert {"date", "cpu", "system", "versions"} <= set(result)


def test_a_case_that_fails_does_not_stop_the_others(command):
    code, text, results = command(
        cases=[_case("bad", wrong="plain"), _case("good")],
    )
    assert code == 1
    assert "failed: sum: the two sides differ" in text
    assert "error" in results[0]
    assert "measures" in results[1]


def test_cases_are_chosen_by_name(command):
    _, _, results = command("--case=b", cases=[_case("a"), _case("b")])
    assert [result["case"] for result in results] == ["b"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--only=nothing"], "--only: found 'nothing', expected one of train_2d"),
        (["--only=train_2d", "--case=nothing"], "--case: found 'nothing', expected"),
        (["--repeats=0"], "found 0, expected 1 or more"),
    ],
)
def test_a_wrong_command_line_is_one_line(capsys, arguments, message):
    with pytest.raises(SystemExit, match="2"):
        run.main(arguments)
    assert message in capsys.readouterr().err


def test_a_file_of_another_kind_is_refused_before_any_work(tmp_path, capsys):
    path = tmp_path / "results.json"
    path.write_text("mine")
    with pytest.raises(SystemExit, match="2"):
        run.main([f"--output={path}"])
    assert "expected results of format 1" in capsys.readouterr().err
    assert path.read_text() == "mine"
