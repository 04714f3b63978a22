"""Data sets that are planned: from a folder and from files of nnU-Net."""

import importlib

import nibabel
import numpy as np
import pytest
from PIL import Image

from tests.nnunet.test_files import write_fingerprint, write_plans
from tests.nnunet.test_planner import GOLDEN
from unet_jax.commands.plan_data import plan_data
from unet_jax.errors import InputError
from unet_jax.experiment.check import check_config
from unet_jax.experiment.config_file import load_config

pytestmark = pytest.mark.usefixtures("one_device")


def _config(name="nnunet", **changes):
    config = importlib.import_module(f"unet_jax.configs.{name}").get_config()
    config.update_from_flattened_dict(changes)
    return config.lock()


def _plan(output, *, file=None, config=None, **changes):
    plan_data(config or _config(**changes), file=file, output=output)
    return {path.stem: load_config(path) for path in sorted(output.glob("*.py"))}


def write_volumes(folder):
    """Write four volumes of thick slices; return the folder."""
    for kind in ("images", "masks"):
        (folder / kind).mkdir(parents=True)
    for index in range(4):
        label = np.zeros((30, 34, 9), np.uint8)
        label[5 : 12 + index, 8:20, 2:6] = 1
        noise = np.random.default_rng(index).normal(0, 5, label.shape)
        image = (100 * label + noise + 50).astype(np.float32)
        affine = np.diag([1.0, 1.0, 4.0, 1.0])
        for kind, data in (("images", image), ("masks", label)):
            path = folder / kind / f"{index}.nii.gz"
            nibabel.save(nibabel.Nifti1Image(data, affine), path)
    return folder


def test_a_folder_is_planned_in_two_and_three_dimensions(tmp_path, capsys):
    path = write_volumes(tmp_path / "data")
    configs = _plan(tmp_path / "plan", **{"data.path": str(path)})
    assert sorted(configs) == ["2d", "3d_fullres"]
    volume, plane = configs["3d_fullres"], configs["2d"]
    assert volume.data.dims == 3
    assert volume.data.spacing == (1.0, 1.0, 4.0)
    assert volume.train.patch_size == (32, 40, 10)
    assert volume.model.options.strides[0] == (2, 2, 1)
    assert volume.optimizer.name == "sgd"  # the recipe is that of the config
    assert (plane.data.dims, plane.data.slice_axis) == (2, 2)
    assert plane.train.patch_size == (32, 40)
    for config in configs.values():
        assert config.model.plan == ""
        check_config(config, complete=True)
    text = capsys.readouterr().out
    assert "plan        nnU-Net's rules, plain, 8 GiB" in text
    assert "channel 0   ZScoreNormalization" in text
    assert "crops of 32x40x10, 1x1x4 mm" in text
    assert (tmp_path / "plan" / "stages.png").stat().st_size > 1000


def test_pictures_have_a_2d_plan_with_the_recipe_of_a_folder(tmp_path):
    for kind in ("images", "masks"):
        (tmp_path / kind).mkdir()
    for index in range(4):
        image = np.full((40, 48), 20 * index + 9, np.uint8)
        image[9:20, 10 + index : 30] = 200
        Image.fromarray(image).save(tmp_path / "images" / f"{index}.png")
        mask = (image == 200).astype(np.uint8) * 255
        Image.fromarray(mask).save(tmp_path / "masks" / f"{index}.png")
    config = _config("folder", **{"data.path": str(tmp_path)})
    configs = _plan(tmp_path / "plan", config=config)
    assert list(configs) == ["2d"]
    assert configs["2d"].optimizer.name == "adamw"
    assert configs["2d"].train.patch_size == (40, 48)
    assert configs["2d"].model.options.features == (32, 64, 128, 256)


def test_a_fingerprint_of_nnunet_is_planned(tmp_path, capsys):
    file = write_fingerprint(tmp_path, "isotropic_ct")
    configs = _plan(tmp_path / "plan", file=file)
    assert sorted(configs) == ["2d", "3d_cascade_fullres", "3d_fullres", "3d_lowres"]
    cascade = configs.pop("3d_cascade_fullres")
    assert cascade.data.previous_stage == "runs/nnunet_3d_lowres"
    assert cascade.data.previous_stage == f"runs/{configs['3d_lowres'].name}"
    for section in ("model", "train", "loss"):
        assert cascade[section] == configs["3d_fullres"][section]
    golden = GOLDEN["cases"]["isotropic_ct"]["plans"]["plain"]["configurations"]
    for name, config in configs.items():
        expected = golden[name]
        assert config.train.patch_size == tuple(expected["patch_size"][::-1])
        assert config.train.batch_size == expected["batch_size"]
        assert config.data.intensity == ("percentile",)
        assert config.loss[0][2] == {"batch_dice": expected["batch_dice"]}
    assert configs["3d_lowres"].data.spacing == tuple(
        golden["3d_lowres"]["spacing"][::-1]
    )
    assert "3d_cascade_fullres sees what 3d_lowres predicts" in capsys.readouterr().out


def test_a_plan_of_nnunet_becomes_configs(tmp_path):
    configs = _plan(tmp_path / "plan", file=write_plans(tmp_path))
    options = configs["3d_fullres"].model.options
    assert (options.block, options.stem) == ("residual_d", True)
    assert options.convolutions_per_stage == (1, 3, 4, 6, 6, 6)


def test_an_earlier_plan_is_not_replaced_without_a_word(tmp_path):
    file = write_fingerprint(tmp_path, "pictures_rgb")
    _plan(tmp_path / "plan", file=file)
    with pytest.raises(InputError, match=r"2d\.py exists already; .* --overwrite"):
        _plan(tmp_path / "plan", file=file)
    plan_data(_config(), file=file, output=tmp_path / "plan", overwrite=True)


def test_nothing_to_plan_is_refused(tmp_path):
    with pytest.raises(InputError, match=r"found neither data\.path nor --topology"):
        _plan(tmp_path)
