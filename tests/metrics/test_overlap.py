import jax
import jax.numpy as jnp
import numpy as np
import pytest

from unet_jax.labels import IGNORE
from unet_jax.metrics.overlap import (
    ConfusionCounts,
    confusion_counts,
    dice_from_counts,
    dice_score,
    iou_from_counts,
    iou_score,
)


def _random_pair(shape, num_classes, seed=0):
    rng = np.random.default_rng(seed)
    predictions = rng.integers(0, num_classes, shape).astype(np.uint8)
    labels = rng.integers(IGNORE, num_classes, shape).astype(np.int8)
    return predictions, labels


@pytest.mark.parametrize("shape", [(2, 7), (1, 5, 3), (3, 4, 3, 5)])
def test_counts_equal_a_plain_numpy_count(shape):
    predictions, labels = _random_pair(shape, 3)
    counts = confusion_counts(predictions=predictions, labels=labels, num_classes=3)
    for sample in range(shape[0]):
        p, y = predictions[sample].ravel(), labels[sample].ravel()
        p, y = p[y != -1], y[y != -1]
        for index in range(3):
            expected = (
                np.sum((p == index) & (y == index)),
                np.sum((p == index) & (y != index)),
                np.sum((p != index) & (y == index)),
                np.sum((p != index) & (y != index)),
            )
            assert tuple(int(c[sample, index]) for c in counts) == expected


def test_counts_accept_unsigned_labels():
    labels = np.array([[0, 1, 255]], np.uint8)
    counts = confusion_counts(predictions=labels, labels=labels, num_classes=2)
    assert counts.tp.tolist() == [[1, 1]]
    assert counts.tn.tolist() == [[2, 2]]


def test_counts_are_exact_beyond_float32():
    size = 2**24 + 3
    labels = np.ones((1, size), np.int8)
    labels[0, 0] = 0
    predictions = np.ones((1, size), np.int8)
    counts = confusion_counts(predictions=predictions, labels=labels, num_classes=2)
    assert counts.tp.tolist() == [[0, size - 1]]
    assert counts.fp.tolist() == [[0, 1]]
    assert counts.fn.tolist() == [[1, 0]]
    assert counts.tn.tolist() == [[size - 1, 0]]
    assert counts.tp.dtype == jnp.int32


def test_a_sample_that_int32_cannot_count_is_refused():
    huge = jax.ShapeDtypeStruct((1, 2**16, 2**15), jnp.int8)
    with pytest.raises(
        ValueError, match="2147483648 pixels, more than int32 can count"
    ):
        confusion_counts.eval_shape(predictions=huge, labels=huge, num_classes=2)


def test_scores_of_hand_counted_masks():
    predictions = np.array([[0, 1, 1, 1, 2, 2]])
    labels = np.array([[0, 1, 1, 0, -1, 1]])
    counts = confusion_counts(predictions=predictions, labels=labels, num_classes=4)
    np.testing.assert_allclose(
        dice_from_counts(counts), [[2 / 3, 2 * 2 / 6, 0.0, np.nan]], rtol=1e-6
    )
    np.testing.assert_allclose(
        iou_from_counts(counts), [[1 / 2, 2 / 4, 0.0, np.nan]], rtol=1e-6
    )


def test_perfect_and_no_overlap():
    labels = np.array([[0, 0, 1, 1]])
    perfect = confusion_counts(predictions=labels, labels=labels, num_classes=2)
    wrong = confusion_counts(predictions=1 - labels, labels=labels, num_classes=2)
    for score in (dice_from_counts, iou_from_counts):
        np.testing.assert_array_equal(score(perfect), [[1, 1]])
        np.testing.assert_array_equal(score(wrong), [[0, 0]])


def test_everything_ignored_is_absent():
    labels = np.full((1, 4), IGNORE)
    counts = confusion_counts(
        predictions=np.ones((1, 4), int), labels=labels, num_classes=2
    )
    assert np.isnan(dice_from_counts(counts)).all()
    assert [int(c.sum()) for c in counts] == [0, 0, 0, 0]


