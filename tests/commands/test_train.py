"""Whole runs on the embedded MRI, with a network of a few hundred weights."""

import json
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import time

import flax.linen as nn
import jax
import nibabel
import numpy as np
import optax
import pytest
from ml_collections import ConfigDict
from PIL import Image

import unet_jax
from unet_jax.commands.evaluate import evaluate_run
from unet_jax.commands.predict import predict_files
from unet_jax.commands.train import train_and_evaluate
from unet_jax.configs import smoke
from unet_jax.errors import InputError, RunError
from unet_jax.experiment import network, run
from unet_jax.experiment.finished import form_of, init_from
from unet_jax.experiment.network import create_network
from unet_jax.training.checkpoint import Checkpoints
from unet_jax.training.step import create_train_state

ROOT = pathlib.Path(__file__).parents[2]
pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("one_device", "no_figures")]

SMALL = {
    "model.options.features": (4, 8),
    "train.steps": 6,
    "train.patch_size": (32, 32),
    "eval.every_steps": 2,
    "eval.train_images": 2,
    "eval.distance": False,
    "eval.overlap": 0.0,
    "eval.window_batch": 16,
    "log.every_steps": 2,
    "log.overlays": 1,
    "optimizer.warmup_steps": 1,
}


@pytest.fixture(scope="module")
def shared(tmp_path_factory) -> pathlib.Path:
    """Folder of the prepared data."""
    return tmp_path_factory.mktemp("shared")


def _config(shared, **changes) -> ConfigDict:
    """Return a config that trains in seconds, without augmentation."""
    config = smoke.get_config()
    config.augment.enabled = False
    config.data.data_dir = str(shared / "data")
    config.update_from_flattened_dict(SMALL)
    config.update_from_flattened_dict(changes)
    return config.lock()


def _command(shared, workdir, *extra) -> list[str]:
    flags = [f"--config.{key}={value}" for key, value in SMALL.items()]
    return [
        sys.executable,
        "-m",
        "unet_jax.main",
        "--config=configs/smoke.py",
        f"--workdir={workdir}",
        f"--config.data.data_dir={shared / 'data'}",
        *flags,
        *extra,
    ]


def _run(shared, workdir, *extra) -> subprocess.CompletedProcess[str]:
    """Run the command on one device, in its own process."""
    return subprocess.run(
        _command(shared, workdir, *extra),
        cwd=ROOT,
        env={**os.environ, "JAX_NUM_CPU_DEVICES": "1"},
        capture_output=True,
        text=True,
        timeout=900,
        check=False,
    )


@pytest.fixture(scope="module")
def finished(shared) -> pathlib.Path:
    """Workdir of an uninterrupted run."""
    workdir = shared / "finished"
    answer = _run(shared, workdir)
    assert answer.returncode == 0, answer.stderr
    (workdir / "stdout.txt").write_text(answer.stdout)
    (workdir / "stderr.txt").write_text(answer.stderr)
    return workdir


def _final_state(workdir):
    with Checkpoints(workdir / "checkpoints", read_only=True) as checkpoints:
        return checkpoints.restore_raw(None)


def _assert_equal_runs(first, second):
    """Check that parameters, optimizer state, metrics and scores have equal bits."""
    jax.tree.map(
        np.testing.assert_array_equal, _final_state(first), _final_state(second)
    )
    for name in ("metrics.jsonl", "test_metrics.json"):
        assert (first / name).read_bytes() == (second / name).read_bytes(), name


