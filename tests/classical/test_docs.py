"""docs/classical.md names every method with what is fitted of it."""

import inspect
import pathlib
import re

import pytest

from unet_jax.classical import clustering, levels, thresholds
from unet_jax.classical.grids import BOUNDS, CUTS, GRIDS, grid_of
from unet_jax.classical.methods import METHODS

PAGE = pathlib.Path(__file__).parents[2] / "docs" / "classical.md"
ROWS = dict(re.findall(r"^\| `(\w+)` (\|.*)$", PAGE.read_text(), re.MULTILINE))


def test_the_page_has_a_row_for_each_method_in_the_order_of_the_table():
    assert tuple(ROWS) == METHODS


@pytest.mark.parametrize("name", METHODS)
def test_a_row_names_every_parameter(name):
    grid = grid_of(name, num_classes=3, channels=3)
    for key in [*grid, *([CUTS[name]] if name in CUTS else [])]:
        assert f"`{key}`" in ROWS[name], key
    assert ROWS[name].count("|") == 5


@pytest.mark.parametrize(
    "function",
    [
        levels.levels_of,
        levels.fit_levels,
        thresholds.make_leveled,
        clustering.with_position,
        clustering.make_kmeans_position,
    ],
)
def test_what_makes_a_method_names_its_source(function):
    assert "\nSource:\n" in inspect.getdoc(function)


@pytest.mark.parametrize("name", METHODS)
def test_committed_grids_lie_within_the_bounds_and_repeat_nothing(name):
    grid = grid_of(name, num_classes=2, channels=1)
    assert set(GRIDS[name]) <= set(grid_of(name, num_classes=2, channels=3))
    for key, values in grid.items():
        assert len(set(values)) == len(values) >= 1
        if key in BOUNDS:
            low, high, kind = BOUNDS[key]
            assert all(low <= value <= high for value in values)
            assert all(isinstance(value, kind) for value in values)
