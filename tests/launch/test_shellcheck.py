"""Every shell script of the project passes shellcheck."""

import pathlib
import subprocess
import sysconfig

import pytest

from tests.launch.conftest import ROOT

SHELLCHECK = pathlib.Path(sysconfig.get_path("scripts")) / "shellcheck"


def _scripts() -> list[pathlib.Path]:
    """Return the files of the project that a shell runs, by their first line."""
    folders = (ROOT / "launch", ROOT / ".ci")
    return [
        path
        for folder in folders
        for path in sorted(folder.iterdir())
        if path.read_bytes().startswith((b"#!/usr/bin/env bash", b"#!/bin/"))
    ]


def _check(path: pathlib.Path) -> subprocess.CompletedProcess:
    return subprocess.run(
        [SHELLCHECK, "--enable=quote-safe-variables", path],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_the_scripts_are_found():
    names = {path.name for path in _scripts()}
    assert {"local.sh", "slurm.sbatch", "tpu_vm.sh", "run"} <= names


@pytest.mark.parametrize("path", _scripts(), ids=lambda path: path.name)
def test_shellcheck_finds_nothing(path):
    answer = _check(path)
    assert answer.returncode == 0, answer.stdout


def test_shellcheck_would_find_something(tmp_path):
    path = tmp_path / "bad.sh"
    path.write_text("#!/usr/bin/env bash\nrm -r $1/*\n")
    assert "SC2086" in _check(path).stdout
