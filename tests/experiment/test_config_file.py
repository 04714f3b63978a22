"""Which config a name means, how a file is loaded, and what a workdir remembers."""

import importlib
import json
import subprocess
import sys

import pytest
from ml_collections import ConfigDict

from unet_jax.configs import base, smoke
from unet_jax.errors import InputError
from unet_jax.experiment import config_file
from unet_jax.experiment.config_file import (
    config_path,
    keep_folds_config,
    load_config,
    override,
    remembered_config,
    remembered_folds_config,
    shipped_folder,
)
from unet_jax.experiment.record import flat_config, make_record, write_record

OWN = """
from {package} import base

def get_config():
    config = base.get_config()
    config.train.steps = 7
    return config
"""


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Work in an empty folder."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    "name", ["brain", "brain.py", "configs/brain", "configs/brain.py"]
)
def test_a_shipped_config_is_found_by_its_name(folder, name):
    path, taken = config_path(name)
    assert path.samefile(shipped_folder() / "brain.py")
    assert taken == f"config: 'brain', shipped with unet_jax ({path})"
    assert load_config(path).name == "brain"


def test_an_existing_file_wins_over_a_shipped_name(folder):
    (folder / "brain").mkdir()  # a folder is no config
    assert config_path("brain")[0].samefile(shipped_folder() / "brain.py")
    (folder / "configs").mkdir()
    own = folder / "configs" / "brain.py"
    own.write_text(OWN.format(package="unet_jax.configs"))
    path, taken = config_path("configs/brain.py")
    assert path.samefile(own)
    assert taken == "config: the file configs/brain.py, not the shipped config 'brain'"
    assert load_config(path).train.steps == 7
    (folder / "mine.py").write_text("")
    assert config_path("mine.py")[1] == ""


def test_the_shipped_file_itself_is_no_choice(monkeypatch):
    monkeypatch.chdir(shipped_folder().parent)
    assert config_path("configs/brain.py")[1] == ""


@pytest.mark.parametrize("name", ["brian", "configs/../brain.py", "x/brain.py", ""])
def test_other_names_are_refused(folder, name):
    with pytest.raises(InputError, match="expected the path of a config, or one of ba"):
        config_path(name)


def test_the_old_import_still_loads_with_one_line_of_advice(folder, capsys):
    own = folder / "mine.py"
    own.write_text(OWN.format(package="configs"))
    for _ in range(2):
        assert load_config(own).train.steps == 7
        assert capsys.readouterr().err == (
            f"unet_jax: {own} imports configs, which is now unet_jax.configs; write "
            "'from unet_jax.configs import ...'. The old name works until version 0.3\n"
        )
    assert "configs" not in sys.modules


def test_a_package_configs_of_the_user_is_theirs(folder, monkeypatch, capsys):
    (folder / "configs").mkdir()
    (folder / "configs" / "base.py").write_text(OWN.format(package="unet_jax.configs"))
    (folder / "configs" / "__init__.py").write_text("")
    own = folder / "mine.py"
    own.write_text("from configs import base\nget_config = base.get_config\n")
    monkeypatch.syspath_prepend(str(folder))
    assert load_config(own).train.steps == 7
    assert capsys.readouterr().err == ""
    for name in ("configs", "configs.base"):
        del sys.modules[name]


def test_a_file_without_a_config_is_refused(folder):
    (folder / "mine.py").write_text("def get_config():\n    return {}\n")
    with pytest.raises(InputError, match=r"mine.py cannot be loaded: TypeError: get_c"):
        load_config(folder / "mine.py")


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (
            "train.stpes = 9",
            r"config.train.stpes, .* you mean config.train.steps\?",
        ),
        (
            "qqq = ConfigDict({'a': 1})",
            r"sets config.qqq.a, which is no key of ",
        ),
    ],
)
def test_a_key_that_no_run_reads_is_refused(folder, line, message):
    head = "from ml_collections import ConfigDict\n"
    own = head + OWN.format(package="unet_jax.configs")
    path = folder / "mine.py"
    path.write_text(own.replace("train.steps = 7", line))
    with pytest.raises(InputError, match=message):
        load_config(path)


def test_a_copy_that_is_not_installed_is_refused(monkeypatch, tmp_path):
    module = tmp_path / "unet_jax" / "experiment" / "config_file.py"
    monkeypatch.setattr(config_file, "__file__", str(module))
    # What is found belongs to another installation.
    with pytest.raises(InputError, match=f"run: pip install -e {tmp_path}$"):
        shipped_folder()


