"""launch/Dockerfile, read and, as far as that goes without Docker, carried out."""

import configparser
import json
import re
import shutil
import subprocess

import pytest

from tests.launch.conftest import ROOT

TEXT = (ROOT / "launch" / "Dockerfile").read_text()
SETUP = configparser.ConfigParser()
SETUP.read(ROOT / "setup.cfg")


def _instructions(text: str) -> list[tuple[str, str]]:
    """Return the name and the rest of each instruction."""
    lines = [line for line in text.splitlines() if not line.startswith("#")]
    whole = "\n".join(lines).replace("\\\n", " ")
    return [
        (line.split()[0], line.partition(" ")[2].strip())
        for line in whole.splitlines()
        if line.strip()
    ]


def _lines(text: str) -> list[str]:
    return [line for line in text.splitlines() if line]


INSTRUCTIONS = _instructions(TEXT)
NAMES = [name for name, _ in INSTRUCTIONS]


def _of(name: str) -> list[str]:
    return [rest for other, rest in INSTRUCTIONS if other == name]


def test_every_instruction_is_one():
    known = {"ARG", "FROM", "RUN", "USER", "WORKDIR", "COPY", "ENV", "ENTRYPOINT"}
    assert set(NAMES) == known
    assert NAMES[:3] == ["ARG", "FROM", "ARG"]  # what comes before FROM is gone after
    assert NAMES.count("FROM") == 1


def test_it_is_a_slim_python_that_the_project_accepts():
    version = dict(a.split("=") for a in _of("ARG"))["PYTHON"]
    assert _of("FROM") == ["python:${PYTHON}-slim"]
    least = SETUP["options"]["python_requires"].removeprefix(">=")
    as_numbers = [tuple(map(int, text.split("."))) for text in (least, version)]
    assert as_numbers[0] <= as_numbers[1]


def test_the_program_is_not_run_by_root():
    (user,) = _of("USER")
    assert user not in ("root", "0")
    assert any(f"--uid 1000 {user}" in run for run in _of("RUN"))
    # What needs root comes before; what runs comes after.
    at = NAMES.index("USER")
    assert "RUN" not in NAMES[at:]
    assert "COPY" not in NAMES[at:]
    assert "ENTRYPOINT" in NAMES[at:]


def test_a_signal_reaches_the_program():
    # In the form of a list there is no shell between; tini passes signals on.
    (entry,) = map(json.loads, _of("ENTRYPOINT"))
    assert entry == ["tini", "--", "python", "-m", "unet_jax.main"]


def test_it_has_all_that_the_project_installs_from():
    copied = [part for rest in _of("COPY") for part in rest.split()[:-1]]
    assert all((ROOT / name).exists() for name in copied)
    packages = SETUP["options"]["packages"].split()
    places = dict(line.split(" = ") for line in _lines(SETUP["options"]["package_dir"]))
    needed = {places.get(name, name).partition(".")[0] for name in packages}
    needed |= {"setup.cfg", "pyproject.toml", SETUP["metadata"]["license_files"]}
    needed.add(SETUP["metadata"]["long_description"].removeprefix("file: "))
    assert needed == set(copied)


def test_the_code_comes_after_what_it_needs():
    install = next(
        i for i, (_, rest) in enumerate(INSTRUCTIONS) if "pip install" in rest
    )
    code = INSTRUCTIONS.index(("COPY", "unet_jax unet_jax"))
    assert install < code


@pytest.mark.parametrize("extra", ["", "tpu", "gpu"])
def test_the_steps_install_the_extra(commands, tmp_path, extra):
    noted = '#!/bin/sh\necho "$(basename "$0") $*" >>"$RECORDS/steps"\n'
    for name in ("apt-get", "useradd", "install", "pip", "rm"):
        commands.write(name, noted)
    folder = tmp_path / "image"
    folder.mkdir()
    shutil.copy(ROOT / "setup.cfg", folder)
    for step in _of("RUN"):
        subprocess.run(
            ["sh", "-euc", step],
            cwd=folder,
            env=commands.environment | {"EXTRA": extra},
            check=True,
            timeout=30,
        )
    wanted = f".[{extra}]" if extra else "."
    assert commands.record("steps")[-1].split() == [
        *("pip", "install", "--no-cache-dir", "--editable", wanted)
    ]
    assert extra == "" or extra in SETUP["options.extras_require"]
    # Where the packages are is settled at the installation: they must be there.
    for package in SETUP["options"]["packages"].split():
        path = package.replace("unet_jax.configs", "configs").replace(".", "/")
        assert (folder / path / "__init__.py").exists()
    assert not (folder / "unet_jax" / "configs").exists()  # it would hide the real one


def test_no_registry_is_named():
    assert not re.search(r"https?://|\w\.\w+/", TEXT.replace("launch/Dockerfile", ""))
