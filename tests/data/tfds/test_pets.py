"""Tests a short run of configs/pets.py on pictures in the format of the real set."""

import json

import numpy as np
import pytest
from PIL import Image

from unet_jax.commands.predict import predict_files
from unet_jax.commands.train import train_and_evaluate
from unet_jax.configs import pets


@pytest.mark.slow
def test_the_pets_config_trains_and_predicts(pets_dir, tmp_path):
    config = pets.get_config()
    config.update_from_flattened_dict(
        {
            "data.data_dir": str(pets_dir),
            "data.train_split": "train[:80%]",
            "data.validation_split": "train[80%:]",
            "data.size": (24, 24),
            "model.name": "unet_tiny",
            "model.options.features": (4, 8),
            "train.steps": 3,
            "train.batch_size": 4,
            "train.patch_size": (16, 16),
            "optimizer.warmup_steps": 1,
            "augment.enabled": False,
        }
    )
    results = train_and_evaluate(config.lock(), tmp_path)
    assert set(results["per_class"]) == {"pet", "border"}
    assert results["n_cases"] == 2
    # Pictures have no spacing, so their distances are in pixels and say so.
    assert "hd95_px" in results["mean"]
    assert "hd95" not in results["mean"]
    record = json.loads((tmp_path / "config.json").read_text())
    assert record["preprocessing"]["size"] == [24, 24]
    assert len(list((tmp_path / "predictions").glob("*.png"))) == 2
    Image.fromarray(np.full((37, 51, 3), 90, np.uint8)).save(tmp_path / "photo.jpg")
    (label_map,) = predict_files(
        tmp_path, input_path=tmp_path / "photo.jpg", output_folder=tmp_path / "out"
    )
    with Image.open(label_map) as written:
        assert written.size == (51, 37)
