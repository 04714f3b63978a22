"""The data of a run are those that it began with."""

import pytest

from tests.data.folder.folders import open_set, write_set
from unet_jax.errors import InputError
from unet_jax.experiment.data import check_same_spacing


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
