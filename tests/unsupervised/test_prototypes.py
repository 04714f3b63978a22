import itertools

import numpy as np

from unet_jax.labels import IGNORE
from unet_jax.unsupervised.prototypes import (
    class_prototypes,
    merged,
    named_by_prototype,
)


def test_prototypes_are_means_over_the_pixels_of_all_images():
    rng = np.random.default_rng(0)
    pairs = [(rng.normal(size=(n, 5, 2)), rng.integers(0, 3, (n, 5))) for n in (4, 9)]
    pairs[0][1][0] = IGNORE
    got = class_prototypes(pairs, num_classes=4)
    pixels = np.concatenate([image.reshape(-1, 2) for image, _ in pairs])
    labels = np.concatenate([label.ravel() for _, label in pairs])
    expected = [pixels[labels == index].mean(0) for index in range(3)]
    np.testing.assert_allclose(got[:3], expected)
    assert np.isinf(got[3]).all()


def test_segments_are_named_by_their_nearest_class():
    image = np.array([[0.0, 0.2, 5.0, 5.2, 9.0]])[..., None]
    segments = np.array([[2, 2, 0, 0, 1]])
    prototypes = np.array([[0.0], [4.0], [np.inf], [8.0]])
    named = named_by_prototype(segments, image, prototypes)
    assert named.tolist() == [[0, 0, 1, 1, 3]]


def test_the_first_pair_to_merge_costs_the_least_squared_error():
    rng = np.random.default_rng(1)
    image = rng.normal(size=(40, 2))
    segments = rng.integers(0, 4, 40)

    def error(labels):
        parts = [image[labels == index] for index in np.unique(labels)]
        return sum(np.square(part - part.mean(0)).sum() for part in parts)

    pairs = itertools.combinations(range(4), 2)
    best = min(error(np.where(segments == b, a, segments)) for a, b in pairs)
    got = merged(segments, image, count=3)
    assert set(np.unique(got)) == {0, 1, 2}
    np.testing.assert_allclose(error(got), best)


def test_few_segments_stay_and_all_can_become_one():
    image, segments = np.arange(3.0)[:, None], np.array([0, 1, 1])
    np.testing.assert_array_equal(merged(segments, image, count=2), segments)
    assert not merged(segments, image, count=1).any()