def test_dividing_does_not_overflow_int32():
    big = jnp.full((1, 1), 2**30 + 2**29, jnp.int32)
    counts = ConfusionCounts(tp=big, fp=0 * big, fn=0 * big, tn=0 * big)
    assert dice_from_counts(counts).tolist() == [[1.0]]
    assert iou_from_counts(counts).tolist() == [[1.0]]


def test_numpy_counts_divide_in_float64():
    tp = np.array([[10**12 + 1]])
    counts = ConfusionCounts(tp=tp, fp=tp, fn=0 * tp, tn=0 * tp)
    assert dice_from_counts(counts).dtype == np.float64
    assert dice_from_counts(counts).tolist() == [[2 / 3]]


@pytest.mark.parametrize("squared", [True, False])
def test_one_hot_scores_equal_the_counts(squared):
    predictions, labels = _random_pair((2, 5, 3), 3, seed=4)
    counts = confusion_counts(predictions=predictions, labels=labels, num_classes=4)
    probabilities = jax.nn.one_hot(predictions, 4)
    labels = jnp.asarray(labels)
    dice = dice_score(probabilities=probabilities, labels=labels, squared=squared)
    iou = iou_score(probabilities=probabilities, labels=labels)
    np.testing.assert_allclose(dice, dice_from_counts(counts), rtol=1e-6)
    np.testing.assert_allclose(iou, iou_from_counts(counts), rtol=1e-6)
    assert np.isnan(dice[:, 3]).all()


def test_soft_scores_in_closed_form():
    # One class at p on all n pixels, k of them labelled.
    n, k, p = 8, 3, 0.25
    probabilities = jnp.full((1, n, 1), p)
    labels = jnp.where(jnp.arange(n) < k, 0, 5)[None]
    scores = {
        "squared": dice_score(probabilities=probabilities, labels=labels),
        "plain": dice_score(probabilities=probabilities, labels=labels, squared=False),
        "iou": iou_score(probabilities=probabilities, labels=labels),
    }
    expected = {
        "squared": 2 * k * p / (n * p**2 + k),
        "plain": 2 * k * p / (n * p + k),
        "iou": k * p / (n * p + k - k * p),
    }
    for name, score in scores.items():
        np.testing.assert_allclose(score, [[expected[name]]], rtol=1e-6)


def test_ignored_pixels_do_not_touch_soft_scores():
    predictions, labels = _random_pair((2, 9), 3, seed=1)
    labels[:, :4] = IGNORE
    probabilities = jax.nn.softmax(3.0 * jax.nn.one_hot(predictions, 3))
    poisoned = probabilities.at[:, :4].set(jnp.nan)
    for score in (dice_score, iou_score):
        kept = score(
            probabilities=probabilities[:, 4:], labels=jnp.asarray(labels)[:, 4:]
        )
        np.testing.assert_allclose(
            score(probabilities=poisoned, labels=jnp.asarray(labels)), kept, rtol=1e-6
        )


def test_half_precision_is_summed_in_float32():
    probabilities = jnp.ones((1, 5000, 1), jnp.bfloat16)
    labels = jnp.zeros((1, 5000), jnp.int32)
    score = dice_score(probabilities=probabilities, labels=labels)
    assert score.dtype == jnp.float32
    assert score.tolist() == [[1.0]]


def test_eager_equals_jit():
    predictions, labels = _random_pair((2, 5, 3), 3, seed=2)
    probabilities = jax.nn.one_hot(predictions, 3)
    labels = jnp.asarray(labels)
    compiled = (
        confusion_counts(predictions=predictions, labels=labels, num_classes=3),
        dice_score(probabilities=probabilities, labels=labels),
    )
    with jax.disable_jit():
        eager = (
            confusion_counts(predictions=predictions, labels=labels, num_classes=3),
            dice_score(probabilities=probabilities, labels=labels),
        )
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6), compiled, eager
    )
