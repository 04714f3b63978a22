"""Times the batches of the input pipeline on its own."""

import itertools
import pathlib
from typing import Any

import numpy as np
from PIL import Image

from benchmarks.changes import crop_statistics
from benchmarks.ours import brain, nets
from benchmarks.ours.augmentation import phantom
from benchmarks.worker import Task
from unet_jax.configs import folder as folder_config
from unet_jax.experiment import run
from unet_jax.experiment.data import create_batches


def prepare(*, folder: pathlib.Path, work: dict[str, Any]) -> Task:
    """Make the task: one call is 100 batches.

    Args:
        folder: shared with the peer.
        work: ``source`` ("tfds" or "folder"), ``pictures`` (of the folder), ``patch``,
            ``batch``, ``workers`` and ``draws`` (batches for the check).
    """
    if work["source"] == "tfds":
        made = brain.opened(folder)
        brain.hand_over(folder, made)
    else:
        _draw_folder(folder / "pictures", work["pictures"])
        made = _opened_folder(folder, work)
    config = made.config
    batches = create_batches(
        config, made.seen["train"], made.preprocessing, made.workdir
    )

    def draw(count: int):
        return itertools.islice(batches, count)

    return Task(
        run=lambda calls: [None for _ in draw(100 * calls)] and None,
        facts={
            "batch": config.train.batch_size,
            "patch": list(config.train.patch_size),
            "workers": config.data.num_threads,
            "centred": round(config.data.foreground_oversampling, 6),
        },
        outputs=lambda: crop_statistics(
            (batch["image"][..., 0], batch["label"]) for batch in draw(work["draws"])
        ),
        packages=(*nets.PACKAGES, "grain"),
    )


def _draw_folder(folder: pathlib.Path, count: int) -> None:
    """Write pictures and their masks."""
    image, label = phantom((256, 256))
    for name in ("images", "masks"):
        (folder / name).mkdir(parents=True)
    grey = np.clip(20 + 70 * image, 0, 255)
    for index in range(count):
        shift = (7 * index % 61 - 30, 11 * index % 61 - 30)
        for name, array in (("images", grey), ("masks", label)):
            moved = np.roll(array, shift, (0, 1)).astype(np.uint8)
            Image.fromarray(moved).save(folder / name / f"p{index:03}.png")


def _opened_folder(folder: pathlib.Path, work: dict[str, Any]) -> run.Run:
    """Prepare a run on the folder, with nearly all pictures for training."""
    config = folder_config.get_config()
    config.data.path = str(folder / "pictures")
    config.data.intensity = "zscore"
    config.data.crop_nonzero = False
    config.data.test_fraction = config.data.validation_fraction = 0.05
    config.train.patch_size = tuple(work["patch"])
    config.train.batch_size = work["batch"]
    config.lock()
    return run.create_run(config, folder / "run")
