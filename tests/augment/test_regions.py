"""Regions of drawn images: clusters, distances, shells and blobs."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import ndimage

from unet_jax.augment.regions import (
    CLUSTERS,
    Numbers,
    Surroundings,
    distance_to,
    find_clusters,
    smooth_field,
)


@pytest.mark.parametrize("shape", [(60, 37), (15, 18, 12)])
def test_distances_are_those_of_scipy_up_to_the_reach(shape):
    foreground = np.zeros(shape, bool)
    foreground[tuple(size // 3 for size in shape)] = True
    foreground[tuple(size - 2 for size in shape)] = True
    found = np.asarray(distance_to(jnp.array(foreground)))
    expected = ndimage.distance_transform_edt(~foreground)
    np.testing.assert_allclose(np.minimum(found, 40), np.minimum(expected, 40), 1e-5)


def test_without_foreground_everything_is_far():
    assert float(distance_to(jnp.zeros((8, 9), bool)).min()) >= 40


def test_clusters_divide_each_class_by_intensity():
    classes = jnp.array([[0] * 6, [1] * 6])
    image = jnp.array([[0, 0, 1, 1, 9, 9.0], [20, 20, 20, 28, 28, 30.0]])[..., None]
    found = find_clusters(image, classes, num_classes=3)
    assert found.place[0].tolist() == [0, 0, 0, 0, 2, 2]
    assert found.place[1].tolist() == [0, 0, 0, 2, 2, 2]
    # Class 0 is the darkest, class 1 the brightest, class 2 is absent.
    np.testing.assert_allclose(found.means[:, 0], [0.0, 1.0, 0.5])
    span = (146 - 20) / 6
    np.testing.assert_allclose(
        found.texture[1, :, 0] * span, image[1, :, 0] - 146 / 6, atol=1e-5
    )


def test_the_outline_is_the_class_that_touches_the_background_most():
    classes = jnp.zeros((9, 9), int).at[2:7, 2:7].set(2).at[3:6, 3:6].set(1)
    found = find_clusters(jnp.ones((9, 9, 1)), classes, num_classes=3)
    assert int(found.outline) == 2
    found = find_clusters(jnp.ones((9, 9, 1)), 3 - classes, num_classes=4)
    assert int(found.outline) == 0  # no background


def test_a_constant_image_has_one_cluster_a_class_and_no_texture():
    found = find_clusters(jnp.ones((3, 3, 1)), jnp.eye(3, dtype=int), num_classes=2)
    assert np.isfinite(found.means).all()
    assert len(set(found.place.ravel().tolist())) == 1
    assert not found.texture.any()


@pytest.mark.parametrize("axes", [2, 3])
def test_shells_follow_each_other_outwards(axes):
    numbers = Numbers.of(2)
    count = Surroundings.count(axes)
    uniform = jnp.full(count, 0.5).at[3].set(0.9)  # no blobs, no waves
    around = Surroundings.of(uniform, axes)
    foreground = jnp.zeros((61,) * 2 if axes == 2 else (25,) * 3, bool)
    middle = tuple(size // 2 for size in foreground.shape)
    foreground = foreground.at[middle].set(True)
    found = around.regions(foreground, numbers)
    outwards = found[middle[:-1]][middle[-1] + 1 :]
    assert list(dict.fromkeys(outwards.tolist()))[:3] == [
        numbers.clusters,
        numbers.bone,
        numbers.bone + 1,
    ]
    if axes == 2:
        assert int(outwards[-1]) == numbers.air
    assert numbers.clusters == 2 * CLUSTERS


def test_blobs_reach_the_border_where_they_are_drawn():
    numbers = Numbers.of(2)
    uniform = jax.random.uniform(jax.random.key(0), (Surroundings.count(2),))
    around = Surroundings.of(uniform.at[3].set(0.1), 2)
    foreground = jnp.zeros((90, 90), bool).at[:3, :3].set(True)
    found = np.unique(around.regions(foreground, numbers)[60:, 60:])
    assert len(found) > 2
    assert found.min() > numbers.bone
    assert found.max() < numbers.air


def test_a_smooth_field_is_the_constant_or_passes_near_its_nodes():
    np.testing.assert_allclose(smooth_field(jnp.full((4, 4), 0.75), (9, 7)), 0.5, 1e-5)
    nodes = jax.random.uniform(jax.random.key(1), (5, 5))
    field = smooth_field(nodes, (50, 50))
    assert float(jnp.abs(jnp.diff(field, axis=0)).max()) < 0.35
    assert float(jnp.abs(field).max()) < 1.6
