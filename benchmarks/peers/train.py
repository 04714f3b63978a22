"""Times training steps of a plain PyTorch loop."""

import pathlib
from typing import Any

import numpy as np
import torch

from benchmarks.peers import modes, nets, objective
from benchmarks.worker import Task


class Trainer:
    """A network and its optimiser."""

    def __init__(
        self, model: torch.nn.Module, mode: str, dims: int, optimizer: dict[str, Any]
    ) -> None:
        """Prepare the network for the mode."""
        self.layout = modes.layout(mode, dims)
        self.model = model.to(memory_format=self.layout).train()
        self._network = modes.compiled(self.model, mode)
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
        """Make one update without waiting for the loss.

        Args:
            image: ``(batch, *patch, channels)``.
            labels: labels of each output, finest first.
        """
        self.optimizer.zero_grad(set_to_none=True)
        output = self._network(modes.tensor(image, self.layout))
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
        work: description of the case's work.
        mode: mode of PyTorch, one of ``modes.MODES``.
    """
    given = modes.begin(mode, folder)
    net = nets.build(work, given)
    trainer = Trainer(net.model, mode, len(work["patch"]), work["optimizer"])
    image = net.turned(given["image"])
    supervised = work["network"].get("deep_supervision", 0)
    targets = _targets(given["label"], coarser=supervised)
    labels = [torch.from_numpy(net.turned(target)).long() for target in targets]

    def steps(count: int) -> list[torch.Tensor]:
        return [trainer.step(image, labels) for _ in range(count)]

    return Task(
        run=lambda calls: steps(calls) and None,
        facts={"parameters": modes.parameters(net.model)},
        outputs=lambda: {"losses": torch.stack(steps(3)).numpy()},
        packages=net.packages,
    )


def _targets(label: np.ndarray, *, coarser: int) -> list[np.ndarray]:
    """Labels on the grid of each output, nearest to the centre of a coarse pixel."""
    targets = [label]
    for step in (2**index for index in range(1, coarser + 1)):
        places = (slice(step // 2, None, step),) * (label.ndim - 1)
        targets.append(label[:, *places])
    return targets
