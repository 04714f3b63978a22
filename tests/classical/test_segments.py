"""Edges, contours, regions and clusters against closed forms and scikit-image."""

import numpy as np
import pytest
from scipy import ndimage
from skimage import feature, filters
from skimage.feature import structure_tensor
from skimage.segmentation import flood

from unet_jax.classical.channels import scaled, sigmas, to_color_space
from unet_jax.classical.clustering import find_centers, nearest_center, with_position
from unet_jax.classical.discontinuity import discontinuity, structure_texture
from unet_jax.classical.edges import (
    canny_edges,
    contour_segments,
    edge_strength,
    fill_enclosed,
    gradient_basins,
    morphological_gradient,
    strong_edges,
)
from unet_jax.classical.methods import fit_method
from unet_jax.classical.prototypes import Features, fit_prototypes, local_std
from unet_jax.classical.quadtree import split_and_merge
from unet_jax.classical.regions import NONE, grow_regions
from unet_jax.classical.samples import Sample


def _ball(shape, radius, center=None):
    center = [(n - 1) / 2 for n in shape] if center is None else center
    grid = np.indices(shape)
    return sum((g - c) ** 2 for g, c in zip(grid, center, strict=True)) <= radius**2


# ---- edges ---------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(20, 24), (9, 12, 10)])
@pytest.mark.parametrize("operator", ["sobel", "prewitt"])
def test_gradients_are_those_of_scikit_image_and_the_strongest_channel_counts(
    shape, operator
):
    image = np.random.default_rng(0).uniform(0, 1, (*shape, 2)).astype(np.float32)
    expected = np.maximum(
        getattr(filters, operator)(image[..., 0]),
        getattr(filters, operator)(image[..., 1]),
    )
    found = edge_strength(image, operator=operator, sigma=0.0)
    np.testing.assert_allclose(found, expected, atol=1e-6)


@pytest.mark.parametrize(("shape", "radius"), [((41, 41), 12), ((31, 31, 31), 10)])
def test_the_laplacian_changes_its_sign_on_the_border_of_a_ball(shape, radius):
    image = _ball(shape, radius)[..., None].astype(np.float32)
    strength = edge_strength(image, operator="log", sigma=1.5)
    places = np.argwhere(strong_edges(strength, 0.2))
    far = np.sqrt(((places - (np.array(shape) - 1) / 2) ** 2).sum(axis=1))
    assert len(far) > 50
    assert far.min() > radius - 2
    assert far.max() < radius + 2


def test_canny_of_a_picture_is_that_of_scikit_image():
    image = _ball((40, 40), 11).astype(np.float32) * 100
    found = canny_edges(image[..., None], sigma=1.0, low=0.1, high=0.2)
    smooth = ndimage.gaussian_filter(image, 1.0)
    slope = np.hypot(ndimage.sobel(smooth, axis=0), ndimage.sobel(smooth, axis=1))
    full = np.percentile(slope[slope > 1e-5 * slope.max()], 99)
    expected = feature.canny(image, 1.0, 0.1 * full, 0.2 * full, mode="reflect")
    assert expected.any()
    np.testing.assert_array_equal(found, expected)


def test_canny_of_a_volume_is_a_thin_closed_shell():
    image = _ball((30, 30, 30), 9)[..., None].astype(np.float32)
    edges = canny_edges(image, sigma=1.0, low=0.1, high=0.3)
    places = np.argwhere(edges)
    far = np.sqrt(((places - 14.5) ** 2).sum(axis=1))
    assert np.abs(far - 9).max() < 1.5
    # A sphere of radius 9 has 4 pi 81 = 1018 unit squares.
    assert 700 < edges.sum() < 2200
    inside = fill_enclosed(edges.astype(int)).sum()
    assert inside == pytest.approx(_ball((30, 30, 30), 9).sum(), rel=0.25)


def test_a_square_in_a_volume_is_an_edge_in_every_direction_alike():
    image = np.zeros((12, 12, 12, 1), np.float32)
    image[4:8, 4:8, 4:8] = 1
    edges = canny_edges(image, sigma=0.7, low=0.2, high=0.4)
    for axes in ((1, 0, 2), (2, 1, 0), (0, 2, 1)):
        np.testing.assert_array_equal(edges, edges.transpose(axes))


