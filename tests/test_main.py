"""The command line as a user meets it: one line, an exit code, no traceback."""

import os
import subprocess
import sys

import pytest

from unet_jax import main
from unet_jax.errors import InputError

ROOT = __file__.rsplit("/tests/", 1)[0]


def _main(*arguments, cwd=ROOT, **variables):
    return subprocess.run(
        [sys.executable, "-m", "unet_jax.main", *arguments],
        cwd=cwd,
        env={**os.environ, **variables},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


BRAIN = "--config=configs/brain.py"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "--config: found nothing, expected a path, or the name of a shipped"),
        (["--config=configs/no.py"], "--config: no file 'configs/no.py'"),
        (["--config=setup.cfg"], "--config: setup.cfg cannot be loaded: SyntaxError"),
        ([BRAIN, "--confg=x"], "Unknown command line flag 'confg'"),
        (
            [BRAIN, "--config.trian.steps=3"],
            "--config.trian.steps=3: the config has no key 'trian'; "
            "did you mean 'train'?",
        ),
        (
            [BRAIN, "--config.train.stepz=3"],
            "--config.train.stepz=3: the config has no key 'stepz'; "
            "did you mean 'steps'?",
        ),
        ([BRAIN, "--config.train.steps=many"], "flag --config.train.steps=many"),
        (
            [BRAIN, "--mode=fly"],
            "should be one of <train|crossvalidate|evaluate|predict|compare|verify|"
            "plan|import_nnunet|export_nnunet|export|report>",
        ),
        ([BRAIN, "brain.nii"], "found the argument 'brain.nii', expected flags only"),
        ([BRAIN, "--profile=7"], "--profile: found '7', expected START:STOP"),
        ([BRAIN, "--profile=7:3"], "--profile: found '7:3', expected START:STOP"),
        (["--mode=compare"], "--mode=compare needs --workdir=FOLDER"),
        (["--mode=compare", "--runs=a"], "--runs: found one folder, expected at least"),
        (
            [BRAIN, "--mode=compare", "--config.compare.methods=('otsoo',)"],
            "compare.methods: unknown method 'otsoo'; expected any of manual_threshold",
        ),
        (["--mode=plan"], "--config: found nothing, expected a path"),
        (["--mode=import_nnunet"], "--mode=import_nnunet needs --input=MODEL_FOLDER"),
        (
            ["--mode=import_nnunet", "--input=a", "--workdir=gs://bucket/a"],
            "--workdir: found 'gs://bucket/a', expected a folder of this disk",
        ),
        ([BRAIN, "--mode=plan"], "found neither data.path nor --topology"),
        (
            [BRAIN, "--mode=plan", "--topology=v9:4x4"],
            "--topology: found 'v9:4x4', expected a kind of TPU and the shape",
        ),
        ([BRAIN, "--mode=plan", "--channels=0"], "flag --channels=0"),
        (
            [BRAIN, "--workdir=s3://bucket/brain"],
            "--workdir: found 's3://bucket/brain', expected a path of a file system, "
            "or gs://BUCKET/FOLDER",
        ),
        (
            ["--mode=compare", "--runs=a,s3://bucket/b"],
            "--runs: found 's3://bucket/b', expected a path of a file system, or gs:",
        ),
        (
            ["--mode=predict", "--workdir=x", "--input=gs://bucket/scans"],
            "--input: found 'gs://bucket/scans', expected a path of a file system: ",
        ),
        (
            ["--mode=evaluate", "--workdir=gs://bucket"],
            "--workdir gs://bucket: expected gs://BUCKET/FOLDER",
        ),
        (
            ["--mode=evaluate", "--workdir=gs://Bad!/run"],
            'Invalid GCS bucket name: "Bad!"; expected gs://BUCKET/FOLDER',
        ),
        (["--mode=evaluate"], "--mode=evaluate needs --workdir=FOLDER"),
        (["--mode=predict"], "--mode=predict needs --workdir=FOLDER"),
        (["--mode=predict", "--workdir=x"], "--mode=predict needs --input=PATH"),
        (
            ["--mode=predict", "--workdir=x", "--input=y"],
            "--mode=predict needs --output=PATH",
        ),
    ],
)
def test_a_mistake_is_one_line_and_exit_code_2(
    command_line, monkeypatch, arguments, message
):
    monkeypatch.chdir(ROOT)
    answer = command_line(*arguments)
    assert answer.code == 2, answer.stderr
    assert answer.stdout == ""
    assert answer.stderr.startswith("unet_jax: error: ")
    assert message in answer.stderr
    assert answer.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["--config.model.name=vnet"],
            "model.name: unknown network 'vnet';",
        ),
        (["--config.model.options.norm=layer"], "layer"),
        (["--config.train.batch_size=3"], "train.batch_size: found 3, expected a"),
        (["--config.data.test_split=exam"], "exam"),
        (["--config.data.name=mni153"], "mni153"),
        (["--config.optimizer.name=lion"], "unknown optimizer 'lion'"),
        (["--config.loss=(('dyce', 1.0, {}),)"], "unknown loss 'dyce'; expected one"),
        (["--config.loss=(('dice', 1.0, {'beta': 2}),)"], "has no parameter 'beta'"),
        (["--config.optimizer.warmup_steps=99999"], "optimizer.warmup_steps: found"),
        (["--config.augment.gamma_probability=1.5"], "gamma_probability"),
        (["--config.data.class_names=('a','b','c')"], "data.class_colors: found 4"),
        (["--config.seed=-1"], "seed: found -1, expected 0 to"),
    ],
)
def test_a_config_that_cannot_run_stops_before_training(
    command_line, monkeypatch, tmp_path, arguments, message
):
    monkeypatch.chdir(ROOT)
    command = [BRAIN, f"--workdir={tmp_path / 'run'}", *arguments]
    # There are several devices, so that a batch of three does not divide.
    answer = command_line(*command, f"--config.data.data_dir={tmp_path / 'data'}")
    assert answer.code == 2, answer.stderr
    assert message in answer.stderr
    assert answer.stderr.count("\n") == 1, answer.stderr
    assert not (tmp_path / "run" / "checkpoints").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([BRAIN, "--confg=x"], "Unknown command line flag 'confg'"),
        ([BRAIN, "--config.data.test_split=exam"], "exam"),
    ],
)
def test_a_whole_process_ends_in_the_same_way(tmp_path, arguments, message):
    answer = _main(*arguments, f"--workdir={tmp_path}/run")
    assert answer.returncode == 2, answer.stderr
    assert answer.stdout == ""
    assert answer.stderr.startswith("unet_jax: error: ")
    assert message in answer.stderr
    assert answer.stderr.count("\n") == 1


