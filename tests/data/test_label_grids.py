import itertools

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
    print(ratio, shift, there, back)
    assert np.abs(shift).max() < 0.02
    assert there == pytest.approx(1, abs=0.01)
    assert back == pytest.approx(1, abs=0.01)


@pytest.mark.slow
def test_500_bodies_keep_place_and_volume():
    for ratio in RATIOS:
        rng = np.random.default_rng(0)
        shift, there, back = _measured(
            [_shape(rng, 3, ratio) for _ in range(100)], ratio
        )
        print(ratio, shift, there, back)
