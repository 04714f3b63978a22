"""configs/lesion.py: synthetic by default, a folder of patients by one flag."""

import numpy as np
import pytest
import tifffile

from unet_jax.commands.train import train_and_evaluate
from unet_jax.configs import lesion
from unet_jax.experiment.complete import resolve_source


def test_the_path_chooses_the_source():
    config = lesion.get_config()
    assert resolve_source(config).data.source == "tfds"
    config.data.path = "kaggle_3m"
    assert resolve_source(config).data.source == "folder"
    assert config.data.source == "path_or_tfds"
    config.data.source = "tfds"
    assert resolve_source(config) is config


def test_the_config_says_synthetic():
    assert "SYNTHETIC" in lesion.__doc__


def _kaggle(root, *, patients, slices):
    """Bright balls in a dim brain: FLAIR in the green channel, as published."""
    sizes = {}
    for patient in range(patients):
        rng = np.random.default_rng(patient)
        name = f"TCGA_XX_{4000 + patient}_20000101"
        (root / name).mkdir(parents=True)
        x, y, z = np.indices((48, 48, slices))
        brain = (x - 24) ** 2 + (y - 24) ** 2 < 20**2
        place = rng.integers((16, 16, 4), (32, 32, slices - 3))
        ball = sum((a - b) ** 2 for a, b in zip((x, y, z), place, strict=True)) < 20
        volume = 70.0 * brain + 110 * ball + rng.normal(0, 6, brain.shape)
        sizes[name] = int(ball.sum())
        for index in range(slices):
            stem = root / name / f"{name}_{index + 1}"
            grey = np.clip(volume[..., index], 0, 255).astype(np.uint8)
            image = np.stack([grey // 2, grey, grey // 2], axis=-1)
            tifffile.imwrite(f"{stem}.tif", image, photometric="rgb")
            mask = 255 * ball[..., index].astype(np.uint8)
            tifffile.imwrite(f"{stem}_mask.tif", mask)
    return sizes


@pytest.mark.slow
@pytest.mark.usefixtures("one_device", "no_figures")
def test_the_kaggle_layout_is_split_by_patient_and_scored_by_volume(tmp_path):
    sizes = _kaggle(tmp_path / "kaggle_3m", patients=8, slices=11)
    config = lesion.get_config()
    config.data.path = str(tmp_path / "kaggle_3m")
    config.data.test_fraction = 0.3
    config.model.name = "unet_tiny"
    config.augment.enabled = False
    config.train.patch_size = (48, 48)
    config.train.steps = 40
    config.eval.every_steps = 40
    config.eval.train_images = 1
    config.eval.distance = False
    config.log.overlays = 1
    config.optimizer.warmup_steps = 5
    results = train_and_evaluate(config.lock(), tmp_path / "run")
    rows = results["per_case"]
    # A patient is one case, scored as the volume that its slices make.
    assert len(rows) == results["n_cases"] == results["n_groups"] == 2
    for row in rows:
        assert row["id"] == row["group"]
        assert row["id"] in sizes
        values = next(r for r in results["per_slice"] if r["id"] == row["id"])
        assert len(values["dice"]) == 11
    assert results["mean"]["dice"] > 0.7
