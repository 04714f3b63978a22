"""Tests which values the data fill in, and which a user or an earlier start keeps."""

import dataclasses
from types import SimpleNamespace
from typing import Any

import pytest

from unet_jax.configs import brain_slab, folder
from unet_jax.errors import InputError
from unet_jax.experiment.check import check_config
from unet_jax.experiment.complete import complete_config
from unet_jax.experiment.memory_class import CPU_GIB, MemoryChoice, choose_memory
from unet_jax.experiment.network import create_network
from unet_jax.experiment.record import flat_config

WITHOUT_PADDING = {"model.options.padding": "VALID", "model.options.norm": "none"}
FEATURES = "model.options.features"


@dataclasses.dataclass
class _Data:
    traits: tuple[Any, ...]
    class_names: tuple[str, ...] = ("background", "cell")
    label_map: tuple[Any, ...] = ((0, 0), (255, 1))
    notes: tuple[str, ...] = ("images in images/",)
    intensity: str | None = None


def _data(
    shape=(300, 300), spacing=None, channels=1, dtype="uint8", nonzero_fraction=1.0
):
    case = SimpleNamespace(
        shape=shape,
        spacing=spacing,
        channels=channels,
        dtype=dtype,
        lowest=0.0,
        nonzero_fraction=nonzero_fraction,
    )
    return _Data((case,) * 4)


def _complete(data=None, recorded=None, **changes):
    config = folder.get_config()
    config.update_from_flattened_dict(changes)
    return complete_config(config.lock(), data or _data(), recorded=recorded)


def test_a_record_that_is_older_than_a_key_is_complete():
    config = brain_slab.get_config()
    del config.data["zero_outside"]  # version 0.1
    check_config(config, complete=True)
    config.data.slice_axis = None
    with pytest.raises(InputError, match=r"data\.slice_axis: found None"):
        check_config(config, complete=True)


def test_all_that_is_left_is_filled_in_and_said(capsys):
    config = _complete()
    check_config(config, complete=True)
    assert config.data.label_map == ((0, 0), (255, 1))
    assert config.data.class_colors[0] == (0, 0, 0)
    assert config.model.options.norm == "batch"
    assert config.model.options.deep_supervision == 2
    printed = capsys.readouterr().out
    assert "images in images/" in printed
    assert "4 cases, median size 300 x 300, no known spacing, 1 channel" in printed
    assert "background, cell" in printed


@pytest.mark.parametrize(("nonzero", "said"), [(0.6, True), (0.9, False)])
def test_a_large_empty_part_stays_zero_and_is_said(capsys, nonzero, said):
    config = _complete(_data(nonzero_fraction=nonzero))
    assert config.data.zero_outside is said
    told = "intensity 'zscore' of what is imaged: 40% of an image is empty and stays"
    assert (told in capsys.readouterr().out) is said


def test_a_normalisation_that_the_set_states_is_taken():
    data = _data()
    data.intensity = "percentile"
    assert _complete(data=data).data.intensity == "percentile"


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("augment.flip_axes", ()),
        ("data.label_map", ((0, 0), (7, 1))),
        ("data.class_names", ("back", "front")),
        ("data.intensity", "full_range"),
        ("data.slice_axis", 1),
        ("train.batch_size", 3),
        ("train.patch_size", (64, 32)),
        ("model.options.norm", "instance"),
        ("model.options.features", (4, 8)),
        ("model.options.deep_supervision", 1),
    ],
)
def test_what_a_user_gives_stays(key, value):
    config = _complete(**{key: value})
    assert flat_config(config.to_dict())[key] == value


def test_a_run_that_goes_on_keeps_what_it_chose():
    recorded = _complete().to_dict()
    recorded["train"] |= {"batch_size": 12, "patch_size": (96, 96)}
    config = _complete(recorded=recorded)
    assert config.train.batch_size == 12
    assert config.train.patch_size == (96, 96)


