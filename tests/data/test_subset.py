"""A subset of a source has the source's own methods, for its own indices."""

import pytest

from unet_jax.data.subset import Subset


class _Named(list):
    def where(self, index):
        return f"file {index}"

    def extent(self):
        return "of all cases"


def test_methods_of_the_source_get_the_index_of_the_source():
    subset = Subset(_Named("abc"), (2, 0))
    assert len(subset) == 2
    assert [subset[0], subset[1]] == ["c", "a"]
    assert subset.where(0) == "file 2"
    assert not hasattr(subset, "facts")  # the source has none
    assert not hasattr(subset, "extent")  # it would count all cases
    with pytest.raises(IndexError):
        subset[2]
