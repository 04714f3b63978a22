"""The network on batches that are there, in PyTorch."""

import pathlib
from typing import Any

import numpy as np
import torch

from benchmarks.peers import unet
from benchmarks.worker import Task


def prepare(*, folder: pathlib.Path, work: dict[str, Any], mode: str) -> Task:
    """Make the task: one call is one batch, from host array to host array.

    Args:
        folder: shared with ours.
        work: of the case.
        mode: one of ``unet.MODES``.
    """
    given = unet.begin(mode, folder)
    model = unet.create(work)
    unet.load(model, given)
    return task(model, given["image"], mode)


def task(model: torch.nn.Module, image: np.ndarray, mode: str) -> Task:
    """Run a network over an image again and again.

    Args:
        model: with its weights.
        image: ``(batch, *spatial, channels)``.
        mode: one of ``unet.MODES``.
    """
    memory_format = unet.layout(mode, image.ndim - 2)
    model = model.eval().to(memory_format=memory_format)
    network = unet.compiled(model, mode)

    @torch.inference_mode()
    def once() -> np.ndarray:
        logits = network(unet.tensor(image, memory_format))
        return torch.softmax(logits, dim=1).movedim(1, -1).numpy()

    def repeat(calls: int) -> None:
        for _ in range(calls):
            once()

    return Task(
        run=repeat,
        facts={"parameters": unet.parameters(model), "output": list(once().shape)},
        outputs=lambda: {"probabilities": once()},
        packages=unet.PACKAGES,
    )
