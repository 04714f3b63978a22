"""Checks that a command refuses unusable input without losing anything.

The command exits with code 2 and prints one line; in expected lines ``<any>`` stands
for the words of a library. Afterwards every file below the temporary folder is
unchanged, and nothing is new outside the workdir.
"""

import re
import shutil

import pytest

from tests.bad_input.given import listing, write_run, write_set


@pytest.fixture(scope="session")
def shared(tmp_path_factory):
    """Make a folder with ``data`` and ``run`` that no test changes."""
    folder = tmp_path_factory.mktemp("shared")
    write_set(folder / "data")
    write_run(folder / "run", folder / "data")
    return folder


@pytest.fixture
def place(shared, tmp_path):
    """Copy the folder for one test."""
    shutil.copytree(shared, tmp_path, dirs_exist_ok=True)
    record = tmp_path / "run/config.json"
    record.write_text(record.read_text().replace(str(shared), str(tmp_path)))
    return tmp_path


@pytest.fixture
def refused(command_line, place):
    """Return a function that checks one command."""

    def check(line, *arguments, workdir=None):
        before = listing(place)
        answer = command_line(*arguments)
        after = listing(place)
        line = line.replace("{here}", str(place))
        pattern = ".+".join(map(re.escape, line.split("<any>")))
        assert re.fullmatch(f"unet_jax: error: {pattern}\n", answer.stderr), (
            f"{answer.stderr}\nfor\n{line}"
        )
        assert answer.code == 2
        if workdir is not None:  # the scan keeps its facts there
            before.pop(workdir / "dataset.json", None)
        assert {path: after.get(path) for path in before} == before
        new = [path for path in after.keys() - before.keys() if path != workdir]
        outside = [p for p in new if workdir is None or workdir not in p.parents]
        assert not outside

    return check
