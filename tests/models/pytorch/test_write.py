"""Files that torch.load reads."""

import numpy as np
import pytest

from unet_jax.models.pytorch.read import read_torch_file
from unet_jax.models.pytorch.write import write_torch_file


def test_what_is_written_is_read_again(tmp_path):
    array = np.arange(12, dtype=np.float32).reshape(3, 4)
    value = {
        "weights": {"a": array, "b": array, "c": array.T, "none": np.zeros((0, 2))},
        "half": np.ones(2, np.float16),
        "count": np.array(3),
        "plain": [None, True, False, -7, 0.25, "ä", (1, (2, "x")), []],
    }
    write_torch_file(tmp_path / "x.pth", value)
    found = read_torch_file(tmp_path / "x.pth")
    assert found["plain"] == value["plain"]
    for name, expected in value["weights"].items():
        assert found["weights"][name].dtype == expected.dtype
        np.testing.assert_array_equal(found["weights"][name], expected)
    assert found["count"] == 3
    assert found["half"].dtype == np.float16
    places = [found["weights"][name].__array_interface__["data"] for name in "ab"]
    assert places[0] == places[1]


@pytest.mark.parametrize("value", [object(), {1: 2}, np.array(["a"]), {1, 2}])
def test_other_values_are_refused(tmp_path, value):
    with pytest.raises(TypeError):
        write_torch_file(tmp_path / "x.pth", value)
    assert not (tmp_path / "x.pth").exists()
