"""Files that torch and nnU-Net wrote, for tests that have neither of them.

    python -m benchmarks.golden_nnunet

needs torch 2.13, dynamic-network-architectures 0.4.4 and nnunetv2 2.8.1. It writes
``tests/models/pytorch/values.pth`` and the folders ``networks`` and ``trained`` of
``tests/nnunet``: small networks with random weights, their input and logits; and
models that nnU-Net planned, trained for a few steps and predicted with: in 3-D, in 2-D
on the slices of the same volumes (``trained_slices``), and on pictures
(``trained_pictures``).
"""

import collections
import contextlib
import json
import os
import pathlib
import shutil
import tempfile
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

TESTS = pathlib.Path(__file__).parents[1] / "tests"
FOLDER = "nnUNetTrainer__nnUNetPlans__{}"
"""Name that nnU-Net gives to the folder of a model of a configuration."""


def main() -> None:
    """Write every file."""
    import torch

    torch.save(_values(), TESTS / "models" / "pytorch" / "values.pth")
    for name, kind, axes, biases in (
        ("plain_2d", "PlainConvUNet", 2, True),
        ("plain_3d", "PlainConvUNet", 3, True),
        ("residual_2d", "ResidualEncoderUNet", 2, True),
        ("residual_3d", "ResidualEncoderUNet", 3, False),
    ):
        folder = TESTS / "nnunet" / "networks"
        folder.mkdir(exist_ok=True)
        torch.save(_network(kind, axes, biases), folder / f"{name}.pth")
    trained = TESTS / "nnunet" / "trained"
    _train(trained, "3d_fullres", _write_data)
    _predict_regions(trained)
    _train(trained.with_name("trained_slices"), "2d", _write_data)
    _train(trained.with_name("trained_pictures"), "2d", _write_pictures)


def _values() -> dict[str, Any]:
    """One value of each kind that a checkpoint may hold."""
    import torch

    tensor = torch.arange(24.0).reshape(2, 3, 4)
    dtypes = (
        *("float32", "float64", "float16", "bfloat16", "float8_e4m3fn", "uint16"),
        *("int8", "uint8", "int16", "int32", "int64"),
    )
    torch.manual_seed(0)
    return {
        **{name: tensor.to(getattr(torch, name)) for name in dtypes},
        "complex64": torch.complex(tensor, tensor),
        "bool": tensor > 3,
        "steps": tensor[:, 1:, ::2],
        "permuted": tensor.permute(2, 0, 1),
        "expanded": torch.ones(1, 3).expand(5, 3),
        "empty": torch.zeros(0, 3),
        "scalar": torch.tensor(5.0),
        "parameter": torch.nn.Parameter(torch.ones(2)),
        "array": np.arange(6.0).reshape(2, 3),
        "fortran": np.asfortranarray(np.arange(6).reshape(2, 3)),
        "big_endian": np.arange(3, dtype=">i4"),
        "float": np.float64(3.5),
        "list": [1, (2, 3, "x"), None, True, 2**70, -5, b"abc\xff"],
        "ordered": collections.OrderedDict(x=1),
        "set": {1, 2},
        "size": tensor.shape,
        "device": torch.device("cpu"),
        "default": collections.defaultdict(list, {"q": [1]}),
        "state_dict": torch.nn.Linear(1, 2).state_dict(),
    }


