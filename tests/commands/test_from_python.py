"""``unet_jax.load`` and ``unet_jax.train`` give what the commands give."""

import os
import pathlib
import shutil
import subprocess
import sys

import jax
import nibabel
import numpy as np
import pytest
from PIL import Image

import unet_jax
from unet_jax.commands.from_python import differences
from unet_jax.commands.predict import predict_files
from unet_jax.errors import InputError
from unet_jax.training.checkpoint import Checkpoints

CHANGES = {
    "model.options.features": (4, 8),
    "augment.enabled": False,
    "train.steps": 4,
    "train.patch_size": (32, 32),
    "eval.every_steps": 2,
    "eval.train_images": 2,
    "eval.distance": False,
    "eval.overlap": 0.0,
    "eval.metrics": ("dice",),
    "log.overlays": 0,
    "optimizer.warmup_steps": 1,
}


def _run(*command) -> str:
    """Run a process on one device, as a user does."""
    answer = subprocess.run(
        [sys.executable, *map(str, command)],
        env={**os.environ, "JAX_NUM_CPU_DEVICES": "1"},
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert answer.returncode == 0, answer.stderr
    return answer.stdout


@pytest.fixture(scope="module")
def workdir(tmp_path_factory) -> pathlib.Path:
    """Workdir of a run of the command."""
    folder = tmp_path_factory.mktemp("shared")
    flags = [f"--config.{key}={value}" for key, value in CHANGES.items()]
    flags.append(f"--config.data.data_dir={folder / 'data'}")
    _run(
        *("-m", "unet_jax.main", "--config=smoke", f"--workdir={folder / 'run'}"),
        *flags,
    )
    return folder / "run"


@pytest.fixture(scope="module")
def run(workdir):
    """Load the run."""
    return unet_jax.load(str(workdir))


def _parameters(workdir):
    with Checkpoints(workdir / "checkpoints", read_only=True) as checkpoints:
        return checkpoints.restore_raw(None)["params"]


@pytest.mark.slow
def test_train_gives_the_bits_of_the_command(workdir, tmp_path):
    # A notebook has used jax before.
    code = f"""
import jax, jax.numpy as jnp
jnp.ones(3).sum().block_until_ready()
import unet_jax
from unet_jax.configs import smoke
config = smoke.get_config()
config.update_from_flattened_dict({CHANGES!r})
config.data.data_dir = {str(workdir.parent / "data")!r}
before = config.to_dict()
scores = unet_jax.train(config, {str(tmp_path / "run")!r})
assert config.to_dict() == before
print("Dice", scores["mean"]["dice"])
"""
    printed = _run("-c", code)
    assert "unet_jax.train: " not in printed
    assert "Dice 0." in printed
    jax.tree.map(
        np.testing.assert_array_equal,
        _parameters(workdir),
        _parameters(tmp_path / "run"),
    )
    for name in ("metrics.jsonl", "test_metrics.json"):
        assert (workdir / name).read_bytes() == (tmp_path / "run" / name).read_bytes()


def test_a_setting_that_changes_the_bits_is_named(monkeypatch):
    assert differences() == []
    with jax.enable_x64(True) if hasattr(jax, "enable_x64") else _x64():
        (line,) = differences()
        assert line.startswith("jax_enable_x64 is True in this process and False in a ")
        monkeypatch.setenv("JAX_ENABLE_X64", "1")  # a command would have it too
        assert differences() == []
    monkeypatch.delenv("JAX_ENABLE_X64")
    with jax.default_matmul_precision("highest"):
        (line,) = differences()
        assert line.startswith("jax_default_matmul_precision is highest in this proc")


def _x64():
    from jax.experimental import enable_x64

    return enable_x64()


@pytest.mark.slow
def test_a_volume_is_segmented_as_its_file_is(run, workdir, tmp_path):
    volume = np.random.default_rng(0).integers(0, 200, (40, 33, 5)).astype(np.int16)
    spacing = (1.0, 1.5, 3.0)
    path = tmp_path / "in" / "a.nii.gz"
    path.parent.mkdir()
    nibabel.save(nibabel.Nifti1Image(volume, np.diag([*spacing, 1.0])), path)
    predict_files(
        workdir,
        input_path=str(path),
        output_folder=str(tmp_path / "out"),
        probabilities=True,
    )
    expected = np.asarray(nibabel.load(tmp_path / "out" / "a.nii.gz").dataobj)
    stored = np.load(tmp_path / "out" / "a.probabilities.npy")
    for given, known in ((path, None), (str(path), None), (volume, spacing)):
        labels, found = run.predict(given, spacing=known, probabilities=True)
        np.testing.assert_array_equal(labels, expected)
        assert found.dtype == np.float32
        np.testing.assert_array_equal(found.astype(np.float16), stored)
        np.testing.assert_array_equal(run.predict(given, spacing=known), expected)
    with_channels = run.predict(volume[..., None], spacing=spacing)
    np.testing.assert_array_equal(with_channels, expected)
    # The file of another orientation: labels lie on its own grid.
    turned = np.flip(volume, 0).transpose(2, 0, 1)
    affine = np.zeros((4, 4))
    affine[2, 0], affine[0, 1], affine[1, 2], affine[3, 3] = 3.0, -1.0, 1.5, 1.0
    nibabel.save(nibabel.Nifti1Image(turned, affine), tmp_path / "b.nii.gz")
    np.testing.assert_array_equal(
        run.predict(tmp_path / "b.nii.gz"), np.flip(expected, 0).transpose(2, 0, 1)
    )


@pytest.mark.slow
def test_a_picture_is_segmented_as_its_file_is(run, workdir, tmp_path):
    pixels = np.random.default_rng(1).integers(0, 200, (50, 41)).astype(np.uint8)
    path = tmp_path / "in" / "a.png"
    path.parent.mkdir()
    Image.fromarray(pixels).save(path)
    out = tmp_path / "out"
    predict_files(workdir, input_path=str(path), output_folder=str(out))
    expected = np.asarray(Image.open(out / "a.png"))
    for given in (path, pixels, pixels[..., None]):
        np.testing.assert_array_equal(run.predict(given), expected)


@pytest.mark.slow
def test_images_that_do_not_fit_are_refused(run, tmp_path):
    for shape, spacing in [((5,), None), ((9, 9, 9, 2), None), ((9, 9, 9), (1, 1))]:
        with pytest.raises(InputError, match=r"image: found the shape .* expected"):
            run.predict(np.zeros(shape), spacing=spacing)
    with pytest.raises(InputError, match=r"spacing: found .* expected None; a file"):
        run.predict(tmp_path / "a.png", spacing=(1, 1))
    for name in "ab":
        Image.new("L", (40, 40)).save(tmp_path / f"{name}.png")
    with pytest.raises(InputError, match="found 2 images, expected one"):
        run.predict(tmp_path)


def test_a_folder_without_a_run_is_refused(tmp_path):
    with pytest.raises(InputError, match=r"found no config.json, expected the folder"):
        unet_jax.load(tmp_path)


@pytest.mark.slow
@pytest.mark.usefixtures("one_device", "no_figures")
def test_a_workdir_goes_on_with_its_own_config(workdir, tmp_path, command_line):
    copy = tmp_path / "run"
    shutil.copytree(workdir, copy)
    answer = command_line(f"--workdir={copy}", "--config.seed=3")
    assert answer.code == 2
    assert (
        "its run has seed=0, this config 3; give --config.seed=0, or" in answer.stderr
    )
    answer = command_line(f"--workdir={copy}")
    assert answer.code == 0, answer.stderr
    assert "is complete: nothing to do" in answer.stdout
    answer = command_line(f"--workdir={copy}", "--config.train.steps=6")
    assert answer.code == 0, answer.stderr
    assert "resumed at step 4 of 6" in answer.stdout
    with Checkpoints(copy / "checkpoints", read_only=True) as checkpoints:
        assert checkpoints.latest_step() == 6
    answer = command_line("--mode=evaluate", f"--workdir={copy}", "--config.seed=3")
    assert answer.code == 2
    assert "--config.seed=3: --mode=evaluate takes the config that" in answer.stderr


def test_a_folder_without_a_config_is_refused(tmp_path, command_line):
    answer = command_line(f"--workdir={tmp_path}")
    assert answer.code == 2
    assert f"and --workdir {tmp_path} holds no config.json" in answer.stderr
    answer = command_line("--config.train.steps=3")
    assert answer.code == 2
    assert "--config: found nothing, expected a path, or the name" in answer.stderr
