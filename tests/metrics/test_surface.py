import math
import warnings

import numpy as np
import pytest
import surface_distance

from unet_jax.metrics import surface_elements
from unet_jax.metrics.surface import (
    hausdorff_95,
    normalized_surface_dice,
    surface_scores,
)
from unet_jax.metrics.surface_elements import surface_distances


def _box(shape, start, stop):
    mask = np.zeros(shape, bool)
    mask[tuple(slice(a, b) for a, b in zip(start, stop, strict=True))] = True
    return mask


def _blobs(shape, seed):
    from scipy import ndimage

    rng = np.random.default_rng(seed)
    return ndimage.gaussian_filter(rng.normal(size=shape), 1.2) > 0.1


@pytest.mark.parametrize("spacing", [(1.0, 1.0, 1.0), (0.5, 2.0, 3.0)])
def test_two_planes_at_a_known_distance(spacing):
    # One-voxel sheets across the whole image, 4 voxels apart along the first axis:
    # every element of one is 4 voxels from the other, but for the near faces at 3.
    label = _box((12, 6, 7), (3, 0, 0), (4, 6, 7))
    prediction = np.roll(label, 4, axis=0)
    # Elements lie on the corners between voxels: faces at 3, 4 and 7, 8.
    found = surface_distances(prediction=prediction, label=label, spacing=spacing)
    assert set(found.from_label) == {3 * spacing[0], 4 * spacing[0]}
    distance = hausdorff_95(prediction=prediction, label=label, spacing=spacing)
    assert distance == 4 * spacing[0]

    def dice(tolerance):
        return normalized_surface_dice(
            prediction=prediction, label=label, spacing=spacing, tolerance=tolerance
        )

    assert dice(2.9 * spacing[0]) == 0.0
    assert dice(3 * spacing[0]) == pytest.approx(0.5, abs=1e-12)
    assert dice(4 * spacing[0]) == 1.0


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_a_moved_cuboid_uses_the_spacing_of_its_axis(axis):
    spacing = (0.7, 1.5, 4.0)
    label = _box((14, 13, 12), (2, 2, 2), (8, 8, 8))
    prediction = np.roll(label, 3, axis=axis)
    distance = hausdorff_95(prediction=prediction, label=label, spacing=spacing)
    assert distance == pytest.approx(3 * spacing[axis], rel=1e-12)


def test_a_moved_square_in_closed_form():
    # A 4 x 4 square moved by 2 along the first axis, with unit spacing. Of its outline
    # (four corners of length sqrt(1/2), three straight elements of length 1 a side)
    # the far side (3 + 2 corners) is 2 away, and one element of each flank is 1 away;
    # the rest of the two flanks lies on the other outline, the near side 2 inside.
    label = _box((9, 9), (1, 2), (5, 6))
    prediction = np.roll(label, 2, axis=0)
    corner = math.sqrt(0.5)
    found = surface_distances(prediction=prediction, label=label, spacing=(1, 1))
    assert found.label_areas.sum() == pytest.approx(4 * corner + 12)
    lengths = {
        d: found.label_areas[found.from_label == d].sum() for d in (0.0, 1.0, 2.0)
    }
    # At 0: row 3, 4 of both flanks and the near side's corners; at 1: row 2 of both
    # flanks and the two near-side elements next to a flank; at 2: the far side and
    # the middle of the near side.
    assert lengths[0.0] == pytest.approx(4 + 2 * corner)
    assert lengths[1.0] == pytest.approx(2 + 2)
    assert lengths[2.0] == pytest.approx(3 + 2 * corner + 1)
    score = normalized_surface_dice(
        prediction=prediction, label=label, spacing=(1, 1), tolerance=0.5
    )
    assert score == pytest.approx((4 + 2 * corner) / (4 * corner + 12))


def test_hausdorff_weighs_area_not_voxels():
    # 2-D, pixels of 1 x 10 mm: a long side of the label along the coarse axis carries
    # most of the length though few elements lie on it.
    label = _box((20, 20), (2, 2), (6, 18))
    prediction = _box((20, 20), (2, 2), (8, 18))
    args = {"prediction": prediction, "label": label}
    found = surface_distances(**args, spacing=(1.0, 10.0))
    far = found.label_areas[found.from_label > 0].sum() / found.label_areas.sum()
    assert far > 0.4
    assert hausdorff_95(**args, spacing=(1.0, 10.0)) == 2.0


@pytest.mark.parametrize(
    ("shape", "spacing"),
    [((17, 23), (1.0, 1.0)), ((17, 23), (0.4, 1.3)), ((9, 14, 11), (0.9, 1.1, 3.0))],
)
@pytest.mark.parametrize("seed", [0, 1])
def test_a_tree_and_a_transform_find_the_same(shape, spacing, seed, monkeypatch):
    label = _blobs(shape, seed)
    noise = np.random.default_rng(seed).random(shape) < 0.02
    found = []
    for dense in (0.0, math.inf):
        monkeypatch.setattr(surface_elements, "_NEAR_PLACES", 1)
        monkeypatch.setattr(surface_elements, "_DENSE", dense)
        surface_elements._near_offsets.cache_clear()
        both = {"prediction": noise, "label": label, "spacing": spacing}
        found.append(surface_distances(**both))
    surface_elements._near_offsets.cache_clear()
    for name in ("from_label", "from_prediction"):
        first, second = (getattr(one, name) for one in found)
        assert first.max() > min(spacing)
        np.testing.assert_allclose(first, second, rtol=1e-12)