def _network(kind: str, axes: int, biases: bool) -> dict[str, Any]:
    """A network with random weights, its architecture as plans have it, and logits."""
    import torch
    from nnunetv2.utilities.get_network_from_plans import get_network_from_plans

    residual = kind == "ResidualEncoderUNet"
    module = "dynamic_network_architectures.architectures.unet"
    names = {
        "network_class_name": f"{module}.{kind}",
        "arch_kwargs": {
            "n_stages": 4,
            "features_per_stage": [2, 3, 4, 4],
            "conv_op": f"torch.nn.modules.conv.Conv{axes}d",
            "kernel_sizes": [[1, 3, 3][-axes:], *[[3] * axes] * 3],
            "strides": [[1] * axes, [1, 2, 2][-axes:], [2, 2, 1][-axes:], [2] * axes],
            "n_blocks_per_stage" if residual else "n_conv_per_stage": [1, 2, 1, 2],
            "n_conv_per_stage_decoder": [2, 1, 1] if residual else [1, 2, 2],
            "conv_bias": biases,
            "norm_op": f"torch.nn.modules.instancenorm.InstanceNorm{axes}d",
            "norm_op_kwargs": {"eps": 1e-05, "affine": True},
            "dropout_op": None,
            "dropout_op_kwargs": None,
            "nonlin": "torch.nn.LeakyReLU",
            "nonlin_kwargs": {"inplace": True},
        },
        "_kw_requires_import": ["conv_op", "norm_op", "dropout_op", "nonlin"],
    }
    torch.manual_seed(axes)
    network = get_network_from_plans(
        *names.values(), 2, 3, allow_init=False, deep_supervision=True
    )
    with torch.no_grad():
        for parameter in network.parameters():
            if parameter.ndim == 1:  # biases and norms, which would be 0 and 1
                parameter.add_(0.3 * torch.randn_like(parameter))
        image = torch.randn(1, 2, *(8, 16, 16)[-axes:])
        logits = [one.clone() for one in network.train()(image)]
    return {
        "architecture": names,
        "network_weights": {
            # PyTorch names some arrays three times, which takes half of the file.
            name: array
            for name, array in network.state_dict().items()
            if "all_modules" not in name and not name.startswith("decoder.encoder")
        },
        "image": image,
        "logits": logits,
    }


# ---- a model that nnU-Net trained ------------------------------------------------


def _train(
    output: pathlib.Path, name: str, write: Callable[[pathlib.Path], None]
) -> None:
    """Write a data set, plan it, train on it for a few steps, and predict a case."""
    with tempfile.TemporaryDirectory() as place:
        raw = _trained(pathlib.Path(place), output, name, write)
        _predict(raw, output, name)


def _trained(
    place: pathlib.Path,
    output: pathlib.Path,
    configuration: str,
    write: Callable[[pathlib.Path], None],
) -> pathlib.Path:
    """Train in a folder and copy the model; return the raw data set."""
    for name in ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results"):
        (place / name).mkdir()
        os.environ[name] = str(place / name)
    os.environ |= {"nnUNet_n_proc_DA": "1", "nnUNet_def_n_proc": "1"}
    import torch
    from nnunetv2.experiment_planning import plan_and_preprocess_api as api
    from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer

    torch.manual_seed(0)
    np.random.seed(0)  # nnU-Net draws with it
    raw = place / "nnUNet_raw" / "Dataset001_Made"
    write(raw)
    api.extract_fingerprints([1], num_processes=1)
    api.plan_experiments([1])
    prepared = place / "nnUNet_preprocessed" / "Dataset001_Made"
    plans = json.loads((prepared / "nnUNetPlans.json").read_text())
    chosen = plans["configurations"][configuration]
    _shrink(chosen)
    plans["configurations"] = {configuration: chosen}
    (prepared / "nnUNetPlans.json").write_text(json.dumps(plans))
    api.preprocess([1], configurations=(configuration,), num_processes=(1,))
    dataset = json.loads((prepared / "dataset.json").read_text())
    os.environ |= {"nnUNet_n_proc_DA": "0"}  # no processes; planning needs one thread
    given = plans | {"continue_training": False}
    trainer = nnUNetTrainer(given, configuration, 0, dataset, torch.device("cpu"))
    trainer.num_epochs, trainer.num_iterations_per_epoch = 2, 30
    trainer.num_val_iterations_per_epoch = 1
    trainer.run_training()
    shutil.rmtree(output, ignore_errors=True)
    made = pathlib.Path(trainer.output_folder_base)
    model = output / FOLDER.format(configuration)
    (model / "fold_0").mkdir(parents=True)
    for name in ("plans.json", "dataset.json", "fold_0/checkpoint_final.pth"):
        shutil.copy(made / name, model / name)
    return raw


