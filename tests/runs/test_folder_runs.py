"""Runs on a user's own files, from the folder to the scores."""

import functools
import itertools
import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import nibabel
import numpy as np
import pytest
import tifffile
from ml_collections import ConfigDict
from PIL import Image

from unet_jax.commands.evaluate import evaluate_run
from unet_jax.commands.predict import predict_files
from unet_jax.commands.train import train_and_evaluate
from unet_jax.configs import folder
from unet_jax.errors import InputError
from unet_jax.experiment.finished import load_run
from unet_jax.inference.uncertainty import entropy
from unet_jax.training.pace import ClockPace

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("one_device", "no_figures")]

PALETTE = ((0, 0, 0), (200, 30, 30), (30, 30, 200))
SMALL = {
    "model.base_features": 4,
    "model.max_features": 8,
    "train.max_patch": 32,
    "train.memory_gib": 0.002,
    "train.steps": 80,
    "eval.every_steps": 40,
    "eval.train_images": 2,
    "eval.mirror": False,
    "log.every_steps": 5,
    "log.overlays": 1,
    "optimizer.warmup_steps": 2,
    "optimizer.learning_rate": 1e-2,
}


def _config(path, **changes) -> ConfigDict:
    """Return a config that trains in seconds."""
    config = folder.get_config()
    config.augment.enabled = False
    config.data.path = str(path)
    config.update_from_flattened_dict({**SMALL, **changes})
    return config.lock()


def _scene(seed, size=(40, 48)):
    """Two kinds of discs on noise: the label, and how bright and how red it is."""
    rng = np.random.default_rng(seed)
    rows, columns = np.indices(size)
    label = np.zeros(size, np.uint8)
    for index in (1, 2, 1, 2):
        place = rng.integers(6, np.array(size) - 6)
        disc = (rows - place[0]) ** 2 + (columns - place[1]) ** 2 < 25
        label[disc] = index
    return label, rng.normal(0, 0.05, (*size, 3))


def _colors(label, noise):
    """An RGB picture in which the classes have colours of their own."""
    values = np.array([[0.3, 0.3, 0.3], [0.8, 0.4, 0.3], [0.3, 0.4, 0.8]])[label]
    return np.clip(values + noise, 0, 1)


@pytest.fixture(scope="module")
def rgb_set(tmp_path_factory):
    """Colour pictures with colour masks, of three sizes."""
    path = tmp_path_factory.mktemp("rgb")
    for name in ("images", "masks"):
        (path / name).mkdir()
    for seed in range(8):
        label, noise = _scene(seed, (40 + 3 * (seed % 3), 48))
        picture = (255 * _colors(label, noise)).astype(np.uint8)
        Image.fromarray(picture).save(path / f"images/{seed}.png")
        Image.fromarray(np.uint8(PALETTE)[label]).save(path / f"masks/{seed}.png")
    return path


@pytest.fixture(scope="module")
def rgb_run(rgb_set, tmp_path_factory):
    """A finished run on it."""
    workdir = tmp_path_factory.mktemp("runs") / "rgb"
    train_and_evaluate(_config(rgb_set, **{"data.palette": PALETTE}), workdir)
    return workdir


def test_an_rgb_set_with_colour_masks_runs_end_to_end(rgb_run):
    results = json.loads((rgb_run / "test_metrics.json").read_text())
    assert set(results["per_class"]) == {"class_1", "class_2"}
    # The colour tells the classes: a network that learnt nothing scores under 0.2.
    assert results["mean"]["dice"] > 0.5
    config = json.loads((rgb_run / "config.json").read_text())["config"]
    assert config["data"]["intensity"] == "full_range"
    assert config["data"]["label_map"] == [[0, 0], [1, 1], [2, 2]]
    assert config["augment"]["flip_axes"] == [1]
    assert len(list((rgb_run / "predictions").glob("*.png"))) == results["n_cases"]


