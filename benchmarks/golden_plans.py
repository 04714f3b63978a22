"""Runs nnU-Net's own planners on fingerprints, for the tests of ours.

    python -m benchmarks.golden_plans > tests/nnunet/golden_plans.json

needs nnunetv2 2.8.1 (``pip install --no-deps``, beside the extra ``bench``). The
fingerprints are in the file too, so the tests need no nnU-Net.
"""

import contextlib
import importlib.metadata
import io
import json
import os
import pathlib
import sys
import tempfile
from typing import Any

PLANNERS = {
    "plain": "ExperimentPlanner",
    "resenc_m": "nnUNetPlannerResEncM",
    "resenc_l": "nnUNetPlannerResEncL",
    "resenc_xl": "nnUNetPlannerResEncXL",
}
SMALL_GIB = 2.0
"""Another memory target, for the plain planner."""


def fingerprint(
    spacings: list[list[float]],
    shapes: list[list[int]],
    channels: list[str],
    *,
    classes: int,
    cases: int,
    nonzero_fraction: float = 1.0,
) -> dict[str, Any]:
    """Return the numbers of a data set; axes as nnU-Net reads NIfTI, z first."""
    return {
        "spacings": spacings,
        "shapes": shapes,
        "channel_names": channels,
        "num_classes": classes,
        "cases": cases,
        "nonzero_fraction": nonzero_fraction,
    }


FINGERPRINTS = {
    "isotropic_ct": fingerprint(
        [[1.0, 0.98, 0.98], [1.0, 1.0, 1.0], [1.25, 0.9, 0.9], [1.0, 1.1, 1.1]],
        [[310, 390, 410], [295, 370, 388], [280, 410, 430], [350, 352, 365]],
        ["CT"],
        classes=5,
        cases=80,
    ),
    "anisotropic_mr": fingerprint(
        [[3.6, 0.62, 0.62], [4.0, 0.6, 0.6], [3.0, 0.625, 0.625], [3.6, 0.6, 0.6]],
        [[20, 320, 318], [15, 384, 384], [24, 320, 320], [18, 350, 340]],
        ["T2", "ADC"],
        classes=3,
        cases=32,
    ),
    "thick_slices": fingerprint(
        [[10.0, 1.56, 1.56], [5.0, 1.4, 1.4], [10.0, 1.37, 1.37], [8.0, 1.6, 1.6]],
        [[9, 256, 216], [18, 224, 230], [10, 240, 220], [8, 256, 256]],
        ["cineMRI"],
        classes=4,
        cases=200,
    ),
    "thin_slices": fingerprint(
        [[0.4, 0.82, 0.82], [0.5, 0.75, 0.75], [0.3, 0.9, 0.9]],
        [[620, 410, 380], [560, 430, 412], [700, 360, 350]],
        ["CT"],
        classes=2,
        cases=25,
    ),
    "pictures_rgb": fingerprint(
        [[999.0, 1.0, 1.0]] * 3,
        [[1, 512, 640], [1, 480, 640], [1, 768, 1024]],
        ["rgb_to_0_1", "rgb_to_0_1", "rgb_to_0_1"],
        classes=2,
        cases=400,
    ),
    "few_small_pictures": fingerprint(
        [[999.0, 1.0, 1.0]] * 2,
        [[1, 181, 217], [1, 160, 210]],
        ["photo"],
        classes=3,
        cases=8,
    ),
    "tiny_volumes": fingerprint(
        [[1.0, 1.0, 1.0]] * 4,
        [[36, 50, 35], [34, 51, 36], [40, 48, 31], [37, 52, 34]],
        ["MRI"],
        classes=3,
        cases=260,
    ),
    "four_channels": fingerprint(
        [[1.0, 1.0, 1.0]] * 3,
        [[138, 170, 137], [141, 168, 139], [135, 173, 140]],
        ["FLAIR", "T1", "T1ce", "T2"],
        classes=4,
        cases=484,
        nonzero_fraction=0.36,
    ),
    "ragged": fingerprint(
        [[2.5, 0.7, 0.9], [1.5, 0.8, 0.8], [5.0, 0.6, 0.71], [3.0, 0.9, 1.3]],
        [[61, 511, 300], [97, 430, 391], [33, 512, 420], [48, 300, 250]],
        ["PET", "CT", "noNorm"],
        classes=12,
        cases=9,
        nonzero_fraction=0.7,
    ),
    "tall": fingerprint(
        [[1.0, 1.0, 1.0]],
        [[1200, 90, 64]],
        ["rescale_to_0_1"],
        classes=2,
        cases=1,
    ),
}


