"""Against PyTorch and MONAI 1.6.1; `benchmarks/golden_losses.py` made the numbers."""

import json
import pathlib

import jax.numpy as jnp
import numpy as np
import pytest

from unet_jax.losses import binary, boundary, cl_dice, confusion, overlap
from unet_jax.losses.categorical import cross_entropy

GOLDEN = json.loads((pathlib.Path(__file__).parent / "golden.json").read_text())
LOGITS = jnp.asarray(GOLDEN["logits"], jnp.float32)
LABELS = np.asarray(GOLDEN["labels"])
VOLUME_LOGITS = jnp.asarray(GOLDEN["volume_logits"], jnp.float32)
VOLUME_LABELS = np.asarray(GOLDEN["volume_labels"])
WEIGHTS = (0.5, 1.0, 2.0)


@pytest.mark.parametrize(
    ("name", "function", "options"),
    [
        ("cross_entropy", cross_entropy, {}),
        ("cross_entropy_weighted", cross_entropy, {"class_weights": WEIGHTS}),
        (
            "cross_entropy_smoothed",
            cross_entropy,
            {"class_weights": WEIGHTS, "label_smoothing": 0.2},
        ),
        ("bce", binary.bce, {}),
        ("weighted_bce", binary.weighted_bce, {"beta": 3.0}),
        ("dice", overlap.dice_loss, {}),
        ("dice_plain", overlap.dice_loss, {"squared": False}),
        ("dice_sigmoid", overlap.dice_loss, {"squared": False, "head": "sigmoid"}),
        ("tversky", overlap.tversky_loss, {}),
        ("boundary", boundary.boundary_loss, {}),
        ("hausdorff_dt", boundary.hausdorff_dt_loss, {}),
        (
            "focal_sigmoid",
            binary.focal_loss,
            {"head": "sigmoid", "gamma": 2.0, "alpha": 0.25},
        ),
        ("cl_dice", cl_dice.cl_dice_loss, {}),
        ("mcc", confusion.mcc_loss, {}),
    ],
)
def test_values_are_those_of_others(name, function, options):
    ours = function(logits=LOGITS, labels=LABELS, **options)
    theirs = np.asarray(GOLDEN["values"][name])
    # MONAI smooths Tversky and Dice with 1e-5, as we do; entropies are those of torch.
    np.testing.assert_allclose(ours, theirs, rtol=2e-6, atol=1e-6)


@pytest.mark.parametrize(
    ("name", "function"),
    [
        ("boundary", boundary.boundary_loss),
        ("hausdorff_dt", boundary.hausdorff_dt_loss),
        ("cl_dice", cl_dice.cl_dice_loss),
    ],
)
def test_values_of_a_volume_are_those_of_others(name, function):
    # Distances and skeletons are computed axis by axis: no axis may be missing.
    ours = function(logits=VOLUME_LOGITS, labels=VOLUME_LABELS)
    theirs = np.asarray(GOLDEN["volume_values"][name])
    np.testing.assert_allclose(ours, theirs, rtol=2e-6, atol=1e-6)


def test_jaccard_differs_from_monais_by_its_smoothing_alone():
    # MONAI takes 2 intersection / (2 union), and smooths numerator and denominator
    # after the doubling; without smoothing both are the same ratio.
    ours = overlap.jaccard_loss(logits=LOGITS, labels=LABELS, smooth=5e-6)
    theirs = np.asarray(GOLDEN["values"]["jaccard"])
    np.testing.assert_allclose(ours, theirs, atol=1e-6)


def test_generalized_dice_is_monais():
    ours = overlap.generalized_dice_loss(logits=LOGITS, labels=LABELS)
    theirs = np.asarray(GOLDEN["values"]["generalized_dice"])[:, 0]
    np.testing.assert_allclose(ours, theirs, atol=1e-6)


def test_softmax_focal_keeps_the_true_class_of_monais():
    # MONAI gives a value for each class, 0 except for the true one.
    ours = binary.focal_loss(logits=LOGITS, labels=LABELS, gamma=2.0)
    theirs = np.asarray(GOLDEN["values"]["focal_softmax"]).sum(-1)
    np.testing.assert_allclose(ours, theirs, atol=1e-6)