def test_a_tiff_set_of_three_channels_runs_end_to_end(tmp_path, capsys):
    for seed in range(6):
        label, noise = _scene(seed)
        image = np.moveaxis(60000 * _colors(label, noise), -1, 0).astype(np.uint16)
        patient = tmp_path / f"set/p{seed // 2}"
        patient.mkdir(parents=True, exist_ok=True)
        tifffile.imwrite(
            patient / f"{seed}.tif",
            image,
            photometric="minisblack",
            metadata={"axes": "CYX"},
        )
        tifffile.imwrite(patient / f"{seed}_mask.tif", label)
    names = ("background", "red", "blue")
    config = _config(tmp_path / "set", **{"data.class_names": names})
    results = train_and_evaluate(config, tmp_path / "run")
    assert results["mean"]["dice"] > 0.5
    assert {row["group"] for row in results["per_case"]} < {"p0", "p1", "p2"}
    printed = capsys.readouterr().out
    assert "masks beside the images, with the suffix _mask" in printed
    assert (
        "6 cases, median size 40 x 48, no known spacing, 3 channels, uint16" in printed
    )
    assert "network     2-D unet, " in printed


def test_evaluate_needs_the_workdir_and_the_unchanged_cases_of_its_splits(
    rgb_run, rgb_set
):
    path = rgb_run / "test_metrics.json"
    before = path.read_bytes()
    path.unlink()
    evaluate_run(rgb_run)
    assert path.read_bytes() == before
    added = rgb_set / "images" / "new.png"
    picture = Image.open(rgb_set / "images/0.png")
    Image.fromarray(255 - np.asarray(picture)).save(added)
    mask = rgb_set / "masks" / "new.png"
    mask.write_bytes((rgb_set / "masks/0.png").read_bytes())
    # A new case is in no split: the recorded ones are read, and nothing is drawn.
    path.unlink()
    evaluate_run(rgb_run)
    assert path.read_bytes() == before
    added.unlink()
    mask.unlink()
    changed = rgb_set / "images/0.png"
    stored = changed.read_bytes()
    Image.fromarray(255 - np.asarray(picture)).save(changed)
    with pytest.raises(InputError, match="the data changed since its run began"):
        evaluate_run(rgb_run)
    with pytest.raises(InputError, match="the data changed since its run began"):
        train_and_evaluate(_config(rgb_set, **{"data.palette": PALETTE}), rgb_run)
    changed.write_bytes(stored)


def test_probabilities_and_contours_of_new_files(rgb_run, rgb_set, tmp_path):
    for inputs in (rgb_set / "images", rgb_set / "images/0.png"):
        with pytest.raises(InputError, match="is the folder of the images"):
            predict_files(
                rgb_run, input_path=str(inputs), output_folder=str(rgb_set / "images")
            )
    predict_files(
        rgb_run,
        input_path=str(rgb_set / "images/0.png"),
        output_folder=str(tmp_path),
        probabilities=True,
        contours=True,
    )
    labels = np.asarray(Image.open(tmp_path / "0.png"))
    scores = np.load(tmp_path / "0.probabilities.npy")
    assert scores.dtype == np.float16
    assert scores.shape == (*labels.shape, 3)
    np.testing.assert_allclose(scores.astype(np.float32).sum(-1), 1, atol=2e-3)
    certain = np.sort(scores, axis=-1)
    clear = certain[..., -1] - certain[..., -2] > 0.01
    np.testing.assert_array_equal(scores.argmax(-1)[clear], labels[clear])
    outlines = json.loads((tmp_path / "0.geojson").read_text())["features"]
    pixels = {"class_1": 0, "class_2": 0}
    for outline in outlines:
        name = outline["properties"]["classification"]["name"]
        pixels[name] += outline["properties"]["pixels"]
    assert pixels == {"class_1": (labels == 1).sum(), "class_2": (labels == 2).sum()}