def _write_data(folder: pathlib.Path) -> None:
    """Write cases of two channels whose planes lie far apart along the second axis.

    The last one is for prediction: it has other spacings, fewer planes than a patch.
    """
    import nibabel

    random = np.random.default_rng(0)
    for name in ("imagesTr", "labelsTr", "imagesTs"):
        (folder / name).mkdir(parents=True)
    for index in range(6):
        shape, spacing = (26, 11, 22), (1.0, 4.0, 1.25)
        if index == 5:
            shape, spacing = (31, 7, 18), (0.8, 5.0, 1.25)
        # Stored to the left and to the back, as DICOM is.
        affine = np.diag([-spacing[0], -spacing[1], spacing[2], 1])
        grid = np.stack(np.meshgrid(*map(np.arange, shape), indexing="ij"), -1)
        grid = grid - np.array(shape) * random.uniform(0.4, 0.6, 3)
        distance = np.linalg.norm(grid * spacing, axis=-1)
        label = (distance < 9).astype(np.uint8) + (distance < 5)
        channels = random.normal(0, 20, (*shape, 2)) + label[..., None] * [60, -40]
        channels = np.round(channels + np.array([40, 300])) * (distance < 19)[..., None]
        part = "imagesTs" if index == 5 else "imagesTr"
        for channel in range(2):
            image = channels[..., channel].astype(np.int16)
            path = folder / part / f"case{index}_000{channel}.nii.gz"
            nibabel.save(nibabel.Nifti1Image(image, affine), path)
        if index < 5:
            image = nibabel.Nifti1Image(label.astype(np.uint8), affine)
            nibabel.save(image, folder / "labelsTr" / f"case{index}.nii.gz")
    dataset = {
        "channel_names": {"0": "CT", "1": "T2"},
        "labels": {"background": 0, "organ": 1, "tumour": 2},
        "numTraining": 5,
        "file_ending": ".nii.gz",
    }
    (folder / "dataset.json").write_text(json.dumps(dataset))


def _write_pictures(folder: pathlib.Path) -> None:
    """Write pictures of three colours, the last one for prediction."""
    from PIL import Image

    random = np.random.default_rng(0)
    for name in ("imagesTr", "labelsTr", "imagesTs"):
        (folder / name).mkdir(parents=True)
    for index in range(6):
        shape = (27, 45) if index == 5 else (36, 40)
        grid = np.stack(np.meshgrid(*map(np.arange, shape), indexing="ij"), -1)
        distance = np.linalg.norm(
            grid - np.array(shape) * random.uniform(0.4, 0.6, 2), axis=-1
        )
        label = (distance < 11).astype(np.uint8) + (distance < 5)
        noise = random.normal(100, 20, (*shape, 3))
        pixels = np.clip(noise + label[..., None] * [50, -30, 10], 0, 255)
        part = "imagesTs" if index == 5 else "imagesTr"
        picture = Image.fromarray(pixels.astype(np.uint8))
        picture.save(folder / part / f"case{index}_0000.png")
        if index < 5:
            Image.fromarray(label).save(folder / "labelsTr" / f"case{index}.png")
    dataset = {
        "channel_names": {"0": "R", "1": "G", "2": "B"},
        "labels": {"background": 0, "organ": 1, "tumour": 2},
        "numTraining": 5,
        "file_ending": ".png",
    }
    (folder / "dataset.json").write_text(json.dumps(dataset))


def _shrink(configuration: dict[str, Any]) -> None:
    """Leave three small stages, and a patch smaller than the cases."""
    axes = len(configuration["patch_size"])
    configuration["patch_size"] = [8, 16, 16][-axes:]
    configuration["batch_size"] = 2
    configuration["architecture"]["arch_kwargs"] |= {
        "n_stages": 3,
        "features_per_stage": [4, 8, 8],
        "kernel_sizes": [[1, 3, 3][-axes:], [3] * axes, [3] * axes],
        "strides": [[1] * axes, [1, 2, 2][-axes:], [2] * axes],
        "n_conv_per_stage": [2, 2, 2],
        "n_conv_per_stage_decoder": [2, 2],
    }