def test_a_run_leaves_what_the_readme_says(finished):
    assert list(finished.glob("events.out.tfevents.*"))
    record = json.loads((finished / "config.json").read_text())
    assert record["config"]["train"]["steps"] == 6
    assert record["preprocessing"]["intensity"] == "zscore"
    assert set(record["versions"]) >= {"jax", "flax", "python"}
    lines = [
        json.loads(t) for t in (finished / "metrics.jsonl").read_text().split("\n")[:-1]
    ]
    assert [line["step"] for line in lines if "loss" in line] == [2, 4, 6]
    for split in ("train", "val"):
        steps = [x["step"] for x in lines if x["split"] == split and "dice" in x]
        assert steps == [2, 4, 6]
    figures = {path.name for path in (finished / "figures").glob("*.png")}
    assert figures >= {"curves.png", "reliability.png"}
    assert len(figures) == 3
    timing = (finished / "timing.jsonl").read_text()
    assert "images_per_second" in timing
    page = (ROOT / "docs" / "results.md").read_text()
    for path in finished.iterdir():
        name = path.name.split("tfevents")[0]
        assert f"`{name}" in page or path.suffix == ".txt", path.name
    table = (finished / "per_case.csv").read_text().splitlines()
    assert len(table) == 1 + 3
    results = json.loads((finished / "test_metrics.json").read_text())
    assert set(results["mean"]) >= {"dice", "iou", "hd95", "nsd", "dice_micro"}
    assert results["ci95"] is None
    assert "found 1" in results["ci95_note"]
    prediction = nibabel.load(next((finished / "predictions").glob("*.nii.gz")))
    assert prediction.shape == (197, 233, 22)
    np.testing.assert_allclose(prediction.header.get_zooms(), 1.0)


def test_the_start_says_what_will_run(finished):
    stdout = (finished / "stdout.txt").read_text()
    assert "parameters" in stdout
    assert "GFLOP" in stdout
    assert "1 x cpu" in stdout
    assert "white matter" in stdout
    stderr = (finished / "stderr.txt").read_text()
    assert "step 6/6 (100 %)" in stderr
    assert "ETA" in stderr
    assert "val Dice" in stderr


def test_a_complete_run_says_so_and_does_nothing(shared, finished):
    def contents():
        return {
            path: path.stat().st_mtime_ns
            for path in finished.rglob("*")
            if path.is_file() and path.name != "config.json"
        }

    before = contents()
    answer = _run(shared, finished)
    assert answer.returncode == 0, answer.stderr
    assert "is complete" in answer.stdout
    assert contents() == before


