"""Every row of docs/numbers.md names a test that exists."""

import ast
import functools
import pathlib
import re

import pytest

ROOT = pathlib.Path(__file__).parents[1]
ROWS = re.findall(
    r"`(tests/\S+\.py)::(\w+)`", (ROOT / "docs" / "numbers.md").read_text()
)


@functools.cache
def _tests_of(file):
    tree = ast.parse((ROOT / file).read_text())
    return {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}


@pytest.mark.parametrize(("file", "name"), sorted(set(ROWS)))
def test_a_row_names_a_test(file, name):
    assert name in _tests_of(file)


def test_every_row_of_a_table_has_one():
    lines = (ROOT / "docs" / "numbers.md").read_text().splitlines()
    rows = [line for line in lines if line.startswith("| ")]
    rows = [row for row in rows if not row.startswith(("| ---", "| number |"))]
    assert len(rows) > 40
    for row in rows:
        assert re.search(r"`tests/\S+::\w+` \|$", row), row
