"""Objects are those of scikit-image, with the same measures."""

import numpy as np
import pytest
from scipy import ndimage
from skimage.measure import regionprops_table

from unet_jax.data.files import object_table
from unet_jax.data.files.label_table import write_csv
from unet_jax.data.files.object_table import COLUMNS, find_objects

NAMES = ("background", "cell", "nucleus")


def _blobs(shape, seed):
    noise = np.random.default_rng(seed).standard_normal(shape)
    smooth = ndimage.gaussian_filter(noise, 1.5)
    return np.digitize(smooth, np.quantile(smooth, [0.8, 0.95])).astype(np.uint8)


@pytest.mark.parametrize("shape", [(40, 50), (14, 16, 18)])
@pytest.mark.parametrize("spaced", [False, True])
def test_measures_equal_those_of_scikit_image(shape, spaced):
    labels = _blobs(shape, seed=len(shape))
    spacing = (0.5, 2.0, 3.0)[: len(shape)] if spaced else None
    found = find_objects(labels, spacing, file="a", class_names=NAMES)
    unit = spacing or (1.0,) * len(shape)
    names = [
        *("area", "bbox", "centroid", "equivalent_diameter_area"),
        *("axis_major_length", "axis_minor_length"),
        *(["eccentricity"] if len(shape) == 2 else []),
    ]
    for index, name in enumerate(NAMES[1:], start=1):
        components, count = ndimage.label(labels == index, np.ones((3,) * len(shape)))
        known = regionprops_table(components, properties=names, spacing=unit)
        rows = [row for row in found.rows if row["class"] == name]
        assert [row["object"] for row in rows] == list(range(1, count + 1))
        assert found.counts[name] == count > 3
        size = "pixels" if not spaced else ["area_mm2", "volume_mm3"][len(shape) - 2]
        columns = {
            size: known["area"],
            "equivalent_diameter": known["equivalent_diameter_area"],
            "major_axis": known["axis_major_length"],
            "minor_axis": known["axis_minor_length"],
        }
        if len(shape) == 2:
            columns["eccentricity"] = known["eccentricity"]
        for axis in range(len(shape)):
            columns[f"centroid_{axis}"] = known[f"centroid-{axis}"] / unit[axis]
            columns[f"box_start_{axis}"] = known[f"bbox-{axis}"]
            columns[f"box_stop_{axis}"] = known[f"bbox-{axis + len(shape)}"]
        for column, values in columns.items():
            measured = [row[column] for row in rows]
            np.testing.assert_allclose(measured, values, rtol=1e-6, atol=1e-6)


def test_an_object_at_the_edge_is_marked_and_a_single_pixel_is_round():
    labels = np.zeros((6, 7), np.uint8)
    labels[2, 3] = labels[5, 1] = 1
    first, last = find_objects(labels, None, file="a", class_names=NAMES).rows
    assert (first["touches_border"], last["touches_border"]) == ("no", "yes")
    assert first["unit"] == "px"
    assert first["eccentricity"] == first["major_axis"] == 0
    assert first["area_mm2"] == first["volume_mm3"] == first["centroid_2"] == ""


def test_regions_are_counted_instead_of_classes():
    labels = np.array([[1, 2, 0, 2]])
    regions = {"whole": (1, 2), "core": (2,)}
    found = find_objects(labels, None, file="a", class_names=NAMES, regions=regions)
    assert found.counts == {"whole": 2, "core": 2}
    assert [row["pixels"] for row in found.rows] == [2, 1, 1, 1]


def test_what_is_too_large_or_too_many_is_named(monkeypatch):
    labels = np.zeros((9, 9), np.uint8)
    labels[::2, ::2] = 1
    labels[1, 1] = 2
    monkeypatch.setattr(object_table, "MOST_OBJECTS", 3)
    labels[1:4, 1:4] = 0
    found = find_objects(labels, None, file="a", class_names=NAMES)
    assert found.rows == []
    assert found.counts == {"cell": 24, "nucleus": 0}
    assert found.left_out == {"cell": "24 objects, over 3"}
    monkeypatch.setattr(object_table, "MOST_PIXELS", 80)
    found = find_objects(labels, None, file="a", class_names=NAMES)
    assert found.counts["cell"] == ""
    assert found.left_out == {"cell": "its box has 81 pixels, over 80"}


def test_a_table_without_objects_has_its_columns(tmp_path):
    write_csv(tmp_path / "objects.csv", [], columns=COLUMNS)
    assert (tmp_path / "objects.csv").read_text() == ",".join(COLUMNS) + "\n"