def test_closed_contours_part_inside_from_outside_and_gaps_are_closed():
    edges = np.zeros((20, 20), bool)
    edges[5, 5:15] = edges[14, 5:15] = edges[5:15, 5] = edges[5:15, 14] = True
    strength = edges.astype(np.float32)
    segments = contour_segments(edges, strength, closing=0)
    assert segments.max() == 1
    assert segments[10, 10] != segments[0, 0]
    edges[5, 9] = False
    assert contour_segments(edges, strength, closing=0).max() == 0
    assert contour_segments(edges, strength, closing=2).max() == 1


def test_a_hole_takes_the_class_around_it():
    labels = np.zeros((9, 20), int)
    labels[2:7, 2:7], labels[2:7, 12:17] = 1, 2
    labels[4, 4] = labels[4, 14] = 0
    filled = fill_enclosed(labels)
    assert (filled[4, 4], filled[4, 14]) == (1, 2)
    assert (filled != labels).sum() == 2


def test_a_ring_is_filled_where_training_fills_it():
    def ring(center):
        disc = _ball((40, 40), 11, center)
        image = (disc & ~_ball((40, 40), 8, center)) * 200
        return Sample(image.astype(np.uint8)[..., None], disc.astype(int))

    for name in ("prewitt", "watershed"):
        fitted = fit_method(name, [ring((18, 20))], num_classes=2)
        assert fitted.chosen["fill"]
        new = ring((21, 19))
        assert (fitted.predict_fn(new.image, None) != new.label).mean() < 0.03


def test_the_watershed_meets_on_the_ridge_between_two_basins():
    image = np.abs(np.arange(21.0) - 10)[None].repeat(9, 0)
    basins = gradient_basins(10 - image.astype(np.float32), threshold=0.3)
    assert basins.max() == 1
    assert (basins[:, :10] == basins[0, 0]).all()
    assert (basins[:, 11:] == basins[0, 20]).all()


def test_the_morphological_gradient_of_a_step_is_its_height_on_both_sides():
    image = np.zeros((4, 6, 1), np.uint8)
    image[:, 3:] = 7
    strength = morphological_gradient(image, sigma=0.0)
    np.testing.assert_array_equal(strength, [[0, 0, 7, 7, 0, 0]] * 4)


# ---- colour and texture --------------------------------------------------------------


def test_a_change_of_colour_of_equal_brightness_is_a_discontinuity():
    image = np.full((10, 20, 3), 90, np.uint8)
    image[:, :10, 0] = image[:, 10:, 2] = 150
    grey = discontinuity(image, feature_name="intensity", sigma=0.5)
    color = discontinuity(image, feature_name="color", sigma=0.5)
    assert grey.max() < 1e-3
    assert color[:, 9:11].min() > 5
    assert color[:, :7].max() < 1e-2


