"""Times the segmentation of a volume window by window, by MONAI."""

import pathlib
from typing import Any

import numpy as np
import torch
from monai.inferers import SlidingWindowInferer

from benchmarks.memory import peak_of
from benchmarks.peers import modes, nets
from benchmarks.worker import Task


def prepare(*, folder: pathlib.Path, work: dict[str, Any], mode: str) -> Task:
    """Make the task: one call is one volume, from its array to its labels.

    Args:
        folder: shared with ours.
        work: description of the case's work.
        mode: mode of PyTorch, one of ``modes.MODES``.
    """
    given = modes.begin(mode, folder)
    net = nets.build(work, given)
    memory_format = modes.layout(mode, 3)
    model = net.model.eval().to(memory_format=memory_format)
    network = modes.compiled(model, mode)
    inferer = SlidingWindowInferer(
        roi_size=work["patch"],
        sw_batch_size=1,  # as ours on a CPU; more takes more memory and no less time
        overlap=0.5,
        mode="gaussian",
    )
    # Its own lifts small weights to 0.001, which blends the volume's border otherwise.
    inferer.roi_weight_map = _gaussian(work["patch"])

    def predict(windows: torch.Tensor) -> torch.Tensor:
        windows = windows.contiguous(memory_format=memory_format)
        return torch.softmax(network(windows), dim=1)

    @torch.inference_mode()
    def probabilities() -> torch.Tensor:
        image = _zscored(given["image"])
        return inferer(torch.from_numpy(image).movedim(-1, 0)[None], predict)[0]

    def outputs() -> dict[str, np.ndarray]:
        return {"probabilities": probabilities().movedim(0, -1).numpy()[::3, ::3, ::3]}

    def repeat(calls: int) -> dict[str, float]:
        with peak_of() as memory:
            for _ in range(calls):
                labels = probabilities().argmax(0).to(torch.uint8).numpy()
        assert labels.shape == tuple(work["volume"])
        return memory

    return Task(
        run=repeat,
        facts={
            "parameters": modes.parameters(model),
            "overlap": inferer.overlap,
        },
        outputs=outputs,
        packages=(*net.packages, "monai"),
    )


def _gaussian(window: list[int]) -> torch.Tensor:
    """Weights of a window's voxels, with a standard deviation of 1/8, as ours."""
    weights = torch.ones(())
    for size in window:
        place = torch.arange(size) - (size - 1) / 2
        line = torch.exp(-0.5 * (place / (size / 8)) ** 2)
        weights = weights[..., None] * (line / line.max())
    return weights


def _zscored(image: np.ndarray) -> np.ndarray:
    """Mean 0 and standard deviation 1 over nonzero pixels, as ours."""
    inside = image[image != 0]
    return (image - inside.mean()) / inside.std()