def test_a_run_goes_on_unchanged_on_a_machine_of_another_class(capsys):
    data = _data(shape=(90, 100, 80))
    gpu = MemoryChoice(32.0, "class of this gpu")
    config = folder.get_config().lock()
    begun = complete_config(config, data, tpu_chips=1, memory=gpu)
    assert (begun.train.memory_gib, len(begun.train.patch_size)) == (32.0, 3)
    assert "memory      train.memory_gib=32 (class of this gpu)" in (
        capsys.readouterr().out
    )
    assert _complete(data=data).train.memory_gib == CPU_GIB
    record = {"config": begun.to_dict(), "memory_source": gpu.source}
    memory = choose_memory(config, recorded=record)
    resumed = complete_config(config, data, recorded=begun.to_dict(), memory=memory)
    assert resumed.to_dict() == begun.to_dict()
    assert "(recorded in the workdir: class of this gpu)" in capsys.readouterr().out


def test_other_sources_take_the_memory_of_their_workdir():
    config = brain_slab.get_config()
    memory = MemoryChoice(0.25, "set by an earlier version", recorded=True)
    assert complete_config(config, None, memory=memory).train.memory_gib == 0.25


def test_options_of_a_run_stay_and_none_are_the_networks():
    recorded = _complete().to_dict()
    recorded["model"]["options"]["features"] = (4, 8, 16)
    config = _complete(recorded=recorded, **{"model.options.norm": None})
    assert config.model.options.features == (4, 8, 16)
    assert config.model.options.norm == "batch"


@pytest.mark.parametrize("name", ["unet_2015", "residual_encoder"])
def test_presets_keep_their_own_network(name):
    assert _complete(**{"model.name": name}).model.options.to_dict() == {}


def test_no_deep_supervision_without_padding():
    config = _complete(**WITHOUT_PADDING)
    assert config.model.options.deep_supervision == 0


@pytest.mark.parametrize(
    ("changes", "stages", "patch"),
    [
        ({}, None, None),
        ({"train.patch_size": (92, 92)}, 3, (92, 92)),
        ({"train.patch_size": (92, 92), FEATURES: (4, 8)}, 2, (92, 92)),
        ({FEATURES: (4, 8, 16, 32, 64), "train.max_patch": 64}, 5, (204, 204)),
        ({"model.name": "unet_2015", "train.max_patch": 64}, None, (204, 204)),
    ],
)
def test_what_is_chosen_fits_a_network_without_padding(changes, stages, patch):
    config = _complete(**{**WITHOUT_PADDING, **changes})
    network = create_network(config, axis_name=None)
    size = config.train.patch_size
    sizes = network.network.sizes(2)
    left = sizes.output_size(size)
    assert min(left) >= max(sizes.total_stride)
    if patch is not None:
        assert size == patch
    else:
        assert min(left) >= min(size) / 2
        assert max(size) <= 256
    if stages is not None:
        assert len(config.model.options.features) == stages


def test_other_sources_are_left_alone():
    config = brain_slab.get_config()
    completed = complete_config(config, None)
    config.data.folds = 5  # what a record of a version before 'as many as fit' has
    assert completed.to_dict() == config.to_dict()
    config.data.folds = None
    resumed = complete_config(config, None, recorded={"data": {"folds": 3}})
    assert resumed.data.folds == 3


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("eval.metrics", ("dice", "dize"), "eval.metrics: unknown metric 'dize'; exp"),
        ("eval.metrics", ("dice", 3), "eval.metrics: found 3, expected names"),
        ("eval.metrics", ("hd95", "hd95"), "eval.metrics: found 'hd95' twice"),
        ("eval.surface", "skin", "eval.surface: found 'skin', expected one of 'area'"),
    ],
)
def test_metrics_and_surfaces_that_there_are_not(key, value, message):
    config = brain_slab.get_config()
    config.update_from_flattened_dict({key: value})
    with pytest.raises(InputError, match=message):
        check_config(config)


def test_losses_and_other_betas_are_metrics():
    config = brain_slab.get_config()
    config.eval.metrics = ("f0.5", "loss/focal", "brier")
    check_config(config)
