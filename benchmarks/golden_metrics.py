"""Computes golden numbers with the metrics of DeepMind, MONAI and scikit-learn.

    python -m benchmarks.golden_metrics > tests/metrics/golden.json

needs the extra ``bench``. The inputs are in the file too, so the tests need none of
them. Arrays of small integers are written as one string of digits.
"""

import json
import warnings

import monai
import numpy as np
import sklearn
import surface_distance
import torch
from monai.metrics import (
    compute_average_surface_distance,
    compute_confusion_matrix_metric,
    compute_dice,
    compute_hausdorff_distance,
    compute_iou,
    compute_surface_dice,
    get_confusion_matrix,
)
from scipy import ndimage
from sklearn import calibration
from sklearn import metrics as scores

CLASSES = 4
SURFACES = (
    ((24, 31), (1.0, 1.0)),
    ((24, 31), (0.4, 1.3)),
    ((12, 17, 14), (1.0, 1.0, 1.0)),
    ((12, 17, 14), (0.9, 1.1, 3.0)),
)
TOLERANCE = 1.45


def main() -> None:
    """Print inputs and values as JSON."""
    warnings.simplefilter("ignore")
    result = {
        "made_by": {
            "monai": monai.__version__,
            "scikit-learn": sklearn.__version__,
            "surface-distance": "0.1",
        },
        "surfaces": [
            _surfaces(shape, spacing, seed)
            for seed, (shape, spacing) in enumerate(SURFACES)
        ],
        "counts": _counts(),
        "partitions": _partitions(),
        "calibration": _calibration(),
    }
    print(json.dumps(result))


def _digits(array: np.ndarray) -> str:
    """Small integers as one string."""
    return "".join(map(str, array.astype(int).ravel().tolist()))


# ---- surfaces ------------------------------------------------------------------------


def _surfaces(shape: tuple, spacing: tuple, seed: int) -> dict:
    """Two blobs that overlap in part and touch the border, and all their scores."""
    rng = np.random.default_rng(seed)
    width = (0, *[1.5] * len(shape))
    noise = ndimage.gaussian_filter(rng.normal(size=(2, *shape)), width)
    label, prediction = noise[0] > 0.05, noise[0] + 0.7 * noise[1] > 0.05
    return {
        "shape": shape,
        "spacing": spacing,
        "tolerance": TOLERANCE,
        "label": _digits(label),
        "prediction": _digits(prediction),
        "area": _deepmind(prediction, label, spacing),
        "voxel": _monai(prediction, label, spacing),
    }


def _deepmind(prediction: np.ndarray, label: np.ndarray, spacing: tuple) -> dict:
    """Area-weighted scores; the symmetric mean is put together from its two parts."""
    found = surface_distance.compute_surface_distances(label, prediction, spacing)
    areas = np.array([found["surfel_areas_gt"].sum(), found["surfel_areas_pred"].sum()])
    means = np.array(surface_distance.compute_average_surface_distance(found))
    return {
        "hausdorff": float(surface_distance.compute_robust_hausdorff(found, 100)),
        "hd95": float(surface_distance.compute_robust_hausdorff(found, 95)),
        "assd": float((means * areas).sum() / areas.sum()),
        "nsd": float(
            surface_distance.compute_surface_dice_at_tolerance(found, TOLERANCE)
        ),
    }


def _monai(prediction: np.ndarray, label: np.ndarray, spacing: tuple) -> dict:
    """Scores of border voxels."""
    pair = [torch.from_numpy(mask)[None, None] for mask in (prediction, label)]
    options = {"include_background": True, "spacing": spacing}
    return {
        "hausdorff": compute_hausdorff_distance(*pair, **options).item(),
        "hd95": compute_hausdorff_distance(*pair, percentile=95, **options).item(),
        "assd": compute_average_surface_distance(
            *pair, symmetric=True, **options
        ).item(),
        "nsd": compute_surface_dice(
            *pair, class_thresholds=[TOLERANCE], **options
        ).item(),
    }


# ---- counts --------------------------------------------------------------------------


