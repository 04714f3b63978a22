"""Lists every case of every benchmark."""

import dataclasses
from collections.abc import Iterator
from typing import Any

from benchmarks import masks
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
"""The 2-D network of docs/performance.md: 7.9 million parameters."""

_BRAIN = {
    "network": {"features": [16, 32, 64, 128], "norm": "batch"},
    "channels": 1,
    "classes": 4,
    "patch": [96, 96],
    "batch": 8,
    "optimizer": {"learning_rate": 4e-3, "weight_decay": 1e-4, "gradient_clip": 1.0},
}
"""The network of configs/brain_slab.py; a test compares the two."""


def _train_2d() -> Iterator[Case]:
    """Steps of a large network and of the main job's."""
    large = {**_UNET, "patch": [128, 128], "batch": 4, "optimizer": _ADAM}
    for name, work in (("features_32_to_512", large), ("brain", _BRAIN)):
        case = _torch_case("train_2d", name, "step", "train", work, {"losses": 2e-3})
        # A run is thousands of steps: the first after a rest, when threads may share
        # a core until the system moves one, are few of a repeat.
        yield dataclasses.replace(case, least_seconds=5.0)


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


_NNUNET = {
    "network": {
        "features": [32, 64, 128, 256, 320],
        "norm": "instance",
        "downsample": "strided",
        "deep_supervision": 3,
    },
    "channels": 1,
    "classes": 4,
    "patch": [64, 64, 64],
    "batch": 2,
    "optimizer": _ADAM,
}
"""nnU-Net's PlainConvUNet, as it plans it for such a patch."""


def _train_3d() -> Iterator[Case]:
    """Steps of nnU-Net's network, with its deep supervision."""
    tolerances = {"losses": 2e-3}
    case = _torch_case("train_3d", "nnunet", "step", "train", _NNUNET, tolerances)
    yield dataclasses.replace(case, peer_name="PlainConvUNet")


def _inference_3d() -> Iterator[Case]:
    """nnU-Net's network on two patches."""
    tolerances = {"probabilities": 1e-3}
    case = _torch_case(
        "inference_3d", "nnunet", "batch of 2", "inference", _NNUNET, tolerances
    )
    yield dataclasses.replace(case, peer_name="PlainConvUNet")


def _sliding_window() -> Iterator[Case]:
    """A volume in 147 windows that overlap by half, blended by a Gaussian."""
    work = {
        "network": {"features": [16, 32, 64, 128], "norm": "instance"},
        "channels": 1,
        "classes": 4,
        "patch": [64, 64, 64],
        "batch": 1,
        "volume": [256, 256, 128],
    }
    tolerances = {"probabilities": 1e-3}
    case = _torch_case(
        "sliding_window", "volume", "volume", "sliding_window", work, tolerances
    )
    yield dataclasses.replace(
        case, peer_name="MONAI", least_seconds=None, repeats=3, modes=_TORCH_MODES[:3]
    )


_NO_ELASTIC = {"elastic_probability": 0.0}
"""Options that turn our default list into nnU-Net's."""


def _augmentation() -> Iterator[Case]:
    """The nnU-Net list in 2-D and 3-D, against each package that has it."""
    peers = {
        "batchgeneratorsv2": "benchmarks.peers.transforms_nnunet",
        "MONAI": "benchmarks.peers.transforms_monai",
    }
    for dims, shape, batch, draws in (
        ("2d", [256, 256], 16, 512),
        ("3d", [64, 64, 64], 4, 256),
    ):
        work = {"shape": shape, "batch": batch, "draws": draws, "augment": _NO_ELASTIC}
        for name, module in peers.items():
            yield Case(
                benchmark="augmentation",
                name=f"{dims}_{name.lower()}",
                unit=f"{batch} examples",
                ours="benchmarks.ours.augmentation",
                peer="benchmarks.peers.augmentation",
                peer_name=name,
                modes=("threads", "processes"),
                options={"work": work},
                peer_options={"transforms": module},
                # Draws differ: about three standard deviations of their means.
                tolerances={
                    "mean": 0.03,
                    "std": 0.03,
                    "labelled": 0.02,
                    "changed": 0.1,
                },
                least_seconds=2.0,
            )


def _surface_metrics() -> Iterator[Case]:
    """Surface elements against DeepMind's, border voxels against MONAI's."""
    for prediction in masks.PREDICTIONS:
        for peer, mode, surface in (
            ("surface-distance", "surface_distance", "area"),
            ("MONAI", "monai", "voxel"),
        ):
            work = {
                "prediction": prediction,
                "spacing": [0.9, 0.9, 1.5],
                "tolerance": 1.0,
                "surface": surface,
            }
            yield Case(
                benchmark="surface_metrics",
                name=f"{prediction}_{mode}",
                unit="pair of 256x256x256",
                ours="benchmarks.ours.surface_metrics",
                peer="benchmarks.peers.surface_metrics",
                peer_name=peer,
                modes=(mode,),
                options={"work": work},
                tolerances={"hd95_nsd_dice": 1e-6},
                least_seconds=None,
                repeats=3 if prediction == "noise" else None,
            )


def _data() -> Iterator[Case]:
    """Batches of crops before augmentation."""
    common = {"patch": [96, 96], "batch": 8, "workers": 2, "draws": 200}
    for source, modes in (
        ("tfds", ("from_memory",)),
        ("folder", ("from_files", "from_memory")),
    ):
        yield Case(
            benchmark="data",
            name=source,
            unit="800 crops",
            ours="benchmarks.ours.data",
            peer="benchmarks.peers.data",
            peer_name="DataLoader",
            modes=modes,
            options={"work": {**common, "source": source, "pictures": 60}},
            # Of 200 batches of 8: draws differ.
            tolerances={"mean": 0.08, "std": 0.08, "labelled": 0.05},
            least_seconds=2.0,
        )


def _startup() -> Iterator[Case]:
    """Start-up of the main command and of a plain PyTorch script."""
    for what in ("import", "help", "first_step_cold", "first_step_warm"):
        yield Case(
            benchmark="startup",
            name=what,
            unit="start",
            ours="benchmarks.ours.startup",
            peer="benchmarks.peers.startup",
            peer_name="PyTorch script",
            modes=("eager",),
            options={"work": {"what": what}},
            least_seconds=None,
        )


def _time_to_quality() -> Iterator[Case]:
    """The main job from its command to a validation Dice of 0.93."""
    yield Case(
        benchmark="time_to_quality",
        name="brain",
        unit="run",
        ours="benchmarks.ours.time_to_quality",
        peer="benchmarks.peers.time_to_quality",
        peer_name="PyTorch script",
        modes=_TORCH_MODES[:3],
        options={"work": {"dice": 0.93, "every": 50}},
        least_seconds=None,
        repeats=3,
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


CASES = (
    *_train_2d(),
    *_train_3d(),
    *_inference_2d(),
    *_inference_3d(),
    *_augmentation(),
    *_sliding_window(),
    *_surface_metrics(),
    *_data(),
    *_startup(),
    *_time_to_quality(),
)