def main() -> None:
    """Print fingerprints and plans as JSON."""
    with tempfile.TemporaryDirectory() as folder:
        for name in ("raw", "preprocessed", "results"):
            os.environ[f"nnUNet_{name}"] = f"{folder}/{name}"
        plans = {
            name: _plans(pathlib.Path(folder), index + 1, data)
            for index, (name, data) in enumerate(FINGERPRINTS.items())
        }
    version = importlib.metadata.version("nnunetv2")
    result = {"made_by": {"nnunetv2": version}, "small_gib": SMALL_GIB}
    cases = {
        name: {"fingerprint": data, "plans": plans[name]}
        for name, data in FINGERPRINTS.items()
    }
    print(json.dumps(result | {"cases": cases}))


def _plans(folder: pathlib.Path, number: int, data: dict[str, Any]) -> dict[str, Any]:
    """Plan a data set with every planner, and with another memory target."""
    name = f"Dataset{number:03d}_golden"
    _write_dataset(folder, name, data)
    plans = {preset: _plan(planner, name, None) for preset, planner in PLANNERS.items()}
    return plans | {"small": _plan(PLANNERS["plain"], name, SMALL_GIB)}


def _write_dataset(folder: pathlib.Path, name: str, data: dict[str, Any]) -> None:
    """Write what a planner reads: no image is one of them."""
    channels = dict(enumerate(data["channel_names"]))
    dataset = {
        "channel_names": channels,
        "labels": {f"class {index}": index for index in range(data["num_classes"])},
        "numTraining": data["cases"],
        "file_ending": ".nii.gz",
        "overwrite_image_reader_writer": "SimpleITKIO",
    }
    raw = folder / "raw" / name
    for part in ("imagesTr", "labelsTr"):
        (raw / part).mkdir(parents=True)
    for channel in channels:
        (raw / "imagesTr" / f"a_{channel:04d}.nii.gz").touch()
    (raw / "labelsTr" / "a.nii.gz").touch()
    (raw / "dataset.json").write_text(json.dumps(dataset))
    numbers = {
        "spacings": data["spacings"],
        "shapes_after_crop": data["shapes"],
        "median_relative_size_after_cropping": data["nonzero_fraction"],
        "foreground_intensity_properties_per_channel": {},
    }
    (folder / "preprocessed" / name).mkdir(parents=True)
    fingerprint = folder / "preprocessed" / name / "dataset_fingerprint.json"
    fingerprint.write_text(json.dumps(numbers))


def _plan(planner: str, name: str, gib: float | None) -> dict[str, Any]:
    """Run one planner, and keep what the tests compare."""
    import nnunetv2.experiment_planning as planning
    import torch
    from nnunetv2.utilities.find_class_by_name import recursive_find_python_class

    found = recursive_find_python_class(
        planning.__path__[0], planner, "nnunetv2.experiment_planning"
    )
    options = {} if gib is None else {"gpu_memory_target_in_gb": gib}
    # Only shapes of parameters are read: none need memory.
    with contextlib.redirect_stdout(io.StringIO()) as text, torch.device("meta"):
        plans = found(name, **options).plan_experiment()
    print(name, planner, len(text.getvalue()), file=sys.stderr)
    configurations = {
        key: _configuration(value)
        for key, value in plans["configurations"].items()
        if "architecture" in value
    }
    first = plans["configurations"]["2d"]
    return {
        "transpose_forward": plans["transpose_forward"],
        "normalization_schemes": first["normalization_schemes"],
        "use_mask_for_norm": first["use_mask_for_norm"],
        "cascade": "3d_cascade_fullres" in plans["configurations"],
        "configurations": configurations,
    }


def _configuration(values: dict[str, Any]) -> dict[str, Any]:
    """Keep the numbers of one configuration, by our names."""
    network = values["architecture"]["arch_kwargs"]
    blocks = network.get("n_blocks_per_stage", network.get("n_conv_per_stage"))
    return {
        "spacing": values["spacing"],
        "median_shape": values["median_image_size_in_voxels"],
        "patch_size": values["patch_size"],
        "batch_size": values["batch_size"],
        "features": network["features_per_stage"],
        "kernel_sizes": network["kernel_sizes"],
        "strides": network["strides"],
        "blocks": blocks,
        "decoder_blocks": network["n_conv_per_stage_decoder"],
        "batch_dice": values["batch_dice"],
    }


if __name__ == "__main__":
    main()