def test_what_is_everywhere_and_far_is_left_to_a_transform(monkeypatch):
    # Noise around a small box: nearly every place of it is far from the box.
    noise = np.random.default_rng(0).random((40, 40, 40)) < 0.01
    label = _box(noise.shape, (18, 18, 18), (21, 21, 21))
    both = {"prediction": noise, "label": label, "spacing": (1, 1, 1)}
    expected = surface_distances(**both)

    def refused(points, targets, sizes):
        assert len(points) < 1000, "a tree was asked for many points"
        return tree(points, targets, sizes)

    tree = surface_elements._nearest_by_tree
    monkeypatch.setattr(surface_elements, "_nearest_by_tree", refused)
    found = surface_distances(**both)
    np.testing.assert_array_equal(found.from_prediction, expected.from_prediction)
    monkeypatch.setattr(surface_elements, "_TRANSFORMED", 10)  # too large a box
    with pytest.raises(AssertionError, match="many points"):
        surface_distances(**both)


@pytest.mark.parametrize(
    ("shape", "spacing"),
    [((17, 23), (1.0, 1.0)), ((17, 23), (0.4, 1.3)), ((9, 14, 11), (0.9, 1.1, 3.0))],
)
@pytest.mark.parametrize("seed", [0, 1])
def test_equals_the_surface_distance_package(shape, spacing, seed):
    label, prediction = _blobs(shape, seed), _blobs(shape, seed + 10)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # its names are deprecated in SciPy
        found = surface_distance.compute_surface_distances(label, prediction, spacing)
        expected = surface_distance.compute_robust_hausdorff(found, 95)
        fractions = [
            surface_distance.compute_surface_dice_at_tolerance(found, tolerance)
            for tolerance in (0.3, 1.05, 2.45)
        ]
    args = {"prediction": prediction, "label": label, "spacing": spacing}
    assert hausdorff_95(**args) == expected
    for tolerance, fraction in zip((0.3, 1.05, 2.45), fractions, strict=True):
        score = normalized_surface_dice(**args, tolerance=tolerance)
        assert score == pytest.approx(fraction, rel=1e-12)


@pytest.mark.parametrize("shape", [(7, 9), (5, 7, 6)])
def test_equal_masks_also_at_the_border_of_the_image(shape):
    full = np.ones(shape, bool)
    scores = surface_scores(
        prediction=full, label=full, spacing=[2.0] * len(shape), tolerance=0.0
    )
    assert scores == (0.0, 0.0, 0.0, 1.0)


@pytest.mark.parametrize(
    ("shape", "spacing", "diagonal"),
    [((3, 4), (1.0, 1.0), 5.0), ((6, 3, 2), (0.5, 4.0, 2.0), 13.0)],
)
def test_a_missed_structure_costs_the_image_diagonal(shape, spacing, diagonal):
    some, none = np.zeros(shape, bool), np.zeros(shape, bool)
    some[(1,) * len(shape)] = True
    for prediction, label in ((some, none), (none, some)):
        scores = surface_scores(
            prediction=prediction, label=label, spacing=spacing, tolerance=100.0
        )
        assert scores[:3] == (pytest.approx(diagonal),) * 3
        assert scores.nsd == 0.0


def test_absent_from_both_is_nan():
    none = np.zeros((4, 5), bool)
    scores = surface_scores(prediction=none, label=none, spacing=(1, 1), tolerance=1.0)
    assert all(math.isnan(score) for score in scores)


def test_a_tolerance_is_not_missed_by_rounding():
    label = _box((12, 5), (2, 0), (5, 5))
    prediction = np.roll(label, 3, axis=0)
    assert 3 * 0.1 > 0.3
    score = normalized_surface_dice(
        prediction=prediction, label=label, spacing=(0.1, 0.1), tolerance=0.3
    )
    assert score == 1.0


@pytest.mark.parametrize("spacing", [(1.0,), (1.0, 0.0), (1.0, math.nan), (1.0, -2.0)])
def test_a_spacing_that_does_not_fit_is_refused(spacing):
    mask = np.ones((3, 3), bool)
    with pytest.raises(ValueError, match="expected 2 positive numbers"):
        hausdorff_95(prediction=mask, label=mask, spacing=spacing)


def test_other_ranks_and_tolerances_are_refused():
    line, mask = np.ones(3, bool), np.ones((3, 3), bool)
    with pytest.raises(ValueError, match="found a mask with 1 axes, expected 2 or 3"):
        hausdorff_95(prediction=line, label=line, spacing=(1.0,))
    with pytest.raises(ValueError, match="found tolerance=-1"):
        normalized_surface_dice(
            prediction=mask, label=mask, spacing=(1, 1), tolerance=-1.0
        )
    with pytest.raises(ValueError, match="found an empty mask"):
        surface_distances(prediction=mask, label=~mask, spacing=(1, 1))