def test_a_run_by_the_clock_ends_and_is_complete(
    rgb_set, tmp_path, capsys, monkeypatch
):
    # A clock that goes on when it is looked at: a busy machine changes nothing.
    ticks = itertools.count(time.monotonic(), 0.02)
    pace = functools.partial(ClockPace, clock=lambda: next(ticks))
    monkeypatch.setattr("unet_jax.training.pace.ClockPace", pace)
    config = _config(rgb_set, **{"data.palette": PALETTE, "train.max_minutes": 0.1})
    results = train_and_evaluate(config, tmp_path)
    assert "cannot be reproduced bit by bit" in capsys.readouterr().out
    lines = [
        json.loads(x) for x in (tmp_path / "metrics.jsonl").read_text().splitlines()
    ]
    rates = [line["learning_rate"] for line in lines if "learning_rate" in line]
    assert rates[-1] < 0.1 * max(rates)
    assert train_and_evaluate(config, tmp_path) == results
    assert "nothing to do" in capsys.readouterr().out


def test_a_run_by_the_clock_that_is_killed_has_the_time_that_was_left(
    rgb_set, tmp_path
):
    changes = {**SMALL, "data.path": rgb_set, "data.palette": PALETTE}
    command = [sys.executable, "-m", "unet_jax.main", "--config=configs/folder.py"]
    command += [f"--config.{key}={value}" for key, value in changes.items()]
    command += [f"--workdir={tmp_path}", "--config.augment.enabled=False"]
    root = Path(__file__).parents[2]
    first = [*command, "--config.train.max_minutes=1"]
    process = subprocess.Popen(first, cwd=root, stdout=subprocess.DEVNULL)
    limit = time.monotonic() + 400
    while not (saved := _saved_seconds(tmp_path)):
        assert process.poll() is None, "the run ended before it could be killed"
        assert time.monotonic() < limit
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    began = time.monotonic()
    # Little more than was used: it is over soon only if that time still counts.
    minutes = (saved[0] + 5) / 60
    answer = subprocess.run(
        [*command, f"--config.train.max_minutes={minutes}"],
        cwd=root,
        capture_output=True,
        text=True,
        check=False,
    )
    elapsed = time.monotonic() - began
    assert answer.returncode == 0, answer.stderr
    assert "resumed at step" in answer.stdout
    assert (tmp_path / "test_metrics.json").exists()
    assert saved[0] < max(_saved_seconds(tmp_path)) < saved[0] + elapsed
    lines = (tmp_path / "metrics.jsonl").read_text().splitlines()
    steps = [json.loads(line)["step"] for line in lines]
    assert steps == sorted(steps)


def _saved_seconds(workdir):
    """Return the seconds that each whole checkpoint of a run has on record."""
    return [
        json.loads((sums.parent / "run" / "run.json").read_text())["record"]["seconds"]
        for sums in workdir.glob("checkpoints/*/sha256.json")
        if sums.parent.name.isdigit()  # not one that is being written
    ]


def test_a_network_without_padding_trains_on_the_centres_of_labels(rgb_set, tmp_path):
    changes = {
        "data.palette": PALETTE,
        "model.options.padding": "VALID",
        "model.options.norm": "none",
        "model.options.features": (4, 8),
        "train.patch_size": (36, 36),
        "model.options.dropout": 0.1,
    }
    results = train_and_evaluate(_config(rgb_set, **changes), tmp_path)
    assert results["mean"]["dice"] > 0.3
    changes["train.patch_size"] = (35, 36)
    with pytest.raises(InputError, match=r"\(35, 36\) does not fit .* is \(36, 36\)"):
        train_and_evaluate(_config(rgb_set, **changes), tmp_path / "odd")


