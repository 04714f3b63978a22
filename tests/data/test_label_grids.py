import numpy as np
import pytest

from unet_jax.data.grids import Inverse, apply_label
from unet_jax.data.label_grids import resample_labels
from unet_jax.labels import IGNORE

RATIOS = [(2, 1), (4, 1), (4, 3), (3, 2), (1, 2)]
"""Length of a new pixel over that of an old one."""


def _shape(rng, ndim, ratio):
    """Draw a ball or a box, turned or not, of 1.5 to 20 pixels of the coarser grid."""
    new, old = ratio
    size = rng.uniform(1.5, 20) * max(1, new / old)
    kind = rng.integers(3)
    edge = new * -(-int(size * (1 if kind < 2 else ndim**0.5) + 4 * new) // new)
    middle = edge / 2 + rng.uniform(-new, new, ndim)
    axes = [
        (np.arange(edge, dtype=np.float32) + 0.5 - start).reshape(
            [-1 if axis == other else 1 for other in range(ndim)]
        )
        for axis, start in enumerate(middle.astype(np.float32))
    ]
    if kind == 0:
        return sum(axis**2 for axis in axes) <= np.float32(size / 2) ** 2
    turn = np.eye(ndim)
    if kind == 2:
        turn = np.linalg.qr(rng.normal(size=(ndim, ndim)))[0]
    inside = np.ones((edge,) * ndim, bool)
    for row in turn.astype(np.float32):
        along = sum(part * axis for part, axis in zip(row, axes, strict=True) if part)
        inside &= np.abs(along) <= size / 2
    return inside


def _centroid(mask):
    sums = [mask.sum(tuple(o for o in range(mask.ndim) if o != axis))
            for axis in range(mask.ndim)]  # fmt: skip
    return np.array([np.average(np.arange(len(s)) + 0.5, weights=s) for s in sums])


def _measured(shapes, ratio):
    """Return the mean centroid shift, and areas there and back over the true area."""
    pixel = ratio[0] / ratio[1]
    shifts, areas = [], np.zeros(3)
    for mask in shapes:
        grid = tuple(size * ratio[1] // ratio[0] for size in mask.shape)
        label = mask.astype(np.uint8)
        there = resample_labels(label, grid)
        # Whichever number a class has: the pixels are the same.
        np.testing.assert_array_equal(resample_labels(1 - label, grid), 1 - there)
        back = resample_labels(there, mask.shape)
        areas += mask.sum(), there.sum() * pixel**mask.ndim, back.sum()
        shifts.append((_centroid(there) * pixel - _centroid(mask)) / max(1, pixel))
    return np.mean(shifts, axis=0), areas[1] / areas[0], areas[2] / areas[0]


@pytest.mark.parametrize("ratio", RATIOS)
def test_500_shapes_keep_place_and_area(ratio):
    rng = np.random.default_rng(0)
    shift, there, back = _measured([_shape(rng, 2, ratio) for _ in range(500)], ratio)
    assert np.abs(shift).max() < 0.02
    assert there == pytest.approx(1, abs=0.01)
    assert back == pytest.approx(1, abs=0.01)


@pytest.mark.slow
def test_500_bodies_keep_place_and_volume():
    shifts, areas = [], []
    for ratio in RATIOS:
        rng = np.random.default_rng(0)
        shift, *both = _measured([_shape(rng, 3, ratio) for _ in range(100)], ratio)
        shifts.append(shift)
        areas.append(both)
    assert np.abs(np.mean(shifts, axis=0)).max() < 0.02
    np.testing.assert_allclose(areas, 1, atol=0.01)


@pytest.mark.parametrize("ratio", [(2, 1), (4, 3), (3, 2)])
@pytest.mark.parametrize("axis", [0, 1])
def test_a_line_of_one_pixel_is_not_lost_more_often_than_widened(ratio, axis):
    new, old = ratio
    kept, size = [], 48
    for place in range(size):
        label = np.zeros((size, size), np.int8)
        label[(slice(None),) * axis + (place,)] = 3
        there = resample_labels(label, (size * old // new,) * 2) == 3
        kept.append(there.any(axis=axis).mean())
    # Each pixel of a line that is kept is as wide as a new pixel, new / old.
    assert np.mean(kept) * new / old == pytest.approx(1, abs=1e-9)


def test_the_images_that_are_halved_keep_their_centroids():
    # Objects of 2.5 to 6 pixels, at half the size: half a pixel off by the nearest one.
    rng, shifts = np.random.default_rng(1), []
    for _ in range(200):
        middle, radius = rng.uniform(20, 76, 2), rng.uniform(1.25, 3)
        far = [np.arange(96) + 0.5 - start for start in middle]
        mask = far[0][:, None] ** 2 + far[1] ** 2 <= radius**2
        inverse = Inverse((96, 96), ((0, 96), (0, 96)), (48, 48))
        there = apply_label(mask.astype(np.int8), inverse)
        if there.any():
            shifts.append(2 * _centroid(there) - _centroid(mask))
    assert np.abs(np.mean(shifts, axis=0)).max() < 0.08


@pytest.mark.parametrize("axes", [(0,), (1,), (0, 1)])
def test_no_side_and_no_class_is_preferred(axes):
    rng = np.random.default_rng(2)
    label = rng.integers(0, 2, (256, 256)).astype(np.int8)
    there = resample_labels(label, (128, 128))
    mirrored = np.flip(resample_labels(np.flip(label, axes), (128, 128)), axes)
    blocks = label.reshape(128, 2, 128, 2).sum(axis=(1, 3))
    tied = blocks == 2
    np.testing.assert_array_equal(there[~tied], blocks[~tied] > 2)
    np.testing.assert_array_equal(there[~tied], mirrored[~tied])
    assert there[tied].mean() == pytest.approx(0.5, abs=0.02)
    swapped = np.array([5, 3], np.int8)[label]
    np.testing.assert_array_equal(
        resample_labels(swapped, (128, 128)), np.array([5, 3])[there]
    )


@pytest.mark.parametrize(
    ("block", "expected"),
    [
        ([[IGNORE, IGNORE], [IGNORE, 1]], {IGNORE}),
        ([[IGNORE, 1], [1, 1]], {1}),
        ([[IGNORE, IGNORE], [1, 1]], {1}),
        ([[IGNORE, IGNORE], [1, 2]], {1, 2}),
        ([[IGNORE, 1], [2, 2]], {2}),
        ([[IGNORE, IGNORE], [IGNORE, IGNORE]], {IGNORE}),
        ([[0, 1], [2, 3]], {0, 1, 2, 3}),
    ],
)
def test_ignore_wins_only_with_the_majority(block, expected):
    label = np.tile(np.array(block, np.int16), (4, 4))
    assert set(np.unique(resample_labels(label, (4, 4)))) <= expected


@pytest.mark.parametrize("old", [(5, 7), (6, 9), (1, 2), (4, 3, 5)])
@pytest.mark.parametrize("new", [(9, 13, 2), (3, 4, 6), (1, 1, 1)])
def test_the_largest_area_wins(old, new):
    new = new[: len(old)]
    label = np.random.default_rng(5).integers(-1, 3, old).astype(np.int8)
    found = resample_labels(label, new)
    assert found.shape == new
    assert found.dtype == label.dtype
    # Old pixels are cut into parts, so that every new one holds whole parts.
    fine = label
    for axis, count in enumerate(new):
        fine = fine.repeat(count, axis)
    for place in np.ndindex(*new):
        part = fine[tuple(slice(i * n, (i + 1) * n)
                          for i, n in zip(place, old, strict=True))]  # fmt: skip
        areas = {value: (part == value).sum() for value in (IGNORE, 0, 1, 2)}
        if 2 * areas.pop(IGNORE) > part.size:
            assert found[place] == IGNORE
        else:
            assert areas[found[place]] == max(areas.values())


def test_unsigned_labels_are_accepted():
    label = np.zeros((6, 6), np.uint8)
    label[:, 3:] = 255
    assert resample_labels(label, (3, 2)).tolist() == [[0, 255]] * 3


def test_scores_of_a_coarse_label_come_back_where_they_were():
    # There as a label, back as a network's scores are.
    rng, areas, shifts = np.random.default_rng(3), np.zeros(2), []
    for _ in range(60):
        mask = _shape(rng, 2, (2, 1))
        grid = tuple(size // 2 for size in mask.shape)
        inverse = Inverse(mask.shape, tuple((0, size) for size in mask.shape), grid)
        scores = np.eye(2, dtype=np.float32)[apply_label(mask.astype(np.int8), inverse)]
        planes = inverse.planes(iter([(0, scores)]), axis=0, num_classes=2)
        back = np.stack([plane.argmax(axis=-1) for plane in planes])
        areas += mask.sum(), back.sum()
        shifts.append((_centroid(back) - _centroid(mask)) / 2)
    assert np.abs(np.mean(shifts, axis=0)).max() < 0.02
    assert areas[1] / areas[0] == pytest.approx(1, abs=0.02)
