import json

import numpy as np
import pytest
from matplotlib.path import Path as Outline
from scipy import ndimage

from unet_jax.data.files.contours import write_contours

NAMES = ("background", "a", "b")
COLORS = ((0, 0, 0), (255, 0, 0), (0, 255, 0))


def _features(tmp_path, labels, **options):
    path = tmp_path / "out.geojson"
    write_contours(path, labels, class_names=NAMES, class_colors=COLORS, **options)
    content = json.loads(path.read_text())
    assert content["type"] == "FeatureCollection"
    return content["features"]


def _rasterised(feature, shape):
    """Pixels whose centre is inside the outer ring and in no hole."""
    rows, columns = np.indices(shape)
    centres = np.stack([columns + 0.5, rows + 0.5], -1).reshape(-1, 2)
    outer, *holes = feature["geometry"]["coordinates"]
    inside = Outline(outer).contains_points(centres)
    for hole in holes:
        inside &= ~Outline(hole).contains_points(centres)
    return inside.reshape(shape)


def test_a_pixel_is_a_square(tmp_path):
    labels = np.zeros((4, 5), np.uint8)
    labels[2, 3] = 2
    (feature,) = _features(tmp_path, labels)
    assert feature["geometry"]["type"] == "Polygon"
    (ring,) = feature["geometry"]["coordinates"]
    assert ring[0] == ring[-1]
    assert {tuple(corner) for corner in ring} == {(3, 2), (4, 2), (4, 3), (3, 3)}
    assert len(ring) == 5
    assert feature["properties"]["classification"] == {
        "name": "b",
        "color": [0, 255, 0],
    }
    assert feature["properties"]["pixels"] == 1


@pytest.mark.parametrize("seed", range(4))
def test_outlines_give_the_label_map_back(tmp_path, seed):
    rng = np.random.default_rng(seed)
    # Smooth blobs with holes, then noise with many touches at corners.
    smooth = ndimage.gaussian_filter(rng.normal(size=(31, 26)), 2 * (seed % 2))
    labels = np.digitize(smooth, np.quantile(smooth, (0.4, 0.75))).astype(np.uint8)
    features = _features(tmp_path, labels)
    found = np.zeros(labels.shape, int)
    for feature in features:
        inside = _rasterised(feature, labels.shape)
        assert inside.sum() == feature["properties"]["pixels"]
        index = NAMES.index(feature["properties"]["classification"]["name"])
        assert not found[inside].any()
        found[inside] = index
    np.testing.assert_array_equal(found, labels)


def test_a_ring_keeps_its_hole_and_what_is_inside(tmp_path):
    labels = np.zeros((9, 9), np.uint8)
    labels[1:8, 1:8] = 1
    labels[3:6, 3:6] = 0
    labels[4, 4] = 2
    one, two = _features(tmp_path, labels)
    assert len(one["geometry"]["coordinates"]) == 2
    assert len(two["geometry"]["coordinates"]) == 1


@pytest.mark.parametrize("seed", range(4))
def test_no_ring_comes_to_a_corner_twice(tmp_path, seed):
    labels = np.random.default_rng(seed).integers(0, 2, (24, 20)).astype(np.uint8)
    labels[:3, :3] = [[0, 1, 1], [1, 0, 1], [1, 1, 1]]  # a hole that touches outside
    for feature in _features(tmp_path, labels):
        for ring in feature["geometry"]["coordinates"]:
            corners = [tuple(corner) for corner in ring[1:]]
            assert len(set(corners)) == len(corners)


def test_slices_of_a_volume_are_outlined_each(tmp_path):
    labels = np.zeros((5, 6, 3), np.uint8)
    labels[1:3, 2:4, 1:] = 1
    features = _features(tmp_path, labels, slice_axis=2)
    assert [f["properties"]["slice"] for f in features] == [1, 2]
    assert features[0]["geometry"]["plane"] == {"c": -1, "z": 1, "t": 0}
    assert _features(tmp_path, np.zeros((3, 3), np.uint8)) == []
