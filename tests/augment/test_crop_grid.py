"""Thin volumes: pixels stay in their plane, and a larger crop has what is turned in."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.augment.conftest import draw
from unet_jax.augment import coordinates
from unet_jax.augment.crop_grid import CropGrid, reach
from unet_jax.augment.policy import augment, source_size
from unet_jax.augment.spatial import Elastic, Rotation, Scaling

KEY = jax.random.key(3)
OFF = {
    f"{name}_probability": 0.0
    for name in ("flip", "noise", "blur", "brightness", "contrast", "low_resolution",
                 "gamma", "gamma_inverted", "rotation", "scaling", "elastic")
}  # fmt: skip


@pytest.mark.parametrize(
    ("shape", "thin"),
    [
        ((48, 48, 8), 2),
        ((6, 40, 30), 0),
        ((48, 48, 16), None),  # a third of the others: as nnU-Net
        ((64, 64, 64), None),
        ((90, 20, 20), None),  # a rod has no plane
        ((200, 8), None),
    ],
)
def test_an_axis_with_less_than_a_third_of_the_pixels_is_thin(shape, thin):
    assert CropGrid(shape).thin_axis == thin


@pytest.mark.parametrize(
    "augmentation",
    [
        Rotation(probability=1.0, degrees_3d=(20.0, 30.0)),
        Scaling(probability=1.0, factor=(1.2, 1.4)),
    ],
)
def test_nothing_moves_along_a_thin_axis(augmentation):
    grid = CropGrid((6, 40, 30))
    matrix = np.asarray(
        augmentation.matrix(draw(KEY, augmentation, (6, 40, 30, 1)), grid)
    )
    np.testing.assert_array_equal(matrix[0], [1, 0, 0])
    np.testing.assert_array_equal(matrix[:, 0], [1, 0, 0])
    assert np.abs(matrix[1:, 1:] - np.eye(2)).max() > 0.1


def test_a_thin_volume_is_deformed_in_its_plane():
    elastic = Elastic(probability=1.0, magnitude=(0.2, 0.2))
    points = elastic.points(draw(KEY, elastic, (40, 30, 6, 1)), CropGrid((40, 30, 6)))
    assert not np.any(points[2])
    assert np.all(np.abs(points[:2]).max(axis=(1, 2, 3)) > 1)


@pytest.mark.parametrize(
    ("shape", "spacing"),
    [((20, 30), (0.5, 2.0)), ((20, 20, 16), (1.0, 3.0, 2.0)), ((40, 30, 6), (1, 2, 5))],
)
def test_a_turn_keeps_lengths_in_millimetres(shape, spacing):
    rotation = Rotation(
        probability=1.0, degrees_2d=(35.0, 35.0), degrees_3d=(25.0, 25.0)
    )
    matrix = rotation.matrix(
        draw(KEY, rotation, (*shape, 1)), CropGrid(shape, tuple(map(float, spacing)))
    )
    unit = np.diag(np.array(spacing, float))
    turn = unit @ np.asarray(matrix, float) @ np.linalg.inv(unit)
    np.testing.assert_allclose(turn @ turn.T, np.eye(len(shape)), atol=1e-6)
    assert np.abs(turn - np.eye(len(shape))).max() > 0.1


def _places(grid, key, factor=(0.7, 1.4)):
    """Return where the pixels of a crop read, from the centre of the crop."""
    used = (
        Rotation(probability=1.0), Scaling(probability=1.0, factor=factor),
        Elastic(probability=1.0),
    )  # fmt: skip
    shape, matrix = grid.shape, None
    for index, one in enumerate(used[:2]):
        drawn = draw(jax.random.fold_in(key, index), one, (*shape, 1))
        matrix = coordinates.then(matrix, one.matrix(drawn, grid))
    elastic = used[2]
    moved = coordinates.displacement(
        elastic.points(draw(key, elastic, (*shape, 1)), grid),
        shape=shape, spacing=elastic.spacing,
    )  # fmt: skip
    read = coordinates.places(matrix, moved, shape=shape, dtype=jnp.float32)
    return [
        np.asarray(place) - (size - 1) / 2
        for place, size in zip(read, shape, strict=True)
    ]


def test_a_thin_crop_is_not_moved_out_of_its_source():
    # The case of configs/bone.py, and one with another spacing.
    for grid in (CropGrid((48, 48, 8)), CropGrid((6, 40, 24), (5.0, 1.0, 2.0))):
        source = source_size({}, patch_size=grid.shape, spacing=grid.spacing)
        assert source[grid.thin_axis] == grid.shape[grid.thin_axis]
        inside = outside = 0
        for index in range(10):
            read = _places(grid, jax.random.fold_in(KEY, index))
            for place, size, patch in zip(read, source, grid.shape, strict=True):
                assert np.abs(place).max() <= (size - 1) / 2 + 1e-3
                outside += (np.abs(place) > (patch - 1) / 2 + 1e-3).sum()
                inside += place.size
        assert outside / inside > 0.05  # these would be mirror images without it


def test_sources_are_larger_only_where_something_moves():
    def of(shape, **options):
        return source_size(options, patch_size=shape, spacing=None)

    assert of((48, 48)) == (48, 48)
    assert of((64, 64, 64)) == (64, 64, 64)
    assert of((48, 48, 8), **OFF) == (48, 48, 8)
    only = OFF | {"scaling_probability": 0.2, "scaling_factor": (0.5, 1.5)}
    assert of((48, 40, 8), **only) == (72, 60, 8)
    wide = reach(
        CropGrid((40, 20, 4), (1.0, 2.0, 9.0)),
        degrees=(-90.0, 90.0),
        factor=1.0,
        moved=0.0,
    )
    # 40 x 40 mm: the diagonal is 56.6 mm, 58 pixels of 1 and 30 of 2.
    assert wide == (58, 30, 4)


@pytest.mark.parametrize("options", [{}, {"rotation_probability": 1.0}])
def test_a_larger_source_gives_the_pixels_beside_the_patch(options):
    patch, source = (8, 8, 2), (16, 16, 2)
    grid = np.stack(np.meshgrid(*map(np.arange, source), indexing="ij"), axis=-1)
    image = jnp.asarray(grid, jnp.float32)
    label = jnp.asarray(grid[..., 0] // 2, jnp.int32)
    function = jax.jit(lambda *a: augment(*a, patch_size=patch, **(OFF | options)))
    moved, found = function(KEY, image, label)
    assert moved.shape == (*patch, 3)
    if not options:
        np.testing.assert_array_equal(moved, image[4:12, 4:12])
        np.testing.assert_array_equal(found, label[4:12, 4:12])
        return
    # The corners of a turned square lie outside of it: nothing is mirrored there.
    offsets = np.asarray(moved)[..., :2] - 7.5
    steps = np.diff(offsets, axis=0)
    np.testing.assert_allclose(steps - steps[:1], 0, atol=1e-4)
    assert np.abs(offsets).max() > 3.6
    np.testing.assert_array_equal(found, np.floor(np.asarray(moved)[..., 0] + 0.5) // 2)
