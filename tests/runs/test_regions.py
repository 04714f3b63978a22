"""A run on a set of nnU-Net whose labels are regions of several values."""

import json

import nibabel
import numpy as np
import pytest

from unet_jax.commands.evaluate import evaluate_run
from unet_jax.commands.evaluate_ensemble import evaluate_ensemble
from unet_jax.commands.predict import predict_files
from unet_jax.commands.train import train_and_evaluate
from unet_jax.configs import folder

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("one_device", "no_figures")]

CHANNELS = ("T1", "T1CE", "T2", "FLAIR")
REGIONS = {"whole": [1, 2, 3], "core": [2, 3], "enhancing": [3]}


def _write(path, cases=8, size=(24, 24, 4)):
    """Tumours of edema around a core that enhances in its middle, in four channels."""
    rng = np.random.default_rng(0)
    for part in ("imagesTr", "labelsTr"):
        (path / part).mkdir(parents=True)
    rows, columns, _ = np.indices(size)
    look = np.array([[0, 1, 2, 3], [0, 1, 1, 4], [0, 3, 2, 3], [0, 3, 1, 1]])
    for number in range(cases):
        at = rng.integers(9, 15, 2)
        distance = (rows - at[0]) ** 2 + (columns - at[1]) ** 2
        label = sum(np.uint8(distance < radius**2) for radius in (9, 6, 3))
        images = 50 * look[:, label] + rng.normal(0, 10, (4, *size))
        files = {f"imagesTr/{number}_{i:04d}": one for i, one in enumerate(images)}
        for name, pixels in (files | {f"labelsTr/{number}": label}).items():
            dtype = np.uint8 if name[0] == "l" else np.float32
            image = nibabel.Nifti1Image(pixels.astype(dtype), np.eye(4))
            nibabel.save(image, path / f"{name}.nii.gz")
    content = {
        "channel_names": {str(i): name for i, name in enumerate(CHANNELS)},
        "labels": {"background": 0, **REGIONS},
        "regions_class_order": [1, 2, 3],
        "numTraining": cases,
        "file_ending": ".nii.gz",
    }
    (path / "dataset.json").write_text(json.dumps(content))
    return path


def test_regions_run_from_a_raw_set_to_label_maps_and_scores(tmp_path, capsys):
    path, workdir = _write(tmp_path / "set"), tmp_path / "run"
    config = folder.get_config()
    config.data.path = str(path)
    config.update_from_flattened_dict(
        {
            "model.base_features": 8,
            "model.max_features": 16,
            "train.max_patch": 24,
            "train.memory_gib": 0.002,
            "train.steps": 150,
            "eval.every_steps": 75,
            "eval.mirror": False,
            "eval.distance": False,
            "log.overlays": 0,
            "optimizer.warmup_steps": 2,
            "optimizer.learning_rate": 1e-2,
        }
    )
    results = train_and_evaluate(config.lock(), workdir)
    printed = capsys.readouterr().out
    assert (
        "regions     a sigmoid each: whole (classes 1 2 3, written as 1), " in printed
    )
    record = json.loads((workdir / "config.json").read_text())["config"]
    assert record["model"]["head"] == "sigmoid"
    assert [name for name, *_ in record["loss"]] == ["dice", "bce"]
    assert list(results["per_class"]) == list(REGIONS)
    assert min(one["dice"] for one in results["per_class"].values()) > 0.7
    temperature = json.loads((workdir / "temperature.json").read_text())
    assert temperature["nll"] <= temperature["nll_uncalibrated"] < 0.1
    assert 0 < results["mean"]["ece"] < 0.1
    lines = (workdir / "metrics.jsonl").read_text().splitlines()
    rows = [json.loads(line) for line in lines]
    validated = [row for row in rows if "dice/core" in row]
    assert {f"dice/{name}" for name in REGIONS} < set(validated[-1])
    before = (workdir / "test_metrics.json").read_bytes()
    evaluate_run(workdir)
    assert (workdir / "test_metrics.json").read_bytes() == before
    mean = evaluate_ensemble([workdir, workdir], output=tmp_path / "mean")
    assert mean["per_class"] == results["per_class"]
    files = predict_files(
        workdir,
        input_path=str(path / "imagesTr" / "0_0000.nii.gz"),
        output_folder=str(tmp_path / "out"),
        probabilities=True,
        uncertainty=True,
    )
    table = (tmp_path / "out" / "classes.csv").read_text().splitlines()
    assert [row.split(",")[1] for row in table] == ["class", "background", *REGIONS]
    labels = np.asarray(nibabel.load(files[0]).dataobj)
    probabilities = np.load(tmp_path / "out" / "0.probabilities.npy")
    expected = np.zeros_like(labels)
    for channel in (1, 2, 3):
        expected[probabilities[..., channel] > 0.5] = channel
    assert (labels == expected).mean() > 0.999  # float16 rounds at 1/2
    truth = np.asarray(nibabel.load(path / "labelsTr" / "0.nii.gz").dataobj)
    assert (labels == truth).mean() > 0.8
