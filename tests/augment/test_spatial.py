"""Coordinate maps and sampling against scipy; the label moves with the image."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.ndimage

from tests.augment.conftest import IGNORE, WAYS_AND_SHAPES, draw, example
from unet_jax.augment import coordinates
from unet_jax.augment.crop_grid import CropGrid
from unet_jax.augment.sampling import sample
from unet_jax.augment.spatial import Elastic, Flip, Rotation, Scaling

KEY = jax.random.key(7)
ALWAYS = {
    "mirroring": Flip(probability=1.0),
    "rotation": Rotation(
        probability=1.0, degrees_2d=(25.0, 25.0), degrees_3d=(25.0, 25.0)
    ),
    "scaling": Scaling(probability=1.0, factor=(1.3, 1.3)),
}


def _matrix(augmentation, ndim, key=KEY):
    return augmentation.matrix(
        draw(key, augmentation, (2,) * ndim + (1,)), CropGrid((2,) * ndim)
    )


def _affine(name, ndim, key=KEY):
    return _matrix(ALWAYS[name], ndim, key)


def _elastic(shape, *, spacing=4.0, magnitude=(0.3, 0.3), key=KEY):
    elastic = Elastic(probability=1.0, spacing=spacing, magnitude=magnitude)
    points = elastic.points(draw(key, elastic, (*shape, 1)), CropGrid(shape))
    return coordinates.displacement(points, shape=shape, spacing=spacing)


@jax.jit
def _moved(image, label, matrix, moved):
    """Read image and label through one map."""
    read = coordinates.places(matrix, moved, shape=label.shape, dtype=jnp.float32)
    return sample(image, label, read)


def test_matrices_are_what_they_say():
    angle = np.radians(25)
    turn = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
    np.testing.assert_allclose(_affine("rotation", 2), turn, atol=1e-6)
    np.testing.assert_allclose(_affine("scaling", 3), 1.3 * np.eye(3), rtol=1e-6)
    np.testing.assert_array_equal(_affine("mirroring", 2), -np.eye(2))
    only_second = _matrix(Flip(probability=1.0, axes=(1,)), 3)
    np.testing.assert_array_equal(only_second, np.diag([1.0, -1.0, 1.0]))


def test_a_volume_turns_about_all_axes_and_keeps_its_shape():
    turn = np.asarray(_affine("rotation", 3), np.float64)
    np.testing.assert_allclose(turn @ turn.T, np.eye(3), atol=1e-6)
    assert np.linalg.det(turn) == pytest.approx(1.0, abs=1e-6)
    assert np.all(np.abs(turn - np.eye(3)) > 0.05)


def test_chaining_goes_from_the_first_to_the_second():
    first, second = _affine("rotation", 2), jnp.diag(jnp.array([1.0, -1.0]))
    np.testing.assert_allclose(
        coordinates.then(first, second), np.asarray(second) @ first, atol=1e-6
    )


@WAYS_AND_SHAPES
@pytest.mark.parametrize("name", ["mirroring", "rotation", "scaling"])
def test_affine_maps_are_scipys(name, shape, variant):
    image, label = example(shape)

    def run(key, image, label):
        return _moved(image, label, _affine(name, len(shape), key), None)

    moved, moved_label = variant(run)(KEY, image, label)
    matrix = np.asarray(_affine(name, len(shape)), np.float64)
    centre = (np.array(shape) - 1) / 2
    options = {"offset": centre - matrix @ centre, "mode": "mirror"}
    for channel in range(image.shape[-1]):
        expected = scipy.ndimage.affine_transform(
            np.asarray(image[..., channel], np.float64), matrix, order=1, **options
        )
        np.testing.assert_allclose(moved[..., channel], expected, atol=2e-5)
    expected = scipy.ndimage.affine_transform(
        np.asarray(label), matrix, order=0, **options
    )
    # Half-way between two pixels the two may round to different sides.
    assert np.mean(moved_label == expected) > 0.98
    assert moved_label.dtype == label.dtype


@WAYS_AND_SHAPES
def test_elastic_deformation_is_scipys_map_coordinates(shape, variant):
    image, label = example(shape)

    def run(key, image, label):
        moved = _elastic(shape, key=key)
        read = coordinates.places(None, moved, shape=shape, dtype=jnp.float32)
        return (*sample(image, label, read), jnp.stack(read))

    moved, moved_label, read = variant(run)(KEY, image, label)
    assert np.abs(read - np.indices(shape)).max() > 0.3
    for channel in range(image.shape[-1]):
        expected = scipy.ndimage.map_coordinates(
            np.asarray(image[..., channel]), np.asarray(read), order=1, mode="mirror"
        )
        np.testing.assert_allclose(moved[..., channel], expected, atol=2e-5)
    expected = scipy.ndimage.map_coordinates(
        np.asarray(label), np.asarray(read), order=0, mode="mirror"
    )
    np.testing.assert_array_equal(moved_label, expected)


def test_displacement_is_the_spline_through_its_control_points():
    # One control value everywhere: B-splines sum to 1, so the field is that value.
    basis = coordinates._spline_basis(17, 4.0)
    np.testing.assert_allclose(basis.sum(1), 1.0, atol=1e-12)
    # At a control point the weights are 1/6, 4/6, 1/6, by the book.
    np.testing.assert_allclose(basis[8, 2:6], [1 / 6, 4 / 6, 1 / 6, 0], atol=1e-12)
    strongest = np.abs(_elastic((40, 40), spacing=8.0, magnitude=(0.25, 0.25))).max()
    assert 0.3 < strongest <= 2.0


def test_the_default_strength_never_folds():
    moved = np.asarray(_elastic((60, 50), spacing=8.0, magnitude=(0.39, 0.39)))
    rows, columns = np.gradient(moved, axis=(1, 2))
    jacobian = (1 + rows[0]) * (1 + columns[1]) - rows[1] * columns[0]
    assert jacobian.min() > 0


@pytest.mark.parametrize("shape", [(8, 9), (5, 6, 7)])
def test_mirroring_is_exact(shape):
    image, label = example(shape)
    matrix = _matrix(Flip(probability=1.0, axes=(1,)), len(shape))
    moved, moved_label = _moved(image, label, matrix, None)
    np.testing.assert_array_equal(moved, jnp.flip(image, 1))
    np.testing.assert_array_equal(moved_label, jnp.flip(label, 1))


def test_quarter_turn_is_exact_for_image_and_label():
    image, label = example((9, 9))
    matrix = _matrix(Rotation(probability=1.0, degrees_2d=(90.0, 90.0)), 2)
    moved, moved_label = _moved(image, label, matrix, None)
    np.testing.assert_allclose(moved, np.rot90(image, -1), atol=1e-5)
    np.testing.assert_array_equal(moved_label, np.rot90(label, -1))


@pytest.mark.parametrize("shape", [(41, 38), (19, 18, 17)])
def test_a_landmark_moves_alike_in_image_and_label(shape):
    centre = tuple(size // 3 for size in shape)
    distance = np.linalg.norm(np.indices(shape).T - np.array(centre), axis=-1).T
    label = jnp.asarray(distance < min(shape) / 4, jnp.int32)
    matrix = coordinates.then(
        _affine("rotation", len(shape)), _affine("scaling", len(shape))
    )
    image = label[..., None].astype(jnp.float32)
    moved, moved_label = _moved(image, label, matrix, _elastic(shape, spacing=8.0))
    assert not np.array_equal(moved_label, label)
    # The nearest corner of linear weights on a 0/1 image: at least (1/2) ** axes.
    inside = np.asarray(moved[..., 0])[np.asarray(moved_label) == 1]
    outside = np.asarray(moved[..., 0])[np.asarray(moved_label) == 0]
    assert inside.min() >= 0.5 ** len(shape) - 1e-5
    assert outside.max() <= 1 - 0.5 ** len(shape) + 1e-5
    np.testing.assert_allclose(
        scipy.ndimage.center_of_mass(np.asarray(moved[..., 0])),
        scipy.ndimage.center_of_mass(np.asarray(moved_label)),
        atol=0.15,
    )


def test_only_label_values_that_were_there_come_out():
    label = jnp.asarray(np.random.default_rng(0).choice([IGNORE, 2, 7], (20, 21)))
    image = jnp.zeros((20, 21, 1))
    _, moved = _moved(image, label, _affine("rotation", 2), _elastic((20, 21)))
    assert set(np.unique(moved)) == {IGNORE, 2, 7}


@pytest.mark.parametrize("shape", [(2, 3), (1, 5, 4)])
def test_tiny_axes(shape):
    image, label = example(shape)
    ndim = len(shape)
    matrix = coordinates.then(_affine("rotation", ndim), _affine("scaling", ndim))
    moved, moved_label = _moved(image, label, matrix, _elastic(shape))
    assert np.all(np.isfinite(moved))
    assert moved.min() >= image.min() - 1e-5
    assert moved.max() <= image.max() + 1e-5
    assert set(np.unique(moved_label)) <= set(np.unique(label))