def test_an_uninstalled_checkout_is_refused_with_the_install_line(tmp_path):
    folder = shipped_folder().parent
    (tmp_path / "unet_jax").symlink_to(folder / "unet_jax")
    # No site-packages but by path, where the hook of an editable install is not read.
    packages = [path for path in sys.path if path.endswith("site-packages")]
    code = (
        f"import sys; sys.path += {packages}; import runpy; sys.argv[1:] = ['--help']; "
    )
    answer = subprocess.run(
        [
            sys.executable,
            "-S",
            "-c",
            code + "runpy.run_module('unet_jax.main', run_name='__main__')",
        ],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert answer.returncode == 2, answer.stderr
    assert answer.stdout == ""
    assert "is not installed, expected an installed package; run: pip install -e" in (
        answer.stderr
    )
    assert answer.stderr.count("\n") == 1


def _remember(workdir, config):
    record = make_record(config.to_dict(), preprocessing={}, dataset={})
    write_record(workdir, record)


@pytest.mark.parametrize(
    "name", sorted(p.stem for p in shipped_folder().glob("[!_]*.py"))
)
def test_a_workdir_gives_back_what_was_written(name, tmp_path):
    config = importlib.import_module(f"unet_jax.configs.{name}").get_config()
    _remember(tmp_path, config)
    assert remembered_config(tmp_path).to_dict() == config.to_dict()


def test_a_cross_validation_gives_back_its_config_and_no_run_does(tmp_path):
    config = importlib.import_module("unet_jax.configs.folder").get_config()
    config.data.path = "set"
    keep_folds_config(tmp_path, config)
    assert remembered_folds_config(tmp_path).to_dict() == config.to_dict()
    assert remembered_config(tmp_path) is None
    assert remembered_folds_config(tmp_path / "none") is None
    (tmp_path / "crossvalidation_config.json").write_text("[]")
    with pytest.raises(
        InputError, match=r"config\.json: does not describe a cross-val"
    ):
        remembered_folds_config(tmp_path)


def test_what_a_workdir_gives_can_be_changed_by_type(tmp_path):
    config = smoke.get_config()
    config.train.batch_size = 6
    _remember(tmp_path, config)
    found = remembered_config(tmp_path)
    override(
        found,
        [
            "--config.train.max_minutes=2",
            "--config.eval.postprocess=auto",
            "--config.data.class_names=('a','b','c','d')",
        ],
    )
    assert found.train.max_minutes == 2.0
    assert found.eval.postprocess == "auto"
    assert found.data.class_names == ("a", "b", "c", "d")
    assert found.train.batch_size == 6
    before, after = flat_config(config.to_dict()), flat_config(found.to_dict())
    assert {key for key in before if before[key] != after[key]} == {
        *("train.max_minutes", "eval.postprocess", "data.class_names")
    }


def test_none_is_taken_by_the_keys_that_accept_it():
    keys = ("data.size", "train.memory_gib", "data.class_names", "eval.postprocess")
    config = base.get_config()
    config.data.size = (32, 32)
    override(config, [f"--config.{key}=None" for key in keys])
    assert [flat_config(config.to_dict())[key] for key in keys] == [None] * 4
    with pytest.raises(InputError, match=r"train.steps=None"):
        override(base.get_config(), ["--config.train.steps=None"])


def test_a_folder_without_a_run_remembers_nothing(tmp_path):
    assert remembered_config(tmp_path) is None
    assert remembered_config(tmp_path / "none") is None


def test_a_record_of_another_type_is_refused(tmp_path):
    _remember(tmp_path, base.get_config())
    path = tmp_path / "config.json"
    record = json.loads(path.read_text())
    record["config"]["train"]["steps"] = "many"
    path.write_text(json.dumps(record))
    with pytest.raises(InputError, match=r"config.json: does not describe a run"):
        remembered_config(tmp_path)


@pytest.mark.parametrize(
    ("argument", "message"),
    [
        ("--config.train.stepz=1", "has no key 'stepz'; did you mean 'steps'"),
        ("--config.train.steps=many", "flag --config.train.steps=many"),
        ("--config.train.steps.x=1", "--config.*steps"),
    ],
)
def test_changes_that_do_not_fit_are_refused(argument, message):
    with pytest.raises(InputError, match=message):
        override(base.get_config(), [argument])


def test_a_changed_config_is_locked():
    config = ConfigDict({"train": {"steps": 1}})
    override(config, ["--config.train.steps=2"])
    assert config.is_locked
    assert config.train.steps == 2
    assert config_file.shipped_folder().name == "configs"
