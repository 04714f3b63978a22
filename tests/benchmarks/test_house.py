"""The counts of the house are those of small packages, and of this one."""

import pathlib
import subprocess
import sys

import pytest

from benchmarks import house

ROOT = pathlib.Path(__file__).parents[2]


@pytest.fixture
def package(tmp_path):
    """A package of two rooms: one calls the other."""
    files = {
        "unet_jax/__init__.py": "",
        "unet_jax/low/__init__.py": "",
        "unet_jax/low/a.py": "def used():\n    return 1\n\n\ndef other():\n    pass\n",
        "unet_jax/high.py": (
            "from unet_jax.low.a import used\n\n\ndef start():\n    return used()\n"
        ),
        "docs/architecture.md": (
            "| a loss | a function in `low/` | its row in `low/a.py`, `nobody.py` |\n"
        ),
    }
    for name, text in files.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return tmp_path


def test_the_trail_follows_calls_and_no_others(package):
    files = house.read_files(package)
    assert house.trail(files, ("high", "start")) == {
        ("high", "start"),
        ("low.a", "used"),
    }


def test_floors_are_the_longest_chain_and_a_circle_has_none(package):
    graph = house.room_graph(house.read_files(package))
    assert graph == {"low": set(), "high": {"low"}}
    assert house.longest_chain(graph) == 2
    assert house.longest_chain({"a": {"b"}, "b": {"a"}}) is None


def test_a_row_counts_files_that_exist_and_names_the_others(package):
    found = house.edited_files(package, house.read_files(package))
    assert found["loss"] == (["low/", "low/a.py"], ["nobody.py"])


def test_this_house_keeps_its_promises():
    files = house.read_files(ROOT)
    graph = house.room_graph(files)
    floors = house.longest_chain(graph)
    assert floors is not None
    assert floors <= 7
    for what, (code, missing) in house.edited_files(ROOT, files).items():
        assert code, what
        assert not missing, what
    for path in house.STEP:
        assert (ROOT / "unet_jax" / path).is_file()
    modules = [path.removesuffix(".py").replace("/", ".") for path in house.STEP]
    assert sum(house.step_lines(files, module) for module in modules) < 700
    # What the trail reaches from the command contains the step.
    reached = {module for module, _ in house.trail(files, house.START[0])}
    assert {*modules, "training.objective", "training.optimizer"} <= reached


def test_anyone_can_run_it(tmp_path):
    answer = subprocess.run(
        [sys.executable, "-S", ROOT / "benchmarks" / "house.py"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    )
    assert [line[0] for line in answer.stdout.splitlines() if line[:1].isdigit()] == [
        *"12345"
    ]
