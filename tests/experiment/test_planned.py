"""A plan of nnU-Net as values of a config: its axes, options and memory."""

import dataclasses
import json
import pathlib
from types import SimpleNamespace

import pytest

from unet_jax.configs import nnunet
from unet_jax.errors import InputError
from unet_jax.experiment.check import check_config
from unet_jax.experiment.complete import complete_config, fill_config
from unet_jax.experiment.memory_class import MemoryChoice
from unet_jax.experiment.options import given_options
from unet_jax.experiment.planned import planned_values
from unet_jax.models.network import sizes_of
from unet_jax.models.presets import create_model
from unet_jax.nnunet.planner import DatasetFingerprint, plan_dataset

GOLDEN = json.loads(
    (pathlib.Path(__file__).parents[1] / "nnunet" / "golden_plans.json").read_text()
)["cases"]


def _data(name):
    """Cases that nnU-Net would summarise to a golden fingerprint, on our axes."""
    golden = GOLDEN[name]["fingerprint"]
    channels = len(golden["channel_names"])
    lowest = -1000.0 if golden["channel_names"] == ["CT"] else 0.0
    rgb = golden["channel_names"][0].startswith("rgb")
    cases = []
    for spacing, shape in zip(golden["spacings"], golden["shapes"], strict=True):
        volume = shape[0] > 1
        cases.append(
            SimpleNamespace(
                shape=tuple(n + 9 for n in shape[::-1]) if volume else tuple(shape[1:]),
                nonzero_shape=tuple(shape[::-1]),
                spacing=tuple(spacing[::-1]) if volume else None,
                channels=channels,
                dtype="uint8" if rgb else "int16",
                lowest=lowest,
                nonzero_fraction=golden["nonzero_fraction"],
            )
        )
    classes = tuple(f"class {index}" for index in range(golden["num_classes"]))
    return SimpleNamespace(
        traits=tuple(cases),
        class_names=classes,
        label_map=((0, 0),),
        notes=(),
        intensity=None,
        channel_names=(),
    )


def _complete(name, *, gib=8.0, recorded=None, **changes):
    config = nnunet.get_config()
    config.update_from_flattened_dict(changes)
    completed = complete_config(
        config.lock(),
        _data(name),
        memory=MemoryChoice(gib, "class of this gpu"),
        recorded=recorded,
    )
    check_config(completed, complete=True)
    return completed


def _expected(name, resolution, preset="plain"):
    return GOLDEN[name]["plans"][preset]["configurations"][resolution]


def test_a_run_gets_the_patch_and_the_network_of_the_plan():
    config = _complete("isotropic_ct", **{"data.dims": 3})
    expected = _expected("isotropic_ct", "3d_fullres")
    options = config.model.options
    assert config.train.patch_size == tuple(expected["patch_size"])
    assert config.data.spacing == tuple(expected["spacing"][::-1])
    assert options.features == tuple(expected["features"])
    assert options.strides == ((2, 2, 2),) * 5
    assert (options.norm, options.downsample) == ("instance", "centred")
    assert options.deep_supervision == len(expected["features"]) - 3
    assert config.data.intensity == ("percentile",)
    assert config.augment.rotation_degrees_3d == (-30.0, 30.0)
    # There is a low resolution, so the Dice loss pools the batch.
    assert config.loss[0] == ("dice", 1.0, {"batch_dice": True})
    network = create_model(name="unet", num_classes=5, **given_options(config))
    assert sizes_of(network, 3).total_stride == (32, 32, 32)


def test_axes_of_thick_slices_come_back_to_ours():
    config = _complete("anisotropic_mr", **{"data.dims": 3})
    expected = _expected("anisotropic_mr", "3d_fullres")
    assert config.train.patch_size == tuple(expected["patch_size"][::-1])
    assert config.data.spacing == tuple(expected["spacing"][::-1])
    assert config.model.options.kernel_sizes[0] == (3, 3, 1)
    assert config.model.options.strides[0] == (2, 2, 1)
    assert config.augment.rotation_degrees_3d == (-180.0, 180.0)
    assert config.loss[0] == ("dice", 1.0, {"batch_dice": False})


def test_a_2d_network_sees_the_slices_of_the_coarsest_axis():
    data = DatasetFingerprint(((1.0, 4.0, 0.5),), ((100, 30, 300),), ("zscore",), 2, 40)
    plan = plan_dataset(data)
    values = planned_values(plan, plan.configurations["2d"], image_axes=3).values
    # nnU-Net's axes z, y, x: the coarsest is y. Ours are x, y, z.
    assert values["data.slice_axis"] == 1
    z, x = plan.configurations["2d"].patch_size
    assert values["train.patch_size"] == (x, z)
    assert values["data.spacing"] == (0.5, 4.0, 1.0)


