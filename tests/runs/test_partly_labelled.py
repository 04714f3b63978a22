"""A run on a set of nnU-Net in which tumours were drawn in some cases only."""

import json

import numpy as np
import pytest
from PIL import Image

from unet_jax.commands.train import train_and_evaluate
from unet_jax.configs import folder

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("one_device", "no_figures")]

CASES = 10


def _write(path):
    """Organs with a tumour each; in every second case nobody drew the tumour."""
    rng = np.random.default_rng(0)
    for part in ("imagesTr", "labelsTr"):
        (path / part).mkdir(parents=True)
    rows, columns = np.indices((32, 32))
    for number in range(CASES):
        at = rng.integers(12, 20, 2)
        distance = (rows - at[0]) ** 2 + (columns - at[1]) ** 2
        truth = np.uint8(distance < 100) + np.uint8(distance < 25)
        image = np.array([60, 120, 200])[truth] + rng.normal(0, 8, truth.shape)
        label = truth if number % 2 == 0 else truth * (truth < 2)
        for name, pixels in (
            (f"imagesTr/{number:03d}_0000.png", image.astype(np.uint8)),
            (f"labelsTr/{number:03d}.png", label),
        ):
            Image.fromarray(pixels).save(path / name)
    content = {
        "channel_names": {"0": "MR"},
        "labels": {"background": 0, "liver": 1, "tumour": 2},
        "numTraining": CASES,
        "file_ending": ".png",
    }
    (path / "dataset.json").write_text(json.dumps(content))
    rows = [f"{number:03d},liver" for number in range(1, CASES, 2)]
    (path / "labelled.csv").write_text("\n".join(["case,class", *rows]))
    return path


def test_tumours_that_nobody_drew_are_found_and_no_error(tmp_path):
    path = _write(tmp_path / "set")
    config = folder.get_config()
    config.augment.enabled = False
    config.data.path = str(path)
    config.update_from_flattened_dict(
        {
            "data.labelled_classes": str(path / "labelled.csv"),
            "model.base_features": 4,
            "model.max_features": 8,
            "train.max_patch": 32,
            "train.memory_gib": 0.002,
            "train.steps": 100,
            "eval.every_steps": 50,
            "eval.mirror": False,
            "log.overlays": 0,
            "optimizer.warmup_steps": 2,
            "optimizer.learning_rate": 1e-2,
        }
    )
    results = train_and_evaluate(config.lock(), tmp_path / "run")
    unlabelled = results["per_class"]["tumour"]["n_unlabelled"]
    assert results["per_class"]["liver"]["n_unlabelled"] == 0
    for row in results["per_case"]:
        drawn = int(row["id"]) % 2 == 0 or row["class"] == "liver"
        assert (row["dice"] is not None) == drawn
    assert 0 < unlabelled < results["n_cases"]
    assert results["mean"]["dice"] > 0.7
    # As background the tumours that nobody drew would teach that there is none.
    folder_of = tmp_path / "run" / "predictions"
    for file in folder_of.glob("*.png"):
        assert (np.asarray(Image.open(file)) == 2).sum() > 20
