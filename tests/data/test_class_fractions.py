import numpy as np
import pytest

from unet_jax.data.case import IGNORE, Case
from unet_jax.data.class_fractions import class_fractions


class _Source:
    def __init__(self, count):
        self.count, self.read = count, []

    def __len__(self):
        return self.count

    def __getitem__(self, index):
        self.read.append(index)
        label = np.array([[0, 0, 1, IGNORE], [0, 1, IGNORE, IGNORE]])
        return Case(str(index), np.zeros((2, 4, 1)), label, None, "g")


def test_fractions_are_of_the_pixels_that_count():
    found = class_fractions(_Source(2), ("a", "b", "c"))
    assert found.cases == found.counted == 2
    assert found.fractions == pytest.approx({"a": 0.6, "b": 0.4, "c": 0.0})


def test_a_large_split_is_sampled_evenly():
    source = _Source(100)
    found = class_fractions(source, ("a", "b"), limit=5)
    assert (found.cases, found.counted) == (100, 5)
    assert source.read == [0, 24, 49, 74, 99]
