import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import ndimage

from unet_jax.losses.boundary import boundary_loss, unet_weighted_cross_entropy
from unet_jax.losses.distance import (
    boundary_distance,
    connected_components,
    squared_distance,
    two_nearest_objects,
)


@pytest.mark.parametrize("shape", [(2, 17, 23, 3), (1, 7, 9, 11, 2)])
def test_distances_are_scipys(shape):
    rng = np.random.default_rng(0)
    mask = rng.random(shape) < 0.03
    mask[0, ..., 0] = False
    squared = np.asarray(jax.jit(squared_distance)(mask))
    for sample in range(shape[0]):
        for index in range(shape[-1]):
            one = mask[sample, ..., index]
            if not one.any():
                assert (squared[sample, ..., index] >= 1e11).all()
                continue
            expected = ndimage.distance_transform_edt(~one) ** 2
            np.testing.assert_allclose(
                squared[sample, ..., index], expected, rtol=1e-6, atol=1e-5
            )


def test_few_lines_at_a_time_give_the_same(monkeypatch):
    mask = np.random.default_rng(1).random((2, 9, 8, 2)) < 0.1
    whole = squared_distance(jnp.asarray(mask))
    monkeypatch.setattr("unet_jax.losses.distance._SUMS", 1)
    np.testing.assert_array_equal(squared_distance(jnp.asarray(mask)), whole)


def test_there_is_no_boundary_in_a_uniform_mask():
    for value in (True, False):
        mask = jnp.full((1, 5, 6, 1), value)
        np.testing.assert_array_equal(boundary_distance(mask), 0)


@pytest.mark.parametrize("shape", [(3, 20, 21), (2, 8, 9, 10)])
def test_components_are_scipys(shape):
    mask = np.random.default_rng(2).random(shape) < 0.35
    numbers = np.asarray(jax.jit(connected_components)(mask))
    for ours, one in zip(numbers, mask, strict=True):
        theirs, count = ndimage.label(one, np.ones((3,) * one.ndim))
        pairs = set(zip(ours[one].tolist(), theirs[one].tolist(), strict=True))
        assert len(pairs) == count == len({number for number, _ in pairs})
        assert (ours[~one] == 0).all()


def test_the_two_nearest_objects_are_those_of_separate_transforms():
    mask = np.random.default_rng(3).random((1, 24, 22)) < 0.06
    objects, count = ndimage.label(mask[0], np.ones((3, 3)))
    assert count > 5
    each = np.sort(
        [
            ndimage.distance_transform_edt(objects != number)
            for number in range(1, count + 1)
        ],
        axis=0,
    )
    first, second = jax.jit(two_nearest_objects)(objects[None].astype(np.int32))
    np.testing.assert_allclose(first[0], each[0], atol=1e-4)
    np.testing.assert_allclose(second[0], each[1], atol=1e-4)


def test_a_single_object_has_no_gap():
    labels = np.zeros((1, 12, 12), np.int32)
    labels[0, 2:5, 2:5] = 1
    logits = jnp.zeros((1, 12, 12, 2))
    loss = unet_weighted_cross_entropy(logits=logits, labels=labels)
    np.testing.assert_allclose(loss, np.log(2), rtol=1e-6)


def test_the_gap_between_two_cells_has_the_papers_weight():
    labels = np.zeros((1, 9, 14), np.int32)
    labels[0, 2:7, 2:6] = 1
    labels[0, 2:7, 8:12] = 1
    logits = jnp.zeros((1, 9, 14, 2))
    loss = unet_weighted_cross_entropy(logits=logits, labels=labels)
    # In the gap of two pixels d1 + d2 is 1 + 2.
    expected = np.log(2) * (1 + 10 * np.exp(-(3**2) / 50))
    np.testing.assert_allclose(loss[0, 4, 6:8], expected, rtol=1e-5)
    np.testing.assert_allclose(loss[0, 4, 3], np.log(2), rtol=1e-6)


def test_boundary_loss_of_a_shifted_prediction_grows_with_the_shift():
    labels = np.zeros((1, 32), np.int32)
    labels[0, 8:16] = 1
    values = []
    for shift in (0, 2, 5, 9):
        logits = 50 * jnp.eye(2)[np.roll(labels, shift)]
        values.append(float(boundary_loss(logits=logits, labels=labels)[0, 1]))
    assert values == sorted(values)
    assert values[0] < values[1] < values[-1]
