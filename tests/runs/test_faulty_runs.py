"""A run names a problem on its way, keeps its checkpoints, and can be resumed."""

import json
import re

import jax
import numpy as np
import pytest
from ml_collections import ConfigDict
from PIL import Image

from unet_jax.commands import train
from unet_jax.configs import folder
from unet_jax.errors import RunError
from unet_jax.training.checkpoint import Checkpoints
from unet_jax.training.pace import StepPace

pytestmark = pytest.mark.slow

SMALL = {
    "model.base_features": 4,
    "model.max_features": 8,
    "train.max_patch": 16,
    "train.memory_gib": 0.001,
    "train.batch_size": 4,
    "train.steps": 4,
    "train.skip_nonfinite": 1,
    "eval.every_steps": 2,
    "eval.train_images": 1,
    "eval.distance": False,
    "eval.mirror": False,
    "eval.metrics": ("dice",),
    "log.every_steps": 2,
    "log.overlays": 1,
    "optimizer.warmup_steps": 1,
}


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    """A folder of ten grey pictures with a disc each."""
    path = tmp_path_factory.mktemp("pictures")
    for name in ("images", "masks"):
        (path / name).mkdir()
    rows, columns = np.indices((24, 24))
    for seed in range(10):
        rng = np.random.default_rng(seed)
        label = np.hypot(rows - rng.integers(8, 16), columns - 12) < 6
        image = 90 * label + rng.normal(80, 5, label.shape)
        Image.fromarray(image.astype(np.uint8)).save(path / f"images/p{seed}.png")
        Image.fromarray(255 * label.astype(np.uint8)).save(path / f"masks/p{seed}.png")
    return path


def _config(pictures, **changes) -> ConfigDict:
    config = folder.get_config()
    config.augment.enabled = False
    config.data.path = str(pictures)
    config.update_from_flattened_dict({**SMALL, **changes})
    return config.lock()


def _poison(monkeypatch, number):
    """Put a NaN into the first example of the batch with this number, from 1."""
    taken, deal = [], train.shard_batch

    def shard_batch(batch, devices):
        taken.append(batch["example_index"])
        if len(taken) == number:
            batch = {**batch, "image": batch["image"].copy()}
            batch["image"][0, 3, 3] = np.nan
        return deal(batch, devices)

    monkeypatch.setattr(train, "shard_batch", shard_batch)
    return taken


def _record(workdir, step):
    path = next((workdir / "checkpoints" / str(step)).rglob("run.json"))
    return json.loads(path.read_text())["record"]


@pytest.fixture(scope="module")
def skipped(pictures, tmp_path_factory):
    """Workdir of a finished run of four steps, the third of them skipped."""
    workdir = tmp_path_factory.mktemp("runs") / "skipped"
    with pytest.MonkeyPatch.context() as patch:
        _poison(patch, 3)
        train.train_and_evaluate(_config(pictures), workdir)
    return workdir


def test_a_step_is_left_out_and_counted(skipped):
    lines = (skipped / "metrics.jsonl").read_text().splitlines()
    rows = [json.loads(line) for line in lines]
    counts = [row.get("skipped_steps", 0) for row in rows if row["split"] == "train"]
    assert sum(counts) == 1
    assert _record(skipped, 2)["skipped_steps"] == 0
    assert _record(skipped, 4)["skipped_steps"] == 1
    with Checkpoints(skipped / "checkpoints", read_only=True) as checkpoints:
        state = checkpoints.restore_raw(4)
    assert int(state["step"]) == 4
    assert all(np.isfinite(leaf).all() for leaf in _leaves(state))


def _leaves(tree):
    if isinstance(tree, dict):
        return [leaf for entry in tree.values() for leaf in _leaves(entry)]
    if isinstance(tree, list | tuple):
        return [leaf for entry in tree for leaf in _leaves(entry)]
    return [] if tree is None else [np.asarray(tree)]


def test_one_more_of_them_stops_the_resumed_run(skipped, pictures, monkeypatch):
    taken = _poison(monkeypatch, 1)
    with pytest.raises(RunError) as caught:
        train.train_and_evaluate(_config(pictures, **{"train.steps": 8}), skipped)
    message = str(caught.value)
    index = int(taken[0][0])
    assert message.startswith("step 5: loss is nan, cross_entropy_loss is nan, ")
    assert f"the image is not finite for example {index} (case 'p" in message
    assert f", {pictures}/images/p" in message
    assert (
        "1 such steps skipped before; --config.train.skip_nonfinite=11 skips up"
        in message
    )
    assert message.endswith("; the last good checkpoint is step 4")
    assert "the gradient of decoder_0, decoder_1, encoder_0, " in message
    assert not (skipped / "checkpoints" / "6").exists()


@pytest.mark.parametrize("split", ["validation", "train"])
def test_a_file_that_rots_in_mid_run_is_named_and_the_run_goes_on_when_it_is_back(
    split, skipped, pictures, monkeypatch
):
    splits = json.loads((skipped / "config.json").read_text())["dataset"]
    paths = [pictures / f"images/{one}.png" for one in splits[split]["ids"]]
    contents = [path.read_bytes() for path in paths]

    def cut_files(pace):
        # Just before the first step: no crop was drawn yet, and validation reads again.
        for path, content in zip(paths, contents, strict=True):
            path.write_bytes(content[: len(content) // 2])

    monkeypatch.setattr(StepPace, "ready", cut_files)
    try:
        with pytest.raises(RunError) as caught:
            train.train_and_evaluate(_config(pictures, **{"train.steps": 6}), skipped)
    finally:
        for path, content in zip(paths, contents, strict=True):
            path.write_bytes(content)
    message = str(caught.value)
    step = 6 if split == "validation" else 5
    assert message.startswith(f"step {step}: {pictures}/images/p")
    assert ".png: cannot be read (" in message
    assert message.endswith(
        "; fix the data, then start the same command again; the last good checkpoint "
        "is step 4"
    )


def test_memory_that_runs_out_says_what_to_lower(skipped, pictures, monkeypatch):
    def shard_batch(batch, devices):
        raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory")

    monkeypatch.setattr(train, "shard_batch", shard_batch)
    with pytest.raises(RunError) as caught:
        train.train_and_evaluate(_config(pictures, **{"train.steps": 6}), skipped)
    assert re.match(
        r"the step needs [\d.]+ MiB, and this device has [\d.]+ GiB for it, part of "
        r"which is taken; (a single crop on each device|keep train.batch_size=4 by )",
        str(caught.value),
    )
    assert str(caught.value).endswith("; the last good checkpoint is step 4")


def test_the_same_command_goes_on_once_the_files_are_back(skipped, pictures):
    train.train_and_evaluate(_config(pictures, **{"train.steps": 6}), skipped)
    assert _record(skipped, 6)["skipped_steps"] == 1