@pytest.mark.parametrize(
    "variable", [{"JAX_PLATFORMS": "gpuu"}, {"JAX_PLATFORM_NAME": "cuda"}]
)
def test_a_platform_that_is_not_there_is_one_line(tmp_path, variable):
    answer = _main(
        BRAIN, f"--workdir={tmp_path}/run", **{"JAX_PLATFORMS": "", **variable}
    )
    ((name, value),) = variable.items()
    assert answer.returncode == 2, answer.stderr
    assert answer.stderr.startswith(f"unet_jax: error: {name}={value}: found no such ")
    assert "expected one of its platforms: cpu" in answer.stderr
    assert answer.stderr.count("\n") == 1, answer.stderr
    assert not (tmp_path / "run").exists()


def test_help_loads_nothing_heavy():
    code = (
        "import sys; from absl import app, flags; import unet_jax.main; "
        "heavy = {'jax', 'flax', 'orbax', 'tensorflow_datasets', 'matplotlib'}; "
        "print(sorted(heavy & set(sys.modules)))"
    )
    answer = subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    assert answer.stdout == "[]\n"
    shown = _main("--help")
    assert shown.returncode == 0
    assert "--workdir" in shown.stdout


def test_debug_shows_the_traceback():
    answer = _main("--debug", "--config=configs/no.py")
    assert "Traceback" in answer.stderr
    assert answer.returncode == 1


@pytest.mark.parametrize(("count", "shown"), [(20, 20), (21, 21), (300, 21)])
def test_a_listing_has_20_lines_and_a_count(count, shown, capsys):
    main._say(InputError("many problems:", [f"problem {n}" for n in range(count)]))
    first, *lines = capsys.readouterr().err.splitlines()
    assert first == "unet_jax: error: many problems:"
    assert len(lines) == shown
    assert (lines[-1] == f"  and {count - 20} more") == (count > 20)
