"""Runs by nnU-Net's recipe: a plan is written, edited and trained."""

import json

import pytest

from tests.commands.test_plan_data import write_volumes
from unet_jax.commands.plan_data import plan_data
from unet_jax.commands.train import train_and_evaluate
from unet_jax.configs import nnunet
from unet_jax.experiment.config_file import load_config, override

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("one_device", "no_figures")]


def test_a_written_plan_is_trained(tmp_path):
    config = nnunet.get_config()
    config.data.path = str(write_volumes(tmp_path / "data"))
    plan_data(config.lock(), file=None, output=tmp_path / "plan")
    path = tmp_path / "plan" / "3d_fullres.py"
    edited = path.read_text().replace("= (32, 40, 10)", "= (16, 24, 10)")
    path.write_text(edited.replace("(32, 64, 128, 256)", "(4, 8, 8, 8)"))
    config = load_config(path)
    override(config, ["--config.train.steps=5", "--config.eval.mirror=False"])
    train_and_evaluate(config, tmp_path / "run")
    record = json.loads((tmp_path / "run" / "config.json").read_text())["config"]
    assert record["train"]["patch_size"] == [16, 24, 10]
    assert record["model"]["options"]["features"] == [4, 8, 8, 8]
    assert record["optimizer"]["schedule"] == "polynomial"
    lines = (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()
    assert max(json.loads(line)["step"] for line in lines) == 5
    assert (tmp_path / "run" / "test_metrics.json").exists()
