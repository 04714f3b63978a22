"""Every case of every benchmark."""

from collections.abc import Iterator
from typing import Any

from benchmarks.turns import Case

_TORCH_MODES = ("eager", "channels_last", "compile", "compile_channels_last")

_ADAM = {"learning_rate": 1e-3, "weight_decay": 0.0, "gradient_clip": 0.0}

_UNET = {
    "network": {
        "features": [32, 64, 128, 256, 512],
        "norm": "group",
        "norm_groups": 8,
    },
    "channels": 3,
    "classes": 4,
}
"""The 2-D network of issue and docs: 7.9 million parameters."""

_BRAIN = {
    "network": {"features": [16, 32, 64, 128], "norm": "batch"},
    "channels": 1,
    "classes": 4,
    "patch": [96, 96],
    "batch": 8,
    "optimizer": {"learning_rate": 4e-3, "weight_decay": 1e-4, "gradient_clip": 1.0},
}
"""What configs/brain.py trains; a test holds the two together."""


def _train_2d() -> Iterator[Case]:
    """Steps of a large network and of the main job's."""
    large = {**_UNET, "patch": [128, 128], "batch": 4, "optimizer": _ADAM}
    for name, work in (("features_32_to_512", large), ("brain", _BRAIN)):
        yield _torch_case("train_2d", name, "step", "train", work, {"losses": 2e-3})


def _inference_2d() -> Iterator[Case]:
    """The large network on pictures of two sizes, alone and in batches."""
    for size in (256, 512):
        for batch in (1, 8):
            work = {**_UNET, "patch": [size, size], "batch": batch}
            unit = "picture" if batch == 1 else f"batch of {batch}"
            yield _torch_case(
                "inference_2d",
                f"{size}_batch_{batch}",
                unit,
                "inference",
                work,
                {"probabilities": 1e-3},
            )


def _torch_case(
    benchmark: str,
    name: str,
    unit: str,
    module: str,
    work: dict[str, Any],
    tolerances: dict[str, float],
) -> Case:
    """A case against plain PyTorch, in each of its modes."""
    return Case(
        benchmark=benchmark,
        name=name,
        unit=unit,
        ours=f"benchmarks.ours.{module}",
        peer=f"benchmarks.peers.{module}",
        peer_name="PyTorch",
        modes=_TORCH_MODES,
        options={"work": work},
        tolerances=tolerances,
    )


CASES = (*_train_2d(), *_inference_2d())
