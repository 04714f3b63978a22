"""Runs of one or several processes on a small folder of pictures, for the tests."""

import json
import os
import pathlib
import subprocess
import sys
import time

import jax
import numpy as np
from PIL import Image

from tests.hosts.test_processes import free_port
from unet_jax.training.checkpoint import Checkpoints

ROOT = pathlib.Path(__file__).parents[2]
PATIENCE = 900.0
"""Seconds for processes to end by themselves, also beside other work."""

FLAGS = (
    "--config=configs/folder.py",
    "--config.data.class_names=('background','disc')",
    "--config.model.name=unet_tiny",
    "--config.model.options.features=(4,8)",
    "--config.train.patch_size=(32,32)",
    "--config.train.batch_size=4",
    "--config.train.steps=40",
    "--config.optimizer.warmup_steps=5",
    "--config.augment.enabled=False",
    "--config.eval.every_steps=10",
    "--config.log.every_steps=4",
    "--config.eval.mirror=False",
    "--config.eval.train_images=1",
    "--config.log.overlays=0",
    "--config.train.step_timeout=15",
)


PROGRAM = """
import importlib, os, runpy, signal, time
def before(place, change):
    module, _, name = place.rpartition(".")
    module = importlib.import_module(module)
    function = getattr(module, name)
    setattr(module, name, lambda *args, **how: [change(), function(*args, **how)][1])
{change}
runpy.run_module("unet_jax.main", run_name="__main__", alter_sys=True)
"""
"""The program, with a change that runs before one of its functions."""


def make_data(root: pathlib.Path) -> None:
    """Write twelve pictures of a disc, five for the test: no multiple of 2 or 4."""
    rng = np.random.default_rng(0)
    for name in ("images", "masks"):
        (root / "data" / name).mkdir(parents=True)
    y, x = np.mgrid[:40, :44]
    for number in range(12):
        centre, radius = rng.uniform(12, 28, 2), rng.uniform(5, 11)
        disc = np.hypot(y - centre[0], x - centre[1]) < radius
        image = 90 + 60 * disc + rng.normal(0, 25, disc.shape)
        pixels = image.clip(0, 255).astype(np.uint8)
        Image.fromarray(pixels).save(root / f"data/images/c{number}.png")
        Image.fromarray(disc.astype(np.uint8)).save(root / f"data/masks/c{number}.png")
    ids = [f"c{number}" for number in range(12)]
    splits = {"train": ids[:4], "validation": ids[4:7], "test": ids[7:]}
    (root / "splits.json").write_text(json.dumps(splits))


def start(folder, workdirs, *extra, devices=1, last=None):
    """Start one process per workdir (or URL); the last one runs ``last`` first."""
    port = free_port()
    together = []
    for place, workdir in enumerate(workdirs):
        program = ["-m", "unet_jax.main"]
        if last is not None and place == len(workdirs) - 1:
            program = ["-c", PROGRAM.format(change=last)]
        flags = [
            f"--coordinator=localhost:{port}",
            f"--num_processes={len(workdirs)}",
            f"--process_id={place}",
        ]
        log = folder / f"{pathlib.Path(workdir).name}.{len(workdirs)}.{place}.log"
        with log.open("w") as stream:
            process = subprocess.Popen(
                [
                    sys.executable,
                    *program,
                    *extra,
                    f"--workdir={workdir}",
                    *(flags if len(workdirs) > 1 else []),
                ],
                cwd=ROOT,
                env={**os.environ, "JAX_NUM_CPU_DEVICES": str(devices)},
                stdout=stream,
                stderr=subprocess.STDOUT,
            )
        process.log = log
        together.append(process)
    return together


def train(folder, workdirs, *extra, devices=1, last=None):
    """Start a training in several processes."""
    return start(
        folder,
        workdirs,
        *FLAGS,
        f"--config.data.path={folder / 'data'}",
        f"--config.data.splits={folder / 'splits.json'}",
        *extra,
        devices=devices,
        last=last,
    )


def ended(processes) -> tuple[list[int], str]:
    codes = [process.wait(PATIENCE) for process in processes]
    return codes, "\n".join(process.log.read_text() for process in processes)


def wait_for(path, processes):
    end = time.monotonic() + PATIENCE
    while not path.exists():
        assert time.monotonic() < end
        assert all(process.poll() is None for process in processes), ended(processes)
        time.sleep(0.02)


def state(workdir):
    with Checkpoints(workdir / "checkpoints", read_only=True) as checkpoints:
        return checkpoints.restore_raw(None)


def assert_equal_runs(first, second):
    jax.tree.map(np.testing.assert_array_equal, state(first), state(second))
    for name in ("metrics.jsonl", "test_metrics.json"):
        assert (first / name).read_bytes() == (second / name).read_bytes(), name
