"""Times augmentation by transforms that take one example at a time."""

import importlib
import os
import pathlib
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch import multiprocessing

from benchmarks.changes import describe
from benchmarks.peers import modes
from benchmarks.worker import Task

MODES = ("threads", "processes")
"""One process whose operations use every core, or one process for each core, as in a
data loader."""


class Augmenter:
    """Makes batches from one example."""

    def __init__(self, folder: pathlib.Path, work: dict[str, Any], module: str) -> None:
        """Build the transforms and read the example."""
        self.transforms = importlib.import_module(module).Transforms(
            tuple(work["shape"]), work["augment"]
        )
        self._batch = work["batch"]
        with np.load(folder / "given.npz") as given:
            self.image, self.label = (
                torch.from_numpy(given[key])[None] for key in ("image", "label")
            )

    def batch(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Augment and stack, as a data loader collates."""
        examples = [self.transforms(self.image, self.label) for _ in range(self._batch)]
        images, labels = zip(*examples, strict=True)
        return torch.stack(images), torch.stack(labels)


_augmenter: Augmenter | None = None
"""The augmenter of a process of the pool."""


def _begin(*arguments: Any) -> None:
    """Make the augmenter of a process of the pool."""
    global _augmenter
    torch.set_num_threads(1)
    _augmenter = Augmenter(*arguments)
    _augmenter.transforms.seed(os.getpid())


def _batch(_: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Make a batch in a process of the pool."""
    assert _augmenter is not None
    return _augmenter.batch()


def prepare(
    *, folder: pathlib.Path, work: dict[str, Any], transforms: str, mode: str
) -> Task:
    """Make the task: one call is one batch.

    Args:
        folder: shared with ours.
        work: description of the case's work.
        transforms: module with the transforms.
        mode: mode of PyTorch, one of ``MODES``.
    """
    modes.use_cores()
    if mode not in MODES:
        raise ValueError(f"mode: found {mode!r}, expected one of {MODES}")
    arguments = (folder, work, transforms)
    augmenter = Augmenter(*arguments)
    augmenter.transforms.seed(0)
    batches = _in_this_process(augmenter) if mode == "threads" else _in_pool(arguments)

    def drawn() -> Iterator[tuple[np.ndarray, np.ndarray]]:
        for images, labels in batches(work["draws"] // work["batch"]):
            yield from zip(images[:, 0].numpy(), labels[:, 0].numpy(), strict=True)

    return Task(
        run=lambda calls: [None for _ in batches(calls)] and None,
        facts=augmenter.transforms.facts(),
        outputs=lambda: describe(augmenter.image[0].numpy(), drawn()),
        packages=importlib.import_module(transforms).PACKAGES,
    )


def _in_this_process(augmenter: Augmenter):
    """Make batches one after the other."""
    return lambda count: (augmenter.batch() for _ in range(count))


def _in_pool(arguments: tuple[Any, ...]):
    """Make batches in one process for each core; tensors return in shared memory."""
    cores = len(os.sched_getaffinity(0))
    context = multiprocessing.get_context("spawn")
    pool = context.Pool(cores, initializer=_begin, initargs=arguments)
    return lambda count: pool.imap_unordered(_batch, range(count))
