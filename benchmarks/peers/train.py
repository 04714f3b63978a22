"""Training steps of a plain PyTorch loop."""

import pathlib
from typing import Any

import numpy as np
import torch

from benchmarks.peers import objective, unet
from benchmarks.worker import Task


class Trainer:
    """A network and its optimiser, going on from step to step."""

    def __init__(
        self, model: torch.nn.Module, mode: str, dims: int, optimizer: dict[str, Any]
    ) -> None:
        """Bring the network into the mode."""
        self._layout = unet.layout(mode, dims)
        self.model = model.to(memory_format=self._layout).train()
        self._network = unet.compiled(self.model, mode)
        # As ours: decay spares what is a vector.
        kinds: dict[bool, list[torch.nn.Parameter]] = {True: [], False: []}
        for parameter in self.model.parameters():
            kinds[parameter.ndim > 1].append(parameter)
        decay = optimizer["weight_decay"]
        self.optimizer = torch.optim.AdamW(
            [
                {"params": kinds[True], "weight_decay": decay},
                {"params": kinds[False], "weight_decay": 0.0},
            ],
            lr=optimizer["learning_rate"],
            fused=True,
        )
        self._clip = optimizer["gradient_clip"]

    def step(self, image: np.ndarray, labels: list[torch.Tensor]) -> torch.Tensor:
        """Make one update; the loss is not waited for.

        Args:
            image: ``(batch, *patch, channels)``.
            labels: of each output, finest first.
        """
        self.optimizer.zero_grad(set_to_none=True)
        output = self._network(unet.tensor(image, self._layout))
        outputs = output if isinstance(output, list | tuple) else [output]
        loss = objective.loss(outputs, labels)
        loss.backward()
        if self._clip:
            torch.nn.utils.clip_grad_norm_(self.model.parameters(), self._clip)
        self.optimizer.step()
        return loss.detach()


def prepare(*, folder: pathlib.Path, work: dict[str, Any], mode: str) -> Task:
    """Make the task: one call is one step.

    Args:
        folder: shared with ours.
        work: of the case.
        mode: one of ``unet.MODES``.
    """
    given = unet.begin(mode, folder)
    model = unet.create(work)
    unet.load(model, given)
    trainer = Trainer(model, mode, len(work["patch"]), work["optimizer"])
    labels = [torch.from_numpy(given["label"]).long()]

    def steps(count: int) -> list[torch.Tensor]:
        return [trainer.step(given["image"], labels) for _ in range(count)]

    return Task(
        run=lambda calls: steps(calls) and None,
        facts={"parameters": unet.parameters(model)},
        outputs=lambda: {"losses": torch.stack(steps(3)).numpy()},
        packages=unet.PACKAGES,
    )
