"""Predicts one large volume by MONAI, and prints the memory that it took."""

import json
import sys
import time
from typing import Any

import numpy as np
import torch
from monai.inferers import sliding_window_inference

from benchmarks.inference_memory import CLASSES
from benchmarks.memory import peak_of


def main(case: dict[str, Any]) -> None:
    """Print the memory of one prediction as JSON, and its seconds.

    Args:
        case: one of ``benchmarks.inference_memory.CASES``.
    """
    torch.manual_seed(0)
    network = torch.nn.Sequential(
        torch.nn.Conv3d(1, 8, 3, padding=1),
        torch.nn.ReLU(),
        torch.nn.Conv3d(8, CLASSES, 1),
        torch.nn.Softmax(dim=1),
    ).eval()
    rng = np.random.default_rng(0)
    image = rng.integers(1, 2000, case["volume"], np.int16)
    start = time.perf_counter()
    with peak_of() as memory, torch.inference_mode():
        labels = _labels(network, image, case)
    memory["seconds"] = time.perf_counter() - start
    assert labels.shape == tuple(case["volume"])
    print(json.dumps(memory))


def _labels(
    network: torch.nn.Module, image: np.ndarray, case: dict[str, Any]
) -> np.ndarray:
    """Normalise, resample, predict windows, resample the scores, and label."""
    volume = torch.from_numpy(image.astype(np.float32))[None, None]
    volume = (volume - volume.mean()) / volume.std()
    if case["target"] is not None:
        grid = [
            round(size * step / target)
            for size, step, target in zip(
                image.shape, case["spacing"], case["target"], strict=True
            )
        ]
        volume = _resized(volume, grid)
    scores = sliding_window_inference(
        volume, case["patch"], 1, network, overlap=case["overlap"], mode="gaussian"
    )
    if case["target"] is not None:
        scores = _resized(scores, list(image.shape))
    return scores[0].argmax(0).to(torch.uint8).numpy()


def _resized(values: torch.Tensor, size: list[int]) -> torch.Tensor:
    """Interpolate linearly."""
    return torch.nn.functional.interpolate(values, size=size, mode="trilinear")


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
