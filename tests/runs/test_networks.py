"""A network without the attributes of a U-Net trains, resumes and predicts."""

import jax
import numpy as np
import pytest
from ml_collections import ConfigDict
from PIL import Image

from tests.hosts.together import make_data
from unet_jax.commands.predict import predict_files
from unet_jax.commands.train import train_and_evaluate
from unet_jax.configs import folder
from unet_jax.training.checkpoint import Checkpoints

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("one_device", "no_figures")]


def _config(root, steps) -> ConfigDict:
    """A tiny Swin UNETR, and crops that its stride does not divide."""
    config = folder.get_config()
    config.data.path = str(root / "data")
    config.data.splits = str(root / "splits.json")
    config.model.name = "swin_unetr"
    config.model.options = ConfigDict(
        {"features": 12, "depths": (2, 2), "heads": (2, 3), "window_size": 3}
    )
    config.augment.enabled = False
    config.train.batch_size = 4
    config.train.patch_size = (36, 44)
    config.train.steps = steps
    config.optimizer.warmup_steps = 1
    config.optimizer.schedule = "constant"
    config.eval.every_steps = 2
    config.eval.train_images = 1
    config.eval.distance = False
    config.eval.overlap = 0.0
    config.log.every_steps = 1
    return config.lock()


def _params(workdir):
    with Checkpoints(workdir / "checkpoints", read_only=True) as checkpoints:
        return checkpoints.restore_raw(None)["params"]


def test_swin_unetr_trains_resumes_and_predicts(tmp_path):
    make_data(tmp_path)
    train_and_evaluate(_config(tmp_path, 4), tmp_path / "whole")
    train_and_evaluate(_config(tmp_path, 2), tmp_path / "parts")
    train_and_evaluate(_config(tmp_path, 4), tmp_path / "parts")
    jax.tree.map(
        np.testing.assert_array_equal,
        _params(tmp_path / "whole"),
        _params(tmp_path / "parts"),
    )
    scores = [tmp_path / name / "test_metrics.json" for name in ("whole", "parts")]
    assert scores[0].read_bytes() == scores[1].read_bytes()
    pixels = np.random.default_rng(0).integers(0, 255, (40, 37), np.uint8)
    Image.fromarray(pixels).save(tmp_path / "new.png")
    predict_files(
        tmp_path / "whole",
        input_path=str(tmp_path / "new.png"),
        output_folder=str(tmp_path / "out"),
    )
    with Image.open(tmp_path / "out" / "new.png") as found:
        assert found.size == (37, 40)
