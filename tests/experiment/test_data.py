"""The data of a run are those that it began with."""

import numpy as np
import pytest

from tests.data.folder.folders import open_set, write_set
from unet_jax.configs import base
from unet_jax.data.case import Case
from unet_jax.data.preprocess import Preprocessing
from unet_jax.errors import InputError
from unet_jax.experiment.check import check_config
from unet_jax.experiment.data import check_same_spacing, fit_preprocessing


def _record(trained, wanted):
    return {
        "preprocessing": {"spacing": trained},
        "config": {"data": {"spacing": wanted}},
    }


def test_a_run_that_took_a_printing_resolution_for_a_pixel_size_is_refused(tmp_path):
    dataset = open_set(write_set(tmp_path / "set", count=4))
    with pytest.raises(InputError, match=r"pixels of \(0\.1, 0\.2\) mm, but the case"):
        check_same_spacing(tmp_path, _record([0.1, 0.2], "median"), dataset)
    check_same_spacing(tmp_path, _record(None, "median"), dataset)
    check_same_spacing(tmp_path, _record([0.1, 0.2], [0.1, 0.2]), dataset)
    known = open_set(tmp_path / "set", known_spacing=(0.1, 0.1))
    check_same_spacing(tmp_path, _record([0.1, 0.2], "median"), known)


def _adjacent(**changes):
    config = base.get_config()
    config.update_from_flattened_dict({"data.adjacent_slices": 2, **changes})
    return config


def _case(*shape):
    return Case("a", np.ones((*shape, 2)), np.ones(shape, int), None, "a")


def test_a_network_of_adjacent_slices_sees_their_channels():
    fitted = fit_preprocessing(_adjacent(), [_case(4, 4, 4)])
    assert (fitted.channels, fitted.input_channels) == (2, 10)
    values = fitted.to_dict()
    assert Preprocessing.from_dict(values) == fitted
    del values["adjacent_slices"]  # a run of an earlier version
    assert Preprocessing.from_dict(values).input_channels == 2


def _fit_pictures(config):
    fit_preprocessing(config, [_case(4, 4)])


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"train.patch_size": (8, 8, 8)}, "2 for a 3-D network, which sees the volume"),
        ({"data.dims": 3, "train.patch_size": None}, "2 for a 3-D network"),
        ({"augment.synthesis": True}, "2 with augment.synthesis=True, which draws"),
        ({}, "2 for pictures, expected 0; write --config.data.adjacent_slices=0"),
    ],
)
def test_adjacent_slices_of_what_has_none(changes, expected):
    config = base.get_config()
    with config.ignore_type():
        for key, value in {"data.adjacent_slices": 2, **changes}.items():
            section, _, name = key.partition(".")
            config[section][name] = value
    config.data.source = "folder"
    refuse = check_config if changes else _fit_pictures
    with pytest.raises(InputError, match=f"^data.adjacent_slices: found {expected}"):
        refuse(config)
