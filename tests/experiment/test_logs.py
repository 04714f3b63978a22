"""Tests of what the start of a run says of its data."""

import pytest

from unet_jax.experiment.logs import thin_slab


def test_a_slab_thinner_than_half_a_window_is_named() -> None:
    text = thin_slab("test", (2, 8), (48, 48, 32))
    assert text is not None
    assert "test: a slab of 8 planes" in text
    assert "a window of 32" in text


@pytest.mark.parametrize(
    ("slab", "patch"),
    [(None, (48, 48, 32)), ((2, 17), (48, 48, 32)), ((0, 8), (48, 48))],
)
def test_whole_cases_thick_slabs_and_slices_are_not(
    slab: tuple[int, int] | None, patch: tuple[int, ...]
) -> None:
    assert thin_slab("test", slab, patch) is None
