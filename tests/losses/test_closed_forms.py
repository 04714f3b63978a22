"""Values that can be worked out on paper, and what the parameters are for."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from unet_jax.losses import binary, confusion, overlap
from unet_jax.losses.categorical import cross_entropy, top_k_cross_entropy
from unet_jax.losses.lovasz import lovasz_hinge_loss, lovasz_softmax_loss

PIXELS, POSITIVES = 10, 4


def _constant(p):
    """Ten pixels, four of class 1, one probability everywhere, for a sigmoid head."""
    score = np.log(p / (1 - p))
    labels = np.array([[0] * (PIXELS - POSITIVES) + [1] * POSITIVES])
    return jnp.full((1, PIXELS, 2), score, jnp.float32), labels


@pytest.mark.parametrize("p", [0.2, 0.5, 0.9])
def test_overlaps_of_a_constant_prediction(p):
    logits, labels = _constant(p)
    tp, fp, fn = 4 * p, 6 * p, 4 * (1 - p)
    expected = {
        overlap.jaccard_loss: 1 - tp / (tp + fp + fn),
        overlap.tversky_loss: 1 - tp / (tp + 0.3 * fp + 0.7 * fn),
        overlap.focal_tversky_loss: (1 - tp / (tp + 0.3 * fp + 0.7 * fn)) ** 0.75,
        overlap.log_cosh_dice_loss: np.log(
            np.cosh(1 - 2 * tp / (10 * p**2 + POSITIVES))
        ),
    }
    for function, value in expected.items():
        loss = function(logits=logits, labels=labels, head="sigmoid", smooth=0.0)
        np.testing.assert_allclose(loss[0, 1], value, atol=1e-6)
    loss = confusion.sensitivity_specificity_loss(
        logits=logits, labels=labels, head="sigmoid", smooth=0.0
    )
    np.testing.assert_allclose(loss[0, 1], 0.05 * (1 - p) ** 2 + 0.95 * p**2, atol=1e-6)


def test_mcc_is_the_correlation_of_soft_counts():
    # 0.8 on the four pixels of the class, 0.3 on the six others.
    _, labels = _constant(0.5)
    p = np.where(labels == 1, 0.8, 0.3)[..., None]
    logits = np.log(p / (1 - p)) * np.array([-1, 1])
    tp, fn, fp, tn = 4 * 0.8, 4 * 0.2, 6 * 0.3, 6 * 0.7
    expected = 1 - (tp * tn - fp * fn) / np.sqrt(5 * 4 * 6 * 5)
    loss = confusion.mcc_loss(logits=logits, labels=labels, head="sigmoid")
    np.testing.assert_allclose(loss, [[expected, expected]], atol=1e-6)


def test_generalized_dice_weighs_classes_by_their_inverse_square():
    logits, labels = _constant(0.3)
    loss = overlap.generalized_dice_loss(
        logits=logits, labels=labels, head="sigmoid", smooth=0.0
    )
    weights = np.array([1 / 36, 1 / 16])
    above = 2 * (weights * [6 * 0.3, 4 * 0.3]).sum()
    below = (weights * [10 * 0.3 + 6, 10 * 0.3 + 4]).sum()
    np.testing.assert_allclose(loss, 1 - above / below, atol=1e-6)


@pytest.mark.parametrize("p", [0.2, 0.5, 0.9])
def test_the_binary_family_of_a_constant_prediction(p):
    logits, labels = _constant(p)
    yes, no = -np.log(p), -np.log(1 - p)
    for function, options, positive, negative in (
        (binary.bce, {}, yes, no),
        (binary.weighted_bce, {"beta": 3.0}, 3 * yes, no),
        (binary.balanced_bce, {}, 0.6 * yes, 0.4 * no),
        (binary.balanced_bce, {"beta": 0.9}, 0.9 * yes, 0.1 * no),
        (
            binary.focal_loss,
            {"head": "sigmoid", "gamma": 2.0, "alpha": 0.25},
            0.25 * (1 - p) ** 2 * yes,
            0.75 * p**2 * no,
        ),
    ):
        loss = function(logits=logits, labels=labels, **options)[0, :, 1]
        np.testing.assert_allclose(loss[labels[0] == 1], positive, rtol=1e-6)
        np.testing.assert_allclose(loss[labels[0] == 0], negative, rtol=1e-5)
    loss = binary.combo_loss(
        logits=logits, labels=labels, alpha=0.3, beta=0.8, smooth=0.0
    )
    entropy = 0.4 * 0.8 * yes + 0.6 * 0.2 * no
    dice = 2 * 4 * p / (10 * p + 4)
    np.testing.assert_allclose(loss[0, 1], 0.3 * entropy + 0.7 * (1 - dice), rtol=1e-5)


@pytest.mark.parametrize("alpha", [0.25, 0.8])
def test_focal_without_focus_is_the_weighted_entropy(alpha):
    rng = np.random.default_rng(0)
    logits = jnp.asarray(rng.normal(size=(2, 30, 3)), jnp.float32)
    labels = rng.integers(-1, 3, (2, 30))
    focal = binary.focal_loss(
        logits=logits, labels=labels, head="sigmoid", gamma=0.0, alpha=alpha
    )
    weighted = binary.balanced_bce(logits=logits, labels=labels, beta=alpha)
    np.testing.assert_allclose(focal, weighted, atol=1e-6)
    weights = (0.2, 0.3, 0.5)
    focal = binary.focal_loss(logits=logits, labels=labels, gamma=0.0, alpha=weights)
    plain = cross_entropy(logits=logits, labels=labels, class_weights=weights)
    np.testing.assert_allclose(focal, plain, atol=1e-6)


@pytest.mark.parametrize(("k", "count"), [(0.1, 1), (0.25, 3), (1.0, 10)])
def test_top_k_is_the_mean_of_the_worst(k, count):
    rng = np.random.default_rng(1)
    logits = jnp.asarray(rng.normal(size=(2, 10, 3)), jnp.float32)
    labels = rng.integers(0, 3, (2, 10))
    values = np.sort(cross_entropy(logits=logits, labels=labels), axis=1)[:, ::-1]
    loss = top_k_cross_entropy(logits=logits, labels=labels, k=k)
    np.testing.assert_allclose(loss, values[:, :count].mean(axis=1), rtol=1e-6)


def test_lovasz_of_hard_predictions_is_the_jaccard_loss():
    rng = np.random.default_rng(2)
    labels = rng.integers(0, 3, (2, 40))
    predicted = np.where(rng.random((2, 40)) < 0.3, rng.integers(0, 3, (2, 40)), labels)
    loss = lovasz_softmax_loss(logits=100.0 * jnp.eye(3)[predicted], labels=labels)
    for index in range(3):
        one, two = predicted == index, labels == index
        jaccard = (one & two).sum(axis=1) / (one | two).sum(axis=1)
        np.testing.assert_allclose(loss[:, index], 1 - jaccard, atol=1e-6)
    # The hinge of a score of 1 is 0 where it is right and 2 where it is wrong.
    scores = jnp.where(jnp.asarray(predicted)[..., None] == jnp.arange(3), 1.0, -1.0)
    hinge = lovasz_hinge_loss(logits=scores, labels=labels)
    np.testing.assert_allclose(hinge, 2 * loss, atol=1e-5)


@pytest.mark.parametrize("beta", [0.25, 1.0, 5.0])
def test_the_best_constant_of_weighted_bce(beta):
    q = 0.2
    labels = np.array([[1] * 20 + [0] * 80])
    grid = np.linspace(0.01, 0.99, 981)

    @jax.vmap
    def loss(p):
        logits = jnp.full((1, 100, 2), jnp.log(p / (1 - p)))
        values = binary.weighted_bce(logits=logits, labels=labels, beta=beta)
        return values[..., 1].mean()

    best = grid[np.asarray(loss(jnp.asarray(grid))).argmin()]
    np.testing.assert_allclose(best, beta * q / (beta * q + 1 - q), atol=1e-3)


def _errors_after_training(beta):
    """False negatives and positives of a logistic model that cannot be right."""
    rng = np.random.default_rng(3)
    labels = (rng.random((1, 2000)) < 0.3).astype(np.int32)
    signal = jnp.asarray(labels + rng.normal(size=labels.shape), jnp.float32)
    optimizer = optax.adam(0.1)

    def scores(params):
        score = params[0] * signal + params[1]
        return jnp.stack([-score, score], axis=-1)

    def loss(params):
        values = binary.weighted_bce(logits=scores(params), labels=labels, beta=beta)
        return values[..., 1].mean()

    @jax.jit
    def step(carry, _):
        params, state = carry
        updates, state = optimizer.update(jax.grad(loss)(params), state)
        return (optax.apply_updates(params, updates), state), None

    params = jnp.zeros(2)
    (params, _), _ = jax.lax.scan(step, (params, optimizer.init(params)), length=200)
    predicted = np.asarray(scores(params)[..., 1] > 0)
    return (~predicted & (labels == 1)).sum(), (predicted & (labels == 0)).sum()


def test_beta_trades_false_negatives_for_false_positives():
    errors = [_errors_after_training(beta) for beta in (0.3, 1.0, 3.0)]
    negatives, positives = zip(*errors, strict=True)
    assert negatives[0] > negatives[1] > negatives[2]
    assert positives[0] < positives[1] < positives[2]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda z, y: top_k_cross_entropy(logits=z, labels=y, k=0.0), "k: found 0.0"),
        (
            lambda z, y: binary.focal_loss(logits=z, labels=y, alpha=0.3),
            "expected one value for each class",
        ),
        (
            lambda z, y: cross_entropy(logits=z, labels=y, class_weights=(1.0,)),
            "1 values; expected 2",
        ),
        (
            lambda z, y: overlap.dice_loss(logits=z, labels=y[:, :1]),
            "labels of shape",
        ),
    ],
)
def test_what_cannot_be_meant_is_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call(jnp.zeros((1, 4, 2)), np.zeros((1, 4), np.int32))


def test_regions_may_overlap():
    logits = jnp.asarray(np.random.default_rng(4).normal(size=(1, 9, 2)), jnp.float32)
    regions = np.ones((1, 9, 2), np.int32)
    regions[0, 4:, 1] = 0
    loss = binary.bce(logits=logits, labels=regions)
    p = 1 / (1 + np.exp(-np.asarray(logits)))
    expected = np.where(regions == 1, -np.log(p), -np.log(1 - p))
    np.testing.assert_allclose(loss, expected, rtol=1e-5)
    regions[0, 0, 0] = -1
    assert binary.bce(logits=logits, labels=regions)[0, 0, 0] == 0
