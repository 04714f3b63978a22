"""Times the batches of a plain torch DataLoader."""

import itertools
import pathlib
from typing import Any

import numpy as np

from benchmarks.changes import crop_statistics
from benchmarks.peers import crops, modes
from benchmarks.worker import Task


def prepare(*, folder: pathlib.Path, work: dict[str, Any], mode: str) -> Task:
    """Make the task: one call is 100 batches.

    Args:
        folder: shared with ours.
        work: description of the case's work.
        mode: "from_memory", or "from_files" that are decoded each time.
    """
    modes.use_cores()
    read, length = _reader(folder, work, mode)
    patch, batch, workers = (work[key] for key in ("patch", "batch", "workers"))
    batches = crops.loader(
        crops.Crops(read, length, patch), batch=batch, workers=workers
    )

    def draw(count: int):
        return itertools.islice(batches, count)

    return Task(
        run=lambda calls: [None for _ in draw(100 * calls)] and None,
        facts={
            "batch": batch,
            "patch": patch,
            "workers": workers,
            "centred": round(crops.CENTRED, 6),
        },
        outputs=lambda: crop_statistics(
            (image[:, 0].numpy(), label.numpy()) for image, label in draw(work["draws"])
        ),
        packages=("torch", "numpy"),
    )


def _reader(
    folder: pathlib.Path, work: dict[str, Any], mode: str
) -> tuple[crops.Read, int]:
    """Function that reads an image and its label, and the number of images."""
    if work["source"] == "tfds":
        with np.load(folder / "given.npz") as given:
            slices = crops.of_slices(dict(given))
        return crops.from_memory(slices), len(slices)
    names = sorted((folder / "pictures" / "images").iterdir())
    paths = [(path, path.parent.parent / "masks" / path.name) for path in names]
    read = crops.from_pictures(paths)
    if mode == "from_files":
        return read, len(paths)
    return crops.from_memory([read(index) for index in range(len(paths))]), len(paths)
