"""Predicts one large volume by MONAI or nnU-Net, and prints the memory that it took."""

import json
import sys
import time
import types
from typing import Any

import numpy as np
import torch

from benchmarks.inference_memory import CLASSES
from benchmarks.memory import peak_of


def main(case: dict[str, Any]) -> None:
    """Print the memory of one prediction as JSON, and its seconds.

    Args:
        case: one of ``benchmarks.inference_memory.CASES``, with the ``package``.
    """
    torch.manual_seed(0)
    network = torch.nn.Sequential(
        torch.nn.Conv3d(1, 8, 3, padding=1),
        torch.nn.ReLU(),
        torch.nn.Conv3d(8, CLASSES, 1),
    ).eval()
    predict = {"MONAI": _by_monai, "nnU-Net": _by_nnunet}[case["package"]]
    rng = np.random.default_rng(0)
    image = rng.integers(1, 2000, case["volume"], np.int16)
    start = time.perf_counter()
    with peak_of() as memory, torch.inference_mode():
        labels = _labels(predict, network, image, case)
    memory["seconds"] = time.perf_counter() - start
    assert labels.shape == tuple(case["volume"])
    print(json.dumps(memory))


def _labels(
    predict: Any, network: torch.nn.Module, image: np.ndarray, case: dict[str, Any]
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
    scores = predict(network, volume, case)
    if case["target"] is not None:
        scores = _resized(scores, list(image.shape))
    return scores[0].argmax(0).to(torch.uint8).numpy()


def _by_monai(
    network: torch.nn.Module, volume: torch.Tensor, case: dict[str, Any]
) -> torch.Tensor:
    """Blend the scores of a volume ``(1, 1, x, y, z)``."""
    from monai.inferers import sliding_window_inference

    return sliding_window_inference(
        volume, case["patch"], 1, network, overlap=case["overlap"], mode="gaussian"
    )


def _by_nnunet(
    network: torch.nn.Module, volume: torch.Tensor, case: dict[str, Any]
) -> torch.Tensor:
    """Blend the scores of a volume ``(1, 1, x, y, z)``; it keeps them in float16."""
    from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor

    predictor = nnUNetPredictor(
        tile_step_size=1 - case["overlap"],
        use_mirroring=False,
        device=torch.device("cpu"),
        allow_tqdm=False,
    )
    predictor.network = network
    predictor.configuration_manager = types.SimpleNamespace(patch_size=case["patch"])
    predictor.label_manager = types.SimpleNamespace(num_segmentation_heads=CLASSES)
    return predictor.predict_sliding_window_return_logits(volume[0])[None]


def _resized(values: torch.Tensor, size: list[int]) -> torch.Tensor:
    """Interpolate linearly."""
    return torch.nn.functional.interpolate(values, size=size, mode="trilinear")


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
