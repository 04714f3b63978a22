"""Tests filled polygons, against scikit-image."""

import numpy as np
import skimage.draw

from unet_jax.data.files.polygons import fill_polygons

SHAPE = (12, 15)
SQUARE = np.array([[1.5, 1.5], [1.5, 9.5], [9.5, 9.5], [9.5, 1.5]])


def test_a_polygon_has_the_pixels_whose_centre_it_holds():
    angles = np.sort(np.random.default_rng(0).uniform(0, 2 * np.pi, 40))
    sizes = np.random.default_rng(1).uniform(2, 7, 40)  # parts lie outside
    corners = 5 + sizes[:, None] * np.stack([np.sin(angles), np.cos(angles)], axis=1)
    expected = skimage.draw.polygon2mask(SHAPE, corners)
    np.testing.assert_array_equal(fill_polygons([corners], SHAPE), expected)
    np.testing.assert_array_equal(fill_polygons([corners[::-1]], SHAPE), expected)


def test_a_polygon_in_another_is_a_hole_and_one_in_the_hole_is_none():
    rings = [SQUARE, 5.5 + (SQUARE - 5.5) / 2, 5.5 + (SQUARE - 5.5) / 6]
    found = fill_polygons(rings, SHAPE)
    expected = np.zeros(SHAPE, bool)
    expected[2:10, 2:10], expected[4:8, 4:8] = True, False
    expected[5:7, 5:7] = True
    np.testing.assert_array_equal(found, expected)


def test_a_keyhole_is_a_hole():
    hole = (5.5 + (SQUARE - 5.5) / 2)[::-1]
    keyhole = np.concatenate([SQUARE, SQUARE[:1], hole[-1:], hole])
    np.testing.assert_array_equal(
        fill_polygons([keyhole], SHAPE), fill_polygons([SQUARE, hole], SHAPE)
    )


def test_an_edge_between_two_polygons_belongs_to_one_of_them():
    left, right = SQUARE * [1, 0.5], SQUARE * [1, 0.5] + [0, 4]  # they touch at 4.75
    left[left[:, 1] > 2, 1] = right[right[:, 1] < 6, 1] = 5.0  # on centres of pixels
    both = [fill_polygons([one], SHAPE) for one in (left, right)]
    assert not (both[0] & both[1]).any()
    assert (both[0] | both[1]).sum() == 8 * 8