def test_pictures_are_mirrored_and_turned_on_all_axes():
    config = _complete("pictures_rgb")
    assert config.train.patch_size == tuple(
        _expected("pictures_rgb", "2d")["patch_size"]
    )
    assert config.augment.flip_axes == (0, 1)
    assert config.augment.rotation_degrees_2d == (-180.0, 180.0)
    assert config.data.intensity == ("rgb",) * 3
    assert config.data.spacing == "median"  # nothing is resampled without a spacing


def test_low_resolution_has_its_own_spacing():
    config = nnunet.get_config()
    config.data.dims = 3
    data = _data("isotropic_ct")
    config = fill_config(config, data, gib=8.0, resolution="3d_lowres")
    expected = _expected("isotropic_ct", "3d_lowres")
    assert config.data.spacing == tuple(expected["spacing"][::-1])
    assert config.loss[0][2] == {"batch_dice": False}


def test_the_memory_target_is_the_presets_or_what_the_device_has(capsys):
    config = _complete("tiny_volumes", gib=80.0, **{"model.plan": "resenc_l"})
    assert config.train.memory_gib == 24.0
    assert "24 (nnU-Net's target for 'resenc_l')" in capsys.readouterr().out
    assert _complete("tiny_volumes", gib=0.25).train.memory_gib == 0.25
    given = _complete("tiny_volumes", gib=32.0, **{"train.memory_gib": 32.0})
    assert given.train.memory_gib == 32.0


def test_a_residual_encoder_has_its_blocks():
    options = _complete("tiny_volumes", **{"model.plan": "resenc_m"}).model.options
    assert (options.block, options.decoder_block, options.stem) == (
        "residual_d",
        "plain",
        True,
    )
    assert options.convolutions_per_stage == (1, 3, 4, 6)
    assert options.decoder_convolutions == (1, 1, 1)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("train.batch_size", 3),
        ("data.intensity", "full_range"),
        ("model.options.norm", "batch"),
        ("loss", (("dice", 1.0, {"batch_dice": False}),)),
    ],
)
def test_what_a_user_gives_stays(key, value):
    config = _complete("tiny_volumes", **{key: value})
    section, _, name = key.rpartition(".")
    found = config.to_dict()
    for part in filter(None, section.split(".")):
        found = found[part]
    assert found[name] == value


def test_a_given_patch_gets_the_stages_that_suit_it():
    config = _complete("four_channels", **{"train.patch_size": (16, 16, 16)})
    assert config.model.options.features == (32, 64, 128)
    assert config.model.options.convolutions_per_stage == (2, 2, 2)


def test_a_resumed_run_keeps_its_plan():
    begun = _complete("tiny_volumes")
    assert _complete("tiny_volumes", recorded=begun.to_dict()).to_dict() == (
        begun.to_dict()
    )


def test_other_slices_than_the_plans_are_refused():
    with pytest.raises(InputError, match=r"data\.slice_axis: found 0, but .* axis 2"):
        _complete("tiny_volumes", **{"data.dims": 2, "data.slice_axis": 0})


@pytest.mark.parametrize(
    ("key", "value"), [("model.name", "unet_tiny"), ("data.source", "tfds")]
)
def test_a_planner_is_for_the_unet_of_a_folder(key, value):
    config = nnunet.get_config()
    config.update_from_flattened_dict({key: value})
    with pytest.raises(
        InputError, match=rf"{key}: found '{value}', expected '\w+' for"
    ):
        check_config(config)


def test_every_field_of_a_configuration_is_in_the_config():
    plan = plan_dataset(DatasetFingerprint(((1, 1, 1),), ((9, 9, 9),), ("a",), 2, 9))
    fields = {field.name for field in dataclasses.fields(plan.configurations["2d"])}
    planned = planned_values(plan, plan.configurations["2d"], image_axes=3)
    names = {key.rpartition(".")[2] for key in planned.values} | set(planned.options)
    renamed = {"name", "median_shape", "blocks", "decoder_blocks"}
    assert fields - renamed <= names


def test_names_of_channels_decide_how_each_is_normalised():
    data = _data("ragged")
    data.channel_names = tuple(GOLDEN["ragged"]["fingerprint"]["channel_names"])
    config = fill_config(nnunet.get_config(), data, gib=8.0)
    assert config.data.intensity == ("zscore_filled", "percentile", "none")
