"""Files of nnU-Net: fingerprints and plans; what is none of them is refused."""

import json

import pytest

from tests.nnunet.test_planner import GOLDEN, fingerprint_of
from unet_jax.errors import InputError
from unet_jax.nnunet.files import read_fingerprint, read_plans
from unet_jax.nnunet.planner import plan_dataset

NAME = "thick_slices"


def write_fingerprint(folder, name=NAME):
    """Write what nnU-Net has in its folder of preprocessed data; return the file."""
    found = GOLDEN["cases"][name]["fingerprint"]
    dataset = {
        "channel_names": {str(i): one for i, one in enumerate(found["channel_names"])},
        "labels": {f"class {index}": index for index in range(found["num_classes"])},
        "numTraining": found["cases"],
    }
    (folder / "dataset.json").write_text(json.dumps(dataset))
    path = folder / "dataset_fingerprint.json"
    numbers = {
        "spacings": found["spacings"],
        "shapes_after_crop": found["shapes"],
        "median_relative_size_after_cropping": found["nonzero_fraction"],
    }
    path.write_text(json.dumps(numbers))
    return path


def write_plans(folder, name=NAME, network="ResidualEncoderUNet"):
    """Write a plans.json with the numbers of a golden plan; return the file."""
    plan = GOLDEN["cases"][name]["plans"]["resenc_m"]
    configurations = {
        key: {
            **{k: one[k] for k in ("spacing", "patch_size", "batch_size")},
            "batch_dice": one["batch_dice"],
            "median_image_size_in_voxels": one["median_shape"],
            "normalization_schemes": plan["normalization_schemes"],
            "use_mask_for_norm": plan["use_mask_for_norm"],
            "architecture": {
                "network_class_name": f"package.unet.{network}",
                "arch_kwargs": {
                    "n_stages": len(one["features"]),
                    "norm_op": "torch.nn.InstanceNorm3d",
                    "norm_op_kwargs": {"eps": 1e-5, "affine": True},
                    "nonlin": "torch.nn.LeakyReLU",
                    "conv_bias": True,
                    "features_per_stage": one["features"],
                    "kernel_sizes": one["kernel_sizes"],
                    "strides": one["strides"],
                    "n_blocks_per_stage": one["blocks"],
                    "n_conv_per_stage_decoder": one["decoder_blocks"],
                },
            },
        }
        for key, one in plan["configurations"].items()
    }
    configurations["3d_cascade_fullres"] = {
        "inherits_from": "3d_fullres",
        "previous_stage": "3d_lowres",
    }
    path = folder / "plans.json"
    content = {
        "plans_name": "nnUNetResEncUNetMPlans",
        "transpose_forward": plan["transpose_forward"],
        "original_median_spacing_after_transp": [999.0, 1.0, 1.0],
        "configurations": configurations,
    }
    path.write_text(json.dumps(content))
    return path


def test_a_fingerprint_is_read_with_the_dataset_beside_it(tmp_path):
    assert read_fingerprint(write_fingerprint(tmp_path)) == fingerprint_of(NAME)


@pytest.mark.parametrize("name", [NAME, "pictures_rgb"])
def test_a_plan_that_was_written_is_the_plan_that_is_made(tmp_path, name):
    read = read_plans(write_plans(tmp_path, name))
    made = plan_dataset(fingerprint_of(name), preset="resenc_m")
    assert read.configurations == made.configurations
    assert (read.residual, read.axes, read.spacing) == (True, made.axes, made.spacing)
    assert read.normalization == made.normalization


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "cannot be read"),
        ("{", "cannot be read"),
        ("[]", "cannot be read"),
        ("{}", "is no plan of nnU-Net 2"),
        ('{"configurations": {}}', "is no plan"),
        ('{"configurations": {"../a": {}}}', "is no plan"),  # it names a file later
    ],
)
def test_other_files_are_no_plans(tmp_path, content, message):
    path = tmp_path / "plans.json"
    if content is not None:
        path.write_text(content)
    with pytest.raises(InputError, match=f"plans.json: {message}"):
        read_plans(path)


def test_a_network_that_ours_are_not_is_refused(tmp_path):
    path = write_plans(tmp_path, network="PrimusM")
    with pytest.raises(InputError, match="the network is 'PrimusM'; expected one of"):
        read_plans(path)


def test_a_fingerprint_without_its_dataset_is_refused(tmp_path):
    path = write_fingerprint(tmp_path)
    (tmp_path / "dataset.json").write_text("{}")
    with pytest.raises(InputError, match=r"with dataset\.json it is no fingerprint"):
        read_fingerprint(path)