def test_volumes_in_3d_patches_with_chosen_postprocessing(tmp_path):
    for seed in range(4):
        rng = np.random.default_rng(seed)
        label = np.zeros((20, 22, 16), np.uint8)
        label[5:12, 6 + seed : 13 + seed, 4:11] = 1
        image = (100 * label + rng.normal(200, 20, label.shape)).astype(np.int16)
        for name, pixels in (("image", image), ("label", label)):
            path = tmp_path / f"set/p{seed}/{name}.nii.gz"
            path.parent.mkdir(parents=True, exist_ok=True)
            volume = nibabel.Nifti1Image(pixels, np.diag([-1.0, 1, 1, 1]))
            nibabel.save(volume, path)
    config = _config(
        tmp_path / "set",
        **{
            "data.dims": 3,
            "eval.postprocess": "auto",
            "train.patch_size": (16, 16, 16),
            "data.cache_gib": 0.0,
        },
    )
    results = train_and_evaluate(config, tmp_path / "run")
    assert results["mean"]["dice"] > 0.5
    steps = json.loads((tmp_path / "run/postprocess.json").read_text())["steps"]
    assert all(
        name in ("largest_component", "min_size", "fill_holes") for name, *_ in steps
    )
    fitted = json.loads((tmp_path / "run/temperature.json").read_text())
    assert results["temperature"] == fitted["temperature"]
    assert results["mean"]["ece_uncalibrated"] is not None
    assert not (tmp_path / "run/prepared/0").exists()
    predict_files(
        tmp_path / "run",
        input_path=str(tmp_path / "set/p0/image.nii.gz"),
        output_folder=str(tmp_path / "out"),
        probabilities=True,
        uncertainty=True,
        contours=True,
    )
    scores = np.load(tmp_path / "out/image.probabilities.npy")
    found = nibabel.load(tmp_path / "out/image.entropy.nii.gz").get_fdata()
    np.testing.assert_allclose(found, entropy(scores.astype(float)), atol=0.02)
    labels = np.asarray(nibabel.load(tmp_path / "out/image.nii.gz").dataobj)
    assert scores.shape == (20, 22, 16, 2)
    # The stored axes run to the left: the probabilities lie as the labels do.
    agree = (scores.argmax(-1) == labels).mean()
    assert agree > 0.97
    assert (tmp_path / "out/image.geojson").exists()


def test_one_volume_of_thick_slices_is_cut_along_them_by_every_start(tmp_path, capsys):
    rng = np.random.default_rng(0)
    label = np.zeros((40, 24, 22), np.uint8)
    label[:, 6:15, 5:13] = 1
    image = (100 * label + rng.normal(200, 20, label.shape)).astype(np.int16)
    (tmp_path / "set").mkdir()
    for name, pixels in (("scan", image), ("scan_seg", label)):
        volume = nibabel.Nifti1Image(pixels, np.diag([6.0, 1, 1, 1]))
        nibabel.save(volume, tmp_path / f"set/{name}.nii.gz")
    changes = {"train.steps": 10, "eval.every_steps": 5, "data.adjacent_slices": 1}
    config = _config(tmp_path / "set", **changes)
    results = train_and_evaluate(config, tmp_path / "run")
    assert [row["id"] for row in results["per_case"]] == ["scan[x 33-40]"]
    before = (tmp_path / "run/test_metrics.json").read_bytes()
    evaluate_run(tmp_path / "run")
    assert (tmp_path / "run/test_metrics.json").read_bytes() == before
    # The network sees the slice and one on each side, here and in new scans.
    run = load_run(tmp_path / "run")
    assert run.predict_fn.members[0].preprocessing.input_channels == 3
    scan = str(tmp_path / "set/scan.nii.gz")
    assert run.predict(scan).shape == label.shape
    assert run.distance(scan) is not None
    with pytest.raises(InputError, match="expected 3, because the network was"):
        run.predict(np.ones((24, 22)))
    # Another run starts from it, although it sees no slices beside its own.
    alone = {**changes, "data.adjacent_slices": 0, "init_from": str(tmp_path / "run")}
    train_and_evaluate(_config(tmp_path / "set", **alone), tmp_path / "alone")
    assert "3 channels of images, 1 here" in capsys.readouterr().out


def test_all_problems_are_printed_before_anything_is_trained(tmp_path):
    for name in ("images", "masks"):
        (tmp_path / name).mkdir()
    for seed in range(5):
        label, _ = _scene(seed)
        Image.fromarray(label).save(tmp_path / f"images/{seed}.png")
        Image.fromarray(label).save(tmp_path / f"masks/{seed}.png")
    (tmp_path / "masks/1.png").unlink()
    (tmp_path / "images/2.png").write_bytes(b"\x89PNG\r\n\x1a\n cut")
    with pytest.raises(InputError, match="found 2 problems; please fix all") as info:
        train_and_evaluate(_config(tmp_path), tmp_path / "run")
    assert len(info.value.details) == 2
    assert not (tmp_path / "run/checkpoints").exists()
