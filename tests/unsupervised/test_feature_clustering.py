"""Segments of drawn images, and what a label could change: nothing."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from unet_jax.unsupervised.feature_clustering import (
    FeatureClustering,
    _labels,
    clustering_loss,
    scaled_image,
    train_on_tiles,
)
from unet_jax.unsupervised.matching import named_by_label
from unet_jax.unsupervised.methods import feature_clusters, fit_feature_clustering

FAST = {"iterations": 30, "features": 8}


@pytest.fixture(scope="module", autouse=True)
def two_tiles():
    """Learn from two tiles instead of eight: to save time."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("unet_jax.unsupervised.feature_clustering.TILES", 2)
        yield


def _drawing(shape=(70, 90), seed=0):
    """A disc and a bar on a ground, with noise, and what they are."""
    rows, columns = np.mgrid[: shape[0], : shape[1]]
    label = np.zeros(shape, np.uint8)
    label[(rows - 30) ** 2 + (columns - 30) ** 2 < 400] = 1
    label[:, 60:75] = 2
    values = np.array([40, 120, 220])[label]
    noise = np.random.default_rng(seed).normal(0, 6, shape)
    return (values + noise).clip(1, 255).astype(np.uint8)[..., None], label


@dataclasses.dataclass
class _Sample:
    image: np.ndarray
    label: np.ndarray
    reference: None = None


def _iou(labels, truth):
    return [
        np.sum((labels == k) & (truth == k)) / np.sum((labels == k) | (truth == k))
        for k in range(3)
    ]


def test_the_loss_is_the_formula():
    r = np.random.default_rng(0).normal(size=(2, 4, 5, 3)).astype(np.float32)
    p = np.exp(r) / np.exp(r).sum(-1, keepdims=True)
    similarity = -np.log(p.max(-1)).mean()
    down = np.abs(r[:, 1:] - r[:, :-1]).mean()
    right = np.abs(r[:, :, 1:] - r[:, :, :-1]).mean()
    for mu in (0.0, 2.5):
        got = clustering_loss(r, continuity=mu)
        np.testing.assert_allclose(got, similarity + mu * (down + right), rtol=1e-6)


def test_the_loop_is_gradient_descent_that_ends_at_enough_or_few_labels():
    image, _ = _drawing()
    tiles = scaled_image(image, None)[None, :64, :64]

    def run(iterations, min_labels):
        return train_on_tiles(
            jax.random.key(0),
            tiles,
            continuity=1.0,
            learning_rate=0.1,
            features=4,
            layers=1,
            iterations=iterations,
            min_labels=min_labels,
        )[0]

    start, one, four = run(0, 1), run(1, 1), run(4, 1)
    assert len(start) == 2
    assert np.abs(start[0]["kernel"] - one[0]["kernel"]).max() > 0
    assert np.abs(one[0]["kernel"] - four[0]["kernel"]).max() > 0
    # With as many labels allowed as there are channels the first update is the last.
    jax.tree.map(np.testing.assert_array_equal, run(4, 4), one)


@pytest.fixture(scope="module")
def fitted():
    samples = [_Sample(*_drawing(seed=seed)) for seed in (1, 2)]
    return fit_feature_clustering(samples, num_classes=3, seed=0)


@pytest.mark.slow
def test_unseen_drawings_are_segmented(fitted):
    predict_fn, chosen = fitted
    image, label = _drawing(seed=3)
    assert set(chosen) == {"continuity", "min_labels", "training_iou"}
    assert min(_iou(predict_fn(image, None), label)) > 0.85


@pytest.mark.slow
def test_clusters_are_as_many_as_classes_and_match_an_oracle(fitted):
    predict_fn, chosen = feature_clusters(num_classes=3, seed=0)
    image, label = _drawing(seed=3)
    clusters = predict_fn(image, None)
    assert chosen["min_labels"] == 3
    assert set(np.unique(clusters)) <= {0, 1, 2}
    named = named_by_label(clusters, label, num_classes=3)
    assert min(_iou(named, label)) > 0.85


@pytest.mark.slow
def test_a_volume_is_segmented_slice_by_slice_by_one_network(fitted):
    predict_fn, _ = fitted
    image, label = _drawing(seed=3)
    volume = np.stack([image, image, image], axis=2)
    labels = predict_fn(volume, None)
    assert labels.shape == (*label.shape, 3)
    np.testing.assert_array_equal(labels[:, :, 0], labels[:, :, 2])
    assert min(_iou(labels[:, :, 1], label)) > 0.85


@pytest.mark.slow
def test_the_seed_alone_decides():
    # That no label does: test_compare.py scores it on cases whose label is guarded.
    image, _ = _drawing()
    method = FeatureClustering(min_labels=3, **FAST)
    first, again = (method.segments(image) for _ in range(2))
    np.testing.assert_array_equal(first, again)
    other = dataclasses.replace(method, seed=1).segments(image)
    assert (first != other).any()


@pytest.mark.slow
def test_sizes_share_one_program_and_large_images_are_shrunk():
    method = FeatureClustering(min_labels=2, **FAST, longest=80)
    image, _ = _drawing()
    method.segments(image)
    before = train_on_tiles._cache_size()
    for shape in ((30, 200), (100, 65)):
        small = np.resize(image, (*shape, 1))
        assert method.segments(small).shape == shape
    assert train_on_tiles._cache_size() == before


@pytest.mark.slow
def test_tiles_leave_no_seams():
    rng = np.random.default_rng(0)
    plane = rng.normal(size=(100, 150, 1)).astype(np.float32)
    params, statistics = train_on_tiles(
        jax.random.key(0),
        jnp.asarray(plane[None, :64, :64]),
        continuity=1.0,
        learning_rate=0.1,
        features=4,
        layers=2,
        iterations=3,
        min_labels=1,
    )
    labels = _labels(params, statistics, plane)
    shifted = _labels(params, statistics, plane[20:, 30:])
    # Away from the border that was cut, where a tile begins changes nothing.
    np.testing.assert_array_equal(labels[24:, 34:], shifted[4:, 4:])