def test_a_change_of_texture_alone_is_found_by_texture_alone():
    label = (np.arange(40) >= 20)[None].repeat(40, 0).astype(int)
    checks = 60 * ((np.indices((40, 40)) // 2).sum(axis=0) % 2) - 30
    image = (100 + checks * label)[..., None].astype(np.float32)
    sample = Sample(image, label)
    for name in ("std", "structure"):
        given = {"feature": name}
        fitted = fit_method("discontinuity", [sample], num_classes=2, parameters=given)
        assert fitted.chosen["texture"]
        assert fitted.chosen["training_dice"] > 0.9


@pytest.mark.parametrize("shape", [(9, 7), (8, 9, 7)])
def test_the_structure_tensor_is_scikit_images(shape):
    image = np.random.default_rng(0).random((*shape, 1)).astype(np.float32)
    axes = len(shape)
    elements = iter(structure_tensor(image[..., 0], sigma=1.5, mode="reflect"))
    tensor = np.zeros((*shape, axes, axes))
    for i in range(axes):
        for j in range(i, axes):
            tensor[..., i, j] = tensor[..., j, i] = next(elements)
    trace = np.trace(tensor, axis1=-2, axis2=-1)
    even = trace[..., None, None] / axes * np.eye(axes)
    anisotropy = np.linalg.norm(tensor - even, axis=(-2, -1))
    anisotropy *= np.sqrt(axes / (axes - 1)) / np.linalg.norm(tensor, axis=(-2, -1))
    energy, directed = np.moveaxis(structure_texture(image, sigma=1.5), -1, 0)
    np.testing.assert_allclose(energy, np.sqrt(trace), rtol=1e-5)
    np.testing.assert_allclose(directed, energy * anisotropy, rtol=1e-4)


@pytest.mark.parametrize("shape", [(9, 7, 1), (9, 1), (1, 9), (1, 7, 1)])
@pytest.mark.parametrize("channels", [1, 2, 3])
@pytest.mark.parametrize("name", ["intensity", "color", "std", "structure"])
def test_an_axis_may_have_one_pixel(name, channels, shape):
    image = np.random.default_rng(0).random((*shape, channels)).astype(np.float32)
    change = discontinuity(image, feature_name=name, sigma=0.3)
    assert change.shape == shape
    assert np.isfinite(change).all()


def test_structure_of_stripes_has_one_direction_and_of_corners_none():
    stripes = np.tile([0.0, 0, 1, 1], (24, 6)).astype(np.float32)[..., None]
    energy, directed = np.moveaxis(structure_texture(stripes, sigma=2.0), -1, 0)
    np.testing.assert_allclose(directed[8:16, 8:16], energy[8:16, 8:16], rtol=1e-3)
    checks = np.maximum(stripes, 0) * 0
    rows, columns = np.indices((24, 24)) // 2
    checks[..., 0] = (rows + columns) % 2
    energy, directed = np.moveaxis(structure_texture(checks, sigma=2.0), -1, 0)
    assert (directed[8:16, 8:16] < 0.1 * energy[8:16, 8:16]).all()


@pytest.mark.parametrize("axes", [2, 3])
@pytest.mark.parametrize("count", [1, 2, 4])
def test_the_largest_change_is_the_largest_singular_value_of_the_jacobian(axes, count):
    rng = np.random.default_rng(0)
    jacobian = rng.normal(size=(count, axes))
    grid = np.stack(np.indices((9,) * axes), axis=-1).astype(np.float32)
    from unet_jax.classical.discontinuity import _largest_change

    found = _largest_change((grid @ jacobian.T).astype(np.float32), 1.0, None)
    expected = np.linalg.svd(jacobian)[1][0]
    np.testing.assert_allclose(found[(4,) * axes], expected, rtol=1e-3)


def test_local_std_of_large_values_keeps_its_digits():
    values = 1e6 + np.tile([0.0, 2.0], (8, 4))
    middle = local_std(values[..., None].astype(np.float32), 4)[4, 4, 0]
    assert middle == pytest.approx(1.0, abs=1e-3)


def test_colour_spaces():
    red = np.array([[[255, 0, 0]]], np.uint8)
    np.testing.assert_allclose(
        to_color_space(red, "lab")[0, 0], (53.24, 80.09, 67.2), atol=0.1
    )
    np.testing.assert_allclose(to_color_space(red, "hsv")[0, 0], (1, 0, 1), atol=1e-6)
    np.testing.assert_array_equal(to_color_space(red, "rgb"), red)
    # Hues on both sides of red are neighbours.
    near = np.array([[[255, 0, 4]], [[255, 4, 0]]], np.uint8)
    one, two = to_color_space(near, "hsv")[:, 0]
    assert np.abs(one - two).max() < 0.05


def test_scales_and_widths():
    image = np.array([[[0.0], [2.0], [4.0]]])
    np.testing.assert_allclose(scaled(image, None, "image")[0, 1:, 0], [-1, 1])
    np.testing.assert_allclose(
        scaled(image, ((4.0, 2.0),), "image")[0, :, 0], [-2, -1, 0]
    )
    assert sigmas(2.0, (1.0, 1.0, 4.0), 3) == (2.0, 2.0, 0.5)


# ---- regions -------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(24, 30), (10, 12, 9)])
@pytest.mark.parametrize("tolerance", [10.0, 60.0])
def test_one_seed_grows_as_scikit_images_flood_does(shape, tolerance):
    image = np.random.default_rng(0).uniform(0, 255, shape).astype(np.float32)
    seeds = np.full(shape, NONE)
    place = tuple(n // 2 for n in shape)
    seeds[place] = 1
    grown = grow_regions(image[..., None], seeds, tolerance=tolerance)
    expected = flood(image, place, tolerance=tolerance)
    np.testing.assert_array_equal(grown == 1, expected)
    assert set(np.unique(grown)) <= {NONE, 1}


def test_a_decimal_that_lies_at_the_tolerance_is_within_it():
    image = np.array([[0.2, 0.3, 0.4, 0.1, 0.2]], np.float32)[..., None]
    seeds = np.array([[0, NONE, NONE, NONE, NONE]])
    grown = grow_regions(image, seeds, tolerance=0.1)
    np.testing.assert_array_equal(grown, [[0, 0, NONE, NONE, NONE]])
    assert grow_regions(image, seeds, tolerance=0.0999)[0, 1] == NONE


def test_regions_meet_where_the_nearer_mean_changes():
    image = np.arange(0, 100, 10.0)[None, :, None]
    seeds = np.full((1, 10), NONE)
    seeds[0, 0], seeds[0, 9] = 0, 1
    grown = grow_regions(image, seeds, tolerance=1000.0)
    np.testing.assert_array_equal(grown[0], [0] * 5 + [1] * 5)


@pytest.mark.parametrize("axes", [2, 3])
@pytest.mark.parametrize("size", [16, 13])
def test_split_and_merge_finds_boxes_that_no_block_fits(axes, size):
    label = np.zeros((size,) * axes, int)
    label[(slice(3, 8),) * axes] = 1
    label[(slice(9, 12),) * axes] = 2
    image = np.array([10.0, 80.0, 200.0])[label][..., None]
    regions = split_and_merge(image, split=1.0, merge=1.0)
    assert regions.max() == 2
    assert len(np.unique(regions * 3 + label)) == 3


def test_blocks_split_to_the_smallest_size_and_unlike_neighbours_stay_apart():
    image = np.zeros((8, 8, 1))
    image[0, 0] = 100.0
    whole = split_and_merge(image, split=1.0, merge=-1.0)
    # The corner's quadrant, its quadrant, and its four pixels; the rest is whole.
    assert whole.max() + 1 == 3 + 3 + 4
    coarse = split_and_merge(image, split=1.0, merge=-1.0, min_size=4)
    assert coarse.max() + 1 == 4
    assert split_and_merge(image, split=1.0, merge=1.0).max() + 1 == 2


def test_a_small_bright_region_does_not_drown_in_a_large_one():
    image = np.zeros((64, 64, 1))
    image[30:32, 30:32] = 20.0
    regions = split_and_merge(image, split=0.5, merge=5.0)
    assert (regions[30:32, 30:32] != regions[0, 0]).all()
    assert regions.max() == 1


def test_noise_merges_into_its_two_means():
    rng = np.random.default_rng(0)
    label = _ball((64, 64), 18).astype(int)
    image = (100.0 * label + rng.normal(0, 3, label.shape))[..., None]
    regions = split_and_merge(image, split=6.0, merge=30.0)
    assert regions.max() == 1
    assert len(np.unique(regions * 2 + label)) == 2


# ---- clusters ------------------------------------------------------------------------


def test_centers_of_parted_groups_are_their_means():
    rng = np.random.default_rng(0)
    groups = [rng.normal(m, 0.1, (200, 2)) for m in ((0, 0), (5, 1), (9, 9))]
    centers = find_centers(np.concatenate(groups), k=3, seed=0)
    np.testing.assert_allclose(centers, [g.mean(axis=0) for g in groups], atol=1e-6)


@pytest.mark.parametrize("features", [1, 3])
def test_fewer_different_pixels_than_clusters_is_no_problem(features):
    rows = np.ones((50, features), np.float32)
    assert find_centers(rows, k=4, seed=0).shape == (1, features)


def test_each_row_goes_to_its_nearest_center():
    rng = np.random.default_rng(0)
    rows, centers = rng.normal(size=(500, 3)), rng.normal(size=(7, 3))
    expected = np.linalg.norm(rows[:, None] - centers, axis=-1).argmin(axis=1)
    np.testing.assert_array_equal(nearest_center(rows, centers), expected)


def test_position_parts_what_looks_alike():
    values = np.zeros((4, 11, 1), np.float32)
    rows = with_position(values, 5.0)
    assert rows.shape == (4, 11, 3)
    np.testing.assert_allclose(rows[3, 10], (0, 1.5, 5))
    centers = find_centers(rows.reshape(-1, 3), k=2, seed=0)
    clusters = nearest_center(rows.reshape(-1, 3), centers).reshape(4, 11)
    assert len(np.unique(clusters[:, :5])) == len(np.unique(clusters[:, 6:])) == 1


# ---- names ---------------------------------------------------------------------------


def test_segments_are_named_by_the_nearest_prototype():
    image = np.array([[[0.0], [0], [10], [10], [30], [30]]])
    label = np.array([[0, 0, 2, 2, 1, -1]])
    prototypes = fit_prototypes([Sample(image, label)], Features(), num_classes=4)
    np.testing.assert_array_equal(prototypes.means[:3, 0], [0, 30, 10])
    assert np.isinf(prototypes.means[3]).all()
    other = np.array([[[2.0], [4], [9], [24], [26], [90]]])
    segments = np.array([[0, 0, 1, 2, 2, 3]])
    named = prototypes.name(segments, other, None)
    np.testing.assert_array_equal(named, [[0, 0, 2, 1, 1, 1]])