@contextlib.contextmanager
def _in_single_precision() -> Iterator[None]:
    """Let nnU-Net add up windows in float32: its float16 has three digits."""
    import torch
    from nnunetv2.inference import predict_from_raw_data, sliding_window_prediction

    half, gaussian = torch.half, sliding_window_prediction.compute_gaussian

    def in_float32(*arguments: Any, **options: Any) -> Any:
        return gaussian(*arguments, **options, dtype=torch.float32)

    in_float32.cache_clear = gaussian.cache_clear  # type: ignore[attr-defined]
    try:
        torch.half = torch.float32
        predict_from_raw_data.compute_gaussian = in_float32
        yield
    finally:
        torch.half = half
        predict_from_raw_data.compute_gaussian = gaussian


def _predict(raw: pathlib.Path, output: pathlib.Path, configuration: str) -> None:
    """Write what nnU-Net predicts for a case, at both precisions."""
    import torch
    from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor

    predictor = nnUNetPredictor(device=torch.device("cpu"))
    model = str(output / FOLDER.format(configuration))
    predictor.initialize_from_trained_model_folder(model, (0,))
    files = sorted((raw / "imagesTs").iterdir())
    for file in files:
        shutil.copy(file, output / file.name)
    reader = predictor.plans_manager.image_reader_writer_class()
    image, properties = reader.read_images([str(file) for file in files])
    results: dict[str, np.ndarray] = {}
    for name, context in (
        ("half_", contextlib.nullcontext()),
        ("", _in_single_precision()),
    ):
        with context:
            labels, probabilities = predictor.predict_single_npy_array(
                image, dict(properties), save_or_return_probabilities=True
            )
        if files[0].suffix == ".png":
            labels, probabilities = labels[0], np.moveaxis(probabilities[:, 0], 0, -1)
        else:  # as NIfTI has the axes
            labels, probabilities = labels.transpose(2, 1, 0), probabilities.T
        results[f"{name}labels"] = labels
        results[f"{name}probabilities"] = probabilities
    del results["half_probabilities"]
    patch = torch.randn(1, len(image), *predictor.configuration_manager.patch_size)
    with torch.no_grad():
        results |= {"patch": patch.numpy(), "logits": predictor.network(patch).numpy()}
    np.savez_compressed(output / "expected.npz", **results)


REGIONS = {
    "labels": {"background": 0, "whole": [1, 2, 3], "core": [2, 3], "top": 3},
    "regions_class_order": [1, 2, 3],
}
"""Entries of dataset.json that make regions of the three channels of that model."""


def _predict_regions(trained: pathlib.Path) -> None:
    """Write what nnU-Net predicts with that network where its channels are regions."""
    import torch
    from nnunetv2.imageio.simpleitk_reader_writer import SimpleITKIO
    from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor

    files = sorted(map(str, trained.glob("case5_*.nii.gz")))
    image, properties = SimpleITKIO().read_images(files)
    with tempfile.TemporaryDirectory() as place, _in_single_precision():
        name = FOLDER.format("3d_fullres")
        model = pathlib.Path(place) / name
        shutil.copytree(trained / name, model)
        dataset = json.loads((model / "dataset.json").read_text()) | REGIONS
        (model / "dataset.json").write_text(json.dumps(dataset))
        predictor = nnUNetPredictor(device=torch.device("cpu"))
        predictor.initialize_from_trained_model_folder(str(model), (0,))
        labels, probabilities = predictor.predict_single_npy_array(
            image, properties, save_or_return_probabilities=True
        )
    np.savez_compressed(
        trained / "regions.npz",
        labels=labels.transpose(2, 1, 0),
        probabilities=probabilities.transpose(3, 2, 1, 0),
    )


if __name__ == "__main__":
    main()
