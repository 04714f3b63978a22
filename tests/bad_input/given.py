"""Makes the input of every command: a data set, a run on it, and the flags."""

import hashlib

import numpy as np
from PIL import Image

from unet_jax.configs import folder as folder_config
from unet_jax.experiment.complete import complete_config
from unet_jax.experiment.data import fit_preprocessing, open_dataset
from unet_jax.experiment.network import create_network, create_optimizer_and_schedule
from unet_jax.experiment.record import make_record, write_record
from unet_jax.training.checkpoint import Checkpoints
from unet_jax.training.step import create_train_state

SIZE = 24
SMALL = {
    "model.options.features": (2, 4),
    "train.patch_size": (16, 16),
    "train.memory_gib": 0.001,
    "train.steps": 2,
    "train.batch_size": 4,
    "eval.every_steps": 2,
    "eval.train_images": 1,
    "eval.distance": False,
    "eval.mirror": False,
    "eval.metrics": ("dice",),
    "log.overlays": 0,
    "optimizer.warmup_steps": 1,
}
TRAIN = ["--config=configs/folder.py", *(f"--config.{k}={v}" for k, v in SMALL.items())]


def write_set(folder):
    """Six grey pictures, each with a square of class 1."""
    rng = np.random.default_rng(0)
    for name in ("images", "masks"):
        (folder / name).mkdir(parents=True)
    for index in range(6):
        mask = np.zeros((SIZE, SIZE), np.uint8)
        mask[4 + index : 14 + index, 5:18] = 1
        image = (100 * mask + rng.integers(0, 50, mask.shape)).astype(np.uint8)
        Image.fromarray(image).save(folder / f"images/{index}.png")
        Image.fromarray(mask).save(folder / f"masks/{index}.png")


def write_run(workdir, data):
    """Write the files of a finished run, with untrained weights to save minutes."""
    config = folder_config.get_config()
    config.update_from_flattened_dict({**SMALL, "data.path": str(data)})
    dataset = open_dataset(config, workdir)
    config = complete_config(config, dataset)
    preprocessing = fit_preprocessing(config, dataset.source("train"))
    state = create_train_state(
        create_network(config, axis_name=None),
        create_optimizer_and_schedule(config)[0],
        seed=0,
        input_shape=(*config.train.patch_size, preprocessing.channels),
        ema=False,
    )
    record = make_record(
        config.to_dict(),
        preprocessing=preprocessing.to_dict(),
        dataset=dataset.fingerprint,
        memory_source="set by the config",
        splits=dataset.splits_record,
    )
    write_record(workdir, record)
    best = {"score": 0.5, "step": 2, "evaluations_since": 0, "stopped": False}
    with Checkpoints(workdir / "checkpoints") as checkpoints:
        checkpoints.save(2, state, iterator_state={}, record=best, score=0.5)
    (workdir / "test_metrics.json").write_text('{"per_case": []}')


def listing(folder):
    """List every file and folder below, with the SHA-256 of each file."""
    return {
        path: hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else ""
        for path in sorted(folder.rglob("*"))
    }


def train_command(place, *more):
    return [
        *TRAIN,
        f"--config.data.path={place / 'data'}",
        f"--workdir={place / 'new'}",
        *more,
    ]


def command_with_data(mode, place):
    """Return a command that reads the data, and the workdir that it may write."""
    if mode == "train":
        return train_command(place), place / "new"
    return [f"--mode={mode}", f"--workdir={place / 'run'}"], place / "run"


def predict_command(place, source, *more):
    return [
        "--mode=predict",
        f"--workdir={place / 'run'}",
        f"--input={source}",
        f"--output={place / 'out'}",
        *more,
    ]


READ_DATA = ["train", "evaluate", "compare"]


def one_problem(refused, mode, place, line):
    """Check that a mode reports one problem of the data."""
    problems(refused, mode, place, [line])


def problems(refused, mode, place, lines):
    """Check that a mode reports exactly these problems of the data."""
    command, workdir = command_with_data(mode, place)
    if len(lines) > 1:
        found = f"found {len(lines)} problems; please fix all of them:"
        head = f"data.path {place / 'data'}: {found}"
        lines = [head, *lines]
    refused("\n  ".join(lines), *command, workdir=workdir)
