"""What is installed: the packages, the wheel, and the commands from elsewhere."""

import configparser
import os
import pathlib
import subprocess
import sys
import venv
import zipfile

import pytest

ROOT = pathlib.Path(__file__).parents[1]


def test_the_list_of_packages_is_complete():
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg")
    listed = setup["options"]["packages"].split()
    found = {
        ".".join(path.parent.relative_to(ROOT).parts)
        for path in (ROOT / "unet_jax").rglob("__init__.py")
    }
    assert listed == sorted(found | {"unet_jax.configs"})
    folders = {path.parent for path in (ROOT / "unet_jax").rglob("*.py")}
    assert all((folder / "__init__.py").exists() for folder in folders)


def test_the_citation_has_the_version_of_the_package():
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg")
    lines = (ROOT / "CITATION.cff").read_text().splitlines()
    assert f"version: {setup['metadata']['version']}" in lines
    assert f"license: {setup['metadata']['license']}" in lines


@pytest.fixture(scope="module")
def distributions(tmp_path_factory) -> pathlib.Path:
    """Build the source archive, and the wheel from it, of a copy of what git tracks."""
    folder = tmp_path_factory.mktemp("package")
    source = folder / "source"
    for path in ("unet_jax", "configs"):
        for file in (ROOT / path).rglob("*"):
            if file.suffix == ".py" or file.name == "py.typed":
                target = source / file.relative_to(ROOT)
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_bytes(file.read_bytes())
    for name in ("setup.cfg", "pyproject.toml", "README.md", "LICENSE"):
        (source / name).write_bytes((ROOT / name).read_bytes())
    command = [sys.executable, "-m", "build", "--no-isolation", "--outdir", folder]
    subprocess.run([*command, source], check=True, timeout=300, capture_output=True)
    return folder


@pytest.fixture(scope="module")
def wheel(distributions) -> pathlib.Path:
    """The wheel."""
    (built,) = distributions.glob("*.whl")
    return built


@pytest.mark.slow
def test_what_is_uploaded_has_a_description_that_renders(distributions):
    files = [*distributions.glob("*.whl"), *distributions.glob("*.tar.gz")]
    assert len(files) == 2
    command = [sys.executable, "-m", "twine", "check", "--strict", *files]
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.slow
def test_the_wheel_has_the_code_the_types_and_the_configs(wheel):
    names = set(zipfile.ZipFile(wheel).namelist())
    code = {name for name in names if ".dist-info/" not in name}
    expected = {
        str(path.relative_to(ROOT)) for path in (ROOT / "unet_jax").rglob("*.py")
    }
    expected |= {
        f"unet_jax/configs/{path.name}" for path in (ROOT / "configs").glob("*.py")
    }
    assert code == expected | {"unet_jax/py.typed"}


@pytest.mark.slow
def test_both_commands_run_from_an_empty_folder(wheel, tmp_path):
    environment, here = tmp_path / "venv", tmp_path / "empty"
    here.mkdir()
    venv.create(environment, with_pip=False, symlinks=True)
    (packages,) = environment.glob("lib/python*/site-packages")
    # The dependencies by their path: an editable install there is not read.
    others = [path for path in sys.path if path.endswith("site-packages")]
    (packages / "dependencies.pth").write_text("\n".join(others) + "\n")
    python = environment / "bin" / "python"
    subprocess.run(
        [python, "-m", "pip", "install", "-q", "--no-deps", wheel],
        check=True,
        timeout=300,
    )
    clean = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}

    def run(*command):
        return subprocess.run(
            command,
            cwd=here,
            env=clean,
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )

    shown = run(environment / "bin" / "unet-jax", "--help")
    assert shown.returncode == 0, shown.stderr
    assert "--workdir" in shown.stdout
    plan = ("--mode=plan", "--topology=none")
    for config, command in (
        ("smoke", (environment / "bin" / "unet-jax",)),
        ("configs/smoke.py", (python, "-m", "unet_jax.main")),
    ):
        answer = run(*command, f"--config={config}", *plan)
        assert answer.returncode == 2
        assert answer.stderr.startswith("unet_jax: error: --topology: found 'none'")
        taken = packages / "unet_jax" / "configs" / "smoke.py"
        assert f"'smoke', shipped with unet_jax ({taken})" in answer.stdout
    assert run(python, "-c", "import configs").returncode == 1
    trained = run(
        *(environment / "bin" / "unet-jax", "--config=smoke", "--workdir=run"),
        *("--config.train.steps=2", "--config.optimizer.warmup_steps=0"),
        *("--config.eval.every_steps=2", "--config.eval.metrics=()"),
        *("--config.model.options.features=(4,8)", "--config.augment.enabled=False"),
        *("--config.eval.train_images=1", "--config.log.overlays=0"),
    )
    assert trained.returncode == 0, trained.stderr
    assert (here / "run" / "test_metrics.json").is_file()