def test_a_killed_run_ends_as_if_left_alone(shared, finished):
    workdir = shared / "killed"
    process = subprocess.Popen(
        _command(shared, workdir),
        cwd=ROOT,
        env={**os.environ, "JAX_NUM_CPU_DEVICES": "1"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    limit = time.monotonic() + 240
    while not (workdir / "checkpoints" / "4").exists():
        assert process.poll() is None, "the run ended before it could be killed"
        assert time.monotonic() < limit
        time.sleep(0.002)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not (workdir / "test_metrics.json").exists()
    answer = _run(shared, workdir)
    assert answer.returncode == 0, answer.stderr
    assert "resumed at step 4 of 6" in answer.stdout
    _assert_equal_runs(workdir, finished)


def test_evaluate_needs_the_workdir_alone_and_gives_the_same(finished):
    path = finished / "test_metrics.json"
    before = path.read_bytes()
    path.unlink()
    evaluate_run(finished)
    assert path.read_bytes() == before


@pytest.fixture(scope="module")
def volume(tmp_path_factory) -> pathlib.Path:
    """Return three volumes of the same voxels, stored in three ways."""
    folder = tmp_path_factory.mktemp("volumes")
    voxels, affine = _template_part()
    nibabel.save(nibabel.Nifti1Image(voxels, affine), folder / "ras.nii.gz")
    image = nibabel.Nifti1Image(voxels, affine)
    turned = image.as_reoriented(nibabel.orientations.axcodes2ornt(("P", "I", "L")))
    nibabel.save(turned, folder / "pil.nii.gz")
    deep = nibabel.Nifti1Image(voxels.astype(np.uint16) * 257, affine)
    nibabel.save(deep, folder / "deep.nii.gz")
    return folder


def _template_part():
    """Return a few slices of the template and their affine."""
    from unet_jax.datasets.mni152_tissue.mni152_tissue_dataset_builder import (
        load_template,
    )

    return load_template("t1")[40:150, 60:180, 120:124], np.eye(4)


def test_prediction_does_not_depend_on_how_a_volume_is_stored(
    finished, volume, tmp_path
):
    predict_files(finished, input_path=str(volume), output_folder=str(tmp_path))
    maps = {path.name: nibabel.load(path) for path in tmp_path.glob("*.nii.gz")}
    expected = np.asarray(maps["ras.nii.gz"].dataobj)
    assert len(np.unique(expected)) > 1
    np.testing.assert_array_equal(np.asarray(maps["deep.nii.gz"].dataobj), expected)
    stored = nibabel.load(volume / "pil.nii.gz")
    turned = maps["pil.nii.gz"]
    assert turned.shape == stored.shape
    np.testing.assert_allclose(turned.affine, stored.affine)
    back = nibabel.as_closest_canonical(turned)
    np.testing.assert_array_equal(np.asarray(back.dataobj), expected)
    rows = (tmp_path / "classes.csv").read_text().splitlines()
    assert rows[0] == "file,class,pixels,area_mm2,volume_ml,objects"
    assert len(rows) == 1 + 3 * 4
    assert len(list((tmp_path / "overlays").glob("*.png"))) == 3


def test_pictures_are_predicted_and_the_bad_ones_named(finished, tmp_path):
    voxels, _ = _template_part()
    inputs, outputs = tmp_path / "in", tmp_path / "out"
    inputs.mkdir()
    Image.fromarray(voxels[:, :, 0]).save(inputs / "slice.png")
    Image.fromarray(voxels[:, :, 0]).convert("RGB").save(inputs / "color.png")
    (inputs / "cut.png").write_bytes((inputs / "slice.png").read_bytes()[:200])
    with pytest.raises(InputError, match="2 of 3 images not segmented") as error:
        predict_files(finished, input_path=str(inputs), output_folder=str(outputs))
    assert "color.png: 3 channels; expected 1" in error.value.details[0]
    assert "cut.png" in error.value.details[1]
    label_map = Image.open(outputs / "slice.png")
    assert label_map.mode == "P"
    assert label_map.size == (120, 110)
    record = json.loads((finished / "config.json").read_text())
    colors = record["config"]["data"]["class_colors"]
    assert label_map.getpalette()[:12] == [part for color in colors for part in color]


def _as_of_version_0_1(workdir):
    """Rewrite the record of a run as version 0.1 wrote it."""
    path = workdir / "config.json"
    record = json.loads(path.read_text())
    del record["draws_version"], record["networks_version"]
    augment = record["config"]["augment"]
    del augment["extra"]
    augment["spatial_axes_flip"] = augment.pop("flip_axes")
    path.write_text(json.dumps(record))


def test_augmented_training_of_version_0_1_is_not_resumed(shared, finished, tmp_path):
    old = tmp_path / "old"
    shutil.copytree(finished, old)
    _as_of_version_0_1(old)
    scores = (old / "test_metrics.json").read_bytes()
    train_and_evaluate(_config(shared, **{"augment.enabled": True}), old)
    evaluate_run(old)
    assert (old / "test_metrics.json").read_bytes() == scores
    longer = _config(shared, **{"augment.enabled": True, "train.steps": 8})
    for _ in range(2):  # the first refusal leaves the record as it was
        with pytest.raises(
            InputError, match=r"finish it with unet_jax 0\.1\.0, or nam"
        ):
            train_and_evaluate(longer, old)


def test_a_residual_encoder_of_version_0_1_goes_on_as_what_it_was(
    shared, tmp_path, monkeypatch
):
    options = {
        "model.options.convolutions_per_stage": (1, 1),
        "model.options.deep_supervision": 0,
    }
    run.create_run(
        _config(shared, **options, **{"model.name": "residual_encoder_v0"}), tmp_path
    )
    path = tmp_path / "config.json"
    path.write_text(path.read_text().replace("residual_encoder_v0", "residual_encoder"))
    _as_of_version_0_1(tmp_path)
    monkeypatch.setattr(run, "has_checkpoint", lambda workdir: True)
    config = _config(shared, **options, **{"model.name": "residual_encoder"})
    for _ in range(2):  # the first start writes the record again
        resumed = run.create_run(config, tmp_path)
        assert resumed.config.model.name == "residual_encoder_v0"
        assert resumed.network.network.block == "residual"


def test_another_config_is_refused_with_both_values(shared, finished):
    answer = _run(shared, finished, "--config.train.batch_size=8")
    assert answer.returncode == 2
    assert "its run has train.batch_size=4, this config 8" in answer.stderr
    assert answer.stderr.count("\n") == 1


def test_a_config_that_saved_nothing_may_be_another(shared, tmp_path):
    broken = _config(
        shared,
        **{
            "optimizer.learning_rate": 1e38,
            "optimizer.gradient_clip": 0.0,
            "eval.every_steps": 6,
        },
    )
    with pytest.raises(RunError, match="no checkpoint was saved yet"):
        train_and_evaluate(broken, tmp_path)
    assert (tmp_path / "config.json").exists()
    train_and_evaluate(_config(shared, **{"train.steps": 2}), tmp_path)
    assert int(_final_state(tmp_path)["step"]) == 2


def test_more_steps_go_on_from_the_last_checkpoint(shared, tmp_path):
    config = _config(shared, **{"train.steps": 2})
    train_and_evaluate(config, tmp_path)
    first = json.loads((tmp_path / "test_metrics.json").read_text())
    longer = _config(shared, **{"train.steps": 4, "log.every_steps": 1})
    _as_of_version_0_1(tmp_path)  # which has no draws that differ, without augmentation
    results = train_and_evaluate(longer, tmp_path)
    assert first["checkpoint_step"] == 2
    assert results["checkpoint_step"] in (2, 4)
    steps = [
        json.loads(line)["step"]
        for line in (tmp_path / "metrics.jsonl").read_text().splitlines()
    ]
    assert steps == sorted(steps)
    assert steps[-1] == 4


def test_weights_of_another_run_are_taken_and_what_is_skipped_named(
    shared, finished, tmp_path, capsys
):
    config = _config(
        shared,
        **{
            "init_from": str(finished),
            "model.options.features": (4, 6),
            "train.steps": 2,
        },
    )
    train_and_evaluate(config, tmp_path)
    printed = capsys.readouterr().out
    assert f"init_from {finished}" in printed
    assert (
        "skipped encoder_1/convolution_0/kernel: (3, 3, 4, 8) in the source" in printed
    )
    assert "skipped encoder_0/" not in printed


def test_a_start_from_another_run_has_its_weights_and_statistics(shared, finished):
    config = _config(shared)
    network = create_network(config, axis_name=None)
    state = create_train_state(
        network, optax.sgd(1.0), seed=1, input_shape=(32, 32, 1), ema=True
    )
    started = init_from(state, finished, network)
    with Checkpoints(finished / "checkpoints", read_only=True) as checkpoints:
        source = checkpoints.restore_raw(checkpoints.best_step())
    assert jax.tree.leaves(source["batch_stats"])
    equal = np.testing.assert_array_equal
    jax.tree.map(equal, started.params, source["params"])
    jax.tree.map(equal, started.ema_params, source["params"])
    jax.tree.map(equal, started.batch_stats, source["batch_stats"])
    jax.tree.map(equal, started.ema_batch_stats, source["batch_stats"])


def test_a_start_with_other_channels_fits_the_first_kernel(shared, finished, capsys):
    config = _config(shared)
    network = create_network(config, axis_name=None)
    state = create_train_state(
        network, optax.sgd(1.0), seed=1, input_shape=(32, 32, 2), ema=False
    )
    form = form_of(config, 2)
    started = init_from(state, finished, network, form)
    with Checkpoints(finished / "checkpoints", read_only=True) as checkpoints:
        source = checkpoints.restore_raw(checkpoints.best_step())
    name = "convolution_0"
    found, before = (
        one["encoder_0"][name]["kernel"] for one in (started.params, source["params"])
    )
    np.testing.assert_allclose(found, np.repeat(before / 2, 2, axis=-2))
    assert (
        "fitted encoder_0/convolution_0/kernel: 1 channels" in capsys.readouterr().out
    )


def test_a_start_from_a_run_of_which_nothing_fits_is_refused(shared, finished):
    options = {"model.options.features": (5, 7), "model.options.norm": "none"}
    network = create_network(_config(shared, **options), axis_name=None)
    state = create_train_state(
        network, optax.sgd(1.0), seed=1, input_shape=(32, 32, 1), ema=False
    )
    with pytest.raises(InputError) as caught:
        init_from(state, finished, network)
    # The bias of the head fits, since the classes are as many.
    assert f"init_from: no kernel of {finished} fits this network" in str(caught.value)
    assert "take model.name and model.options from the config.json" in str(caught.value)


def test_the_binary_family_trains_with_weights_from_the_training_split(
    shared, tmp_path
):
    loss = (
        ("focal", 1.0, {"alpha": "inverse_frequency"}),
        ("balanced_bce", 0.5, {}),
        ("dice", 1.0, {}),
    )
    config = _config(shared, loss=loss, **{"model.head": "sigmoid", "train.steps": 2})
    train_and_evaluate(config, tmp_path / "run")
    lines = (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()
    values = json.loads(lines[0])
    assert all(values[f"{name}_loss"] > 0 for name, _, _ in loss)


def test_training_stops_when_validation_does_not_rise(shared, tmp_path):
    config = _config(
        shared,
        **{
            "optimizer.learning_rate": 0.0,
            "train.early_stopping_patience": 1,
            # Batch norm's statistics would move the score without any learning.
            "model.options.norm": "instance",
            "train.steps": 20,
            "train.ema_decay": 0.9,
        },
    )
    train_and_evaluate(config, tmp_path)
    state = _final_state(tmp_path)
    assert int(state["step"]) == 4
    assert "ema_params" in state
    # It stays stopped: the same call again has nothing to do.
    train_and_evaluate(config, tmp_path)
    assert int(_final_state(tmp_path)["step"]) == 4


def test_a_loss_that_is_not_finite_stops_the_run(shared, tmp_path):
    config = _config(
        shared, **{"optimizer.learning_rate": 1e38, "optimizer.gradient_clip": 0.0}
    )
    # Weights that the second update made too large: validation still scores them, and
    # the next loss tells which step it was.
    with pytest.raises(RunError, match=r"step 3: loss is nan.* last good .* step 2$"):
        train_and_evaluate(config, tmp_path)
    assert not (tmp_path / "test_metrics.json").exists()


def test_the_profiler_writes_a_trace(shared, tmp_path):
    config = _config(shared, **{"train.steps": 4})
    train_and_evaluate(config, tmp_path, profile=(2, 3))
    assert list((tmp_path / "profile").rglob("*.xplane.pb"))


def test_a_run_builds_its_network_and_its_step_once(shared, tmp_path, monkeypatch):
    built = []

    def counted(function):
        def call(*args, **kwargs):
            built.append(function.__name__)
            return function(*args, **kwargs)

        return call

    for where, name in (
        (network, "create_model"),
        (run, "make_train_step"),
        (run, "open_dataset"),
        (nn.Module, "init_with_output"),
        (nn.Module, "apply"),
    ):
        monkeypatch.setattr(where, name, counted(getattr(where, name)))
    train_and_evaluate(_config(shared, **{"train.steps": 2}), tmp_path)
    assert built == [
        "open_dataset",
        "create_model",
        "init_with_output",  # shapes of its outputs
        "make_train_step",
        "init_with_output",  # first weights
        "apply",  # the step
        "apply",  # validation, and the test split
    ]


def test_the_checkpoint_that_is_scored_is_the_best_or_the_last(
    shared, tmp_path, monkeypatch, capsys
):
    falling = iter((0.9, 0.5) * 2)
    monkeypatch.setattr("unet_jax.commands.train.score_of", lambda _: next(falling))
    for choose, step in (("best", 2), ("last", 4)):
        changes = {"train.steps": 4, "eval.choose": choose}
        train_and_evaluate(_config(shared, **changes), tmp_path / choose)
        said = capsys.readouterr().out
        assert f"test split with the checkpoint of step {step}:" in said
        assert unet_jax.load(tmp_path / choose).step == step
