"""The promises that each command is held to.

Whatever a user gives that cannot be used: exit code 2, one line, nothing lost.
``<any>`` stands for words of a library. After each command every file below the
temporary folder is as it was, and nothing is new outside the workdir.
"""

import re
import shutil

import pytest

from tests.bad_input.given import listing, write_run, write_set


@pytest.fixture(scope="session")
def shared(tmp_path_factory):
    """A folder with ``data`` and ``run``; nobody changes it."""
    folder = tmp_path_factory.mktemp("shared")
    write_set(folder / "data")
    write_run(folder / "run", folder / "data")
    return folder


@pytest.fixture
def place(shared, tmp_path):
    """A copy of it for one test, with the malicious pickles' target beside it."""
    shutil.copytree(shared, tmp_path, dirs_exist_ok=True)
    record = tmp_path / "run/config.json"
    record.write_text(record.read_text().replace(str(shared), str(tmp_path)))
    return tmp_path


@pytest.fixture
def refused(command_line, place):
    """Give a function that checks the promises for one command."""

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
        if workdir is not None:  # what a scan found is kept there
            before.pop(workdir / "dataset.json", None)
        assert {path: after.get(path) for path in before} == before
        new = [path for path in after.keys() - before.keys() if path != workdir]
        outside = [p for p in new if workdir is None or workdir not in p.parents]
        assert not outside

    return check
