"""Times the network on batches in memory, in PyTorch."""

import pathlib
from typing import Any

import numpy as np
import torch

from benchmarks.peers import modes, nets
from benchmarks.worker import Task, repeated


def prepare(*, folder: pathlib.Path, work: dict[str, Any], mode: str) -> Task:
    """Make the task: one call is one batch, from host array to host array.

    Args:
        folder: shared with ours.
        work: description of the case's work.
        mode: mode of PyTorch, one of ``modes.MODES``.
    """
    given = modes.begin(mode, folder)
    net = nets.build(work, given)
    image = net.turned(given["image"])
    memory_format = modes.layout(mode, image.ndim - 2)
    model = for_inference(net.model).to(memory_format=memory_format)
    network = modes.compiled(model, mode)

    @torch.inference_mode()
    def once() -> np.ndarray:
        logits = network(modes.tensor(image, memory_format))
        return torch.softmax(logits, dim=1).movedim(1, -1).numpy()

    return Task(
        run=repeated(once),
        facts={
            "parameters": modes.parameters(model),
            "output": list(once().shape),
        },
        outputs=lambda: {"probabilities": net.turned(once())},
        packages=net.packages,
    )


def for_inference(model: torch.nn.Module) -> torch.nn.Module:
    """Switch off what only training uses, such as nnU-Net's deep supervision.

    Args:
        model: the network.
    """
    decoder = getattr(model, "decoder", None)
    if decoder is not None:
        decoder.deep_supervision = False
    return model.eval()