def _counts() -> dict:
    """Labels of four classes, a prediction with errors, and scores of each class."""
    rng = np.random.default_rng(0)
    shape = (2, 16, 15)
    labels = rng.choice(CLASSES, size=shape, p=(0.6, 0.25, 0.1, 0.05))
    wrong = rng.random(shape) < 0.3
    predictions = np.where(wrong, rng.integers(0, CLASSES, shape), labels)
    return {
        "shape": shape,
        "labels": _digits(labels),
        "predictions": _digits(predictions),
        "monai": _monai_counts(predictions, labels),
        "sklearn": [
            _sklearn_counts(*pair) for pair in zip(predictions, labels, strict=True)
        ],
    }


def _monai_counts(predictions: np.ndarray, labels: np.ndarray) -> dict:
    """Values ``(batch, classes)`` in float32, as MONAI has them."""
    one_hot = [
        torch.from_numpy(np.moveaxis(np.eye(CLASSES)[array], -1, 1))
        for array in (predictions, labels)
    ]
    matrix = get_confusion_matrix(*one_hot, include_background=True)
    values = {
        ours: compute_confusion_matrix_metric(theirs, matrix)
        for ours, theirs in (
            ("precision", "precision"),
            ("recall", "sensitivity"),
            ("specificity", "specificity"),
            ("mcc", "matthews correlation coefficient"),
        )
    }
    values["dice"] = compute_dice(*one_hot, include_background=True)
    values["iou"] = compute_iou(*one_hot, include_background=True)
    return {name: value.tolist() for name, value in values.items()}


def _sklearn_counts(predictions: np.ndarray, labels: np.ndarray) -> dict:
    """Values of each class, and of the sample."""
    y, p = labels.ravel(), predictions.ravel()
    frequency = np.bincount(y, minlength=CLASSES) / y.size
    iou = scores.jaccard_score(y, p, average=None)
    return {
        "precision": scores.precision_score(y, p, average=None).tolist(),
        "recall": scores.recall_score(y, p, average=None).tolist(),
        "f2": scores.fbeta_score(y, p, beta=2, average=None).tolist(),
        "f0.5": scores.fbeta_score(y, p, beta=0.5, average=None).tolist(),
        "mcc": [
            float(scores.matthews_corrcoef(y == c, p == c)) for c in range(CLASSES)
        ],
        "iou": iou.tolist(),
        "mean_iou": float(iou.mean()),
        "frequency_weighted_iou": float((frequency * iou).sum()),
        "pixel_accuracy": float(scores.accuracy_score(y, p)),
    }


# ---- partitions and probabilities ----------------------------------------------------


def _partitions() -> dict:
    """Five clusters against four classes."""
    rng = np.random.default_rng(1)
    labels = rng.choice(CLASSES, size=300, p=(0.5, 0.3, 0.15, 0.05))
    clusters = np.where(rng.random(300) < 0.3, rng.integers(0, 5, 300), 4 - labels)
    entropies = [scores.cluster.entropy(values) for values in (labels, clusters)]
    shared = scores.mutual_info_score(labels, clusters)
    return {
        "labels": _digits(labels),
        "clusters": _digits(clusters),
        "adjusted_rand": float(scores.adjusted_rand_score(labels, clusters)),
        "variation_of_information": float(sum(entropies) - 2 * shared),
    }


def _calibration() -> dict:
    """Brier scores and the curve of one class against the rest."""
    rng = np.random.default_rng(2)
    logits = rng.normal(size=(200, 3)) * 2
    p = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
    # Surer than they should be: a curve that is off the diagonal.
    truth = p**0.5 / (p**0.5).sum(-1, keepdims=True)
    labels = np.array([rng.choice(3, p=row) for row in truth])
    accuracy, confidence = calibration.calibration_curve(
        labels == 1, p[:, 1], n_bins=15
    )
    return {
        "probabilities": p.tolist(),
        "labels": _digits(labels),
        "brier": float(
            sum(scores.brier_score_loss(labels == c, p[:, c]) for c in range(3))
        ),
        "accuracy_of_1": accuracy.tolist(),
        "confidence_of_1": confidence.tolist(),
    }


if __name__ == "__main__":
    main()
