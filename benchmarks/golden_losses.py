"""Computes golden numbers with the losses of PyTorch and MONAI.

    python -m benchmarks.golden_losses > tests/losses/golden.json

needs the extra ``bench``. The inputs are in the file too, so the tests need neither.
"""

import json
from collections.abc import Callable

import monai
import numpy as np
import torch
from monai.losses import (
    BoundaryLoss,
    DiceLoss,
    FocalLoss,
    GeneralizedDiceLoss,
    HausdorffDTLoss,
    MCCLoss,
    SoftclDiceLoss,
    TverskyLoss,
)
from torch.nn import functional

CLASSES = 3
WEIGHTS = [0.5, 1.0, 2.0]


def main() -> None:
    """Print inputs and values as JSON."""
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(2, 10, 9, CLASSES)).astype(np.float32) * 2
    labels = np.zeros((2, 10, 9), np.int64)
    labels[0, 2:7, 1:5] = 1
    labels[0, 3:5, 6:8] = 2
    labels[1, 4:9, 2:8] = 2
    labels[1, 0:3, 0:4] = 1
    scores, target = torch.tensor(logits).movedim(-1, 1), torch.tensor(labels)
    one_hot = functional.one_hot(target, CLASSES).movedim(-1, 1).float()
    # Sides of different lengths, and an object that is another one along each axis.
    volume_logits = rng.normal(size=(1, 7, 6, 8, CLASSES)).astype(np.float32) * 2
    volume_labels = np.zeros((1, 7, 6, 8), np.int64)
    volume_labels[0, 1:6, 1:5, 2:8] = 1
    volume_labels[0, 3:5, :3, 1:4] = 2
    result = {
        "made_by": {"monai": monai.__version__, "torch": torch.__version__},
        "logits": logits.tolist(),
        "labels": labels.tolist(),
        "values": {
            **_torch_values(scores, target, one_hot),
            **_monai_values(scores, one_hot),
        },
        "volume_logits": volume_logits.tolist(),
        "volume_labels": volume_labels.tolist(),
        "volume_values": _volume_values(volume_logits, volume_labels),
    }
    print(json.dumps(result))


def _torch_values(scores, target, one_hot) -> dict[str, list]:
    """Entropies, one value a pixel (and class)."""
    weight = torch.tensor(WEIGHTS)
    positive = torch.full((CLASSES, 1, 1), 3.0)
    values = {
        "cross_entropy": functional.cross_entropy(scores, target, reduction="none"),
        "cross_entropy_weighted": functional.cross_entropy(
            scores, target, weight=weight, reduction="none"
        ),
        "cross_entropy_smoothed": functional.cross_entropy(
            scores, target, weight=weight, label_smoothing=0.2, reduction="none"
        ),
        "bce": functional.binary_cross_entropy_with_logits(
            scores, one_hot, reduction="none"
        ).movedim(1, -1),
        "weighted_bce": functional.binary_cross_entropy_with_logits(
            scores, one_hot, pos_weight=positive, reduction="none"
        ).movedim(1, -1),
    }
    return {name: value.tolist() for name, value in values.items()}


def _monai_values(scores, one_hot) -> dict[str, list]:
    """Overlaps ``(batch, classes)``, and focal losses a pixel and class."""
    soft = {"softmax": True, "reduction": "none"}
    values = {
        "dice": DiceLoss(squared_pred=True, **soft),
        "dice_plain": DiceLoss(**soft),
        "dice_sigmoid": DiceLoss(sigmoid=True, reduction="none"),
        "jaccard": DiceLoss(jaccard=True, **soft),
        "generalized_dice": GeneralizedDiceLoss(**soft),
        "tversky": TverskyLoss(alpha=0.3, beta=0.7, **soft),
        "hausdorff_dt": HausdorffDTLoss(include_background=True, **soft),
        "mcc": MCCLoss(**soft),
    }
    result = {name: _squeezed(loss, scores, one_hot) for name, loss in values.items()}
    for name, options in (
        ("focal_sigmoid", {"gamma": 2.0, "alpha": 0.25}),
        ("focal_softmax", {"gamma": 2.0, "use_softmax": True}),
    ):
        focal = FocalLoss(reduction="none", **options)
        result[name] = focal(scores, one_hot).movedim(1, -1).tolist()
    result["boundary"] = _boundary(scores, one_hot)
    result["cl_dice"] = _cl_dice(scores, one_hot)
    return result


def _volume_values(logits: np.ndarray, labels: np.ndarray) -> dict[str, list]:
    """Losses of a volume ``(batch, classes)`` that depend on the number of axes."""
    scores = torch.tensor(logits).movedim(-1, 1)
    one_hot = functional.one_hot(torch.tensor(labels), CLASSES).movedim(-1, 1).float()
    hausdorff = HausdorffDTLoss(include_background=True, softmax=True, reduction="none")
    return {
        "boundary": _boundary(scores, one_hot),
        "hausdorff_dt": _squeezed(hausdorff, scores, one_hot),
        "cl_dice": _cl_dice(scores, one_hot),
    }


def _boundary(scores, one_hot) -> list:
    """``(batch, classes)``: the mean over the pixels, of which MONAI gives each."""
    loss = BoundaryLoss(softmax=True, reduction="none")(scores, one_hot)
    return loss.reshape(*scores.shape[:2], -1).mean(-1).tolist()


def _cl_dice(scores, one_hot) -> list:
    """``(batch, classes)``: MONAI pools over both, so it is given one at a time."""
    # It can also smooth the harmonic mean, which the paper does not.
    loss = SoftclDiceLoss(iter_=3, smooth=1e-8, smooth_nr=1.0, smooth_dr=1.0)
    p = torch.softmax(scores, 1)
    return [
        [loss(p[i : i + 1, c : c + 1], one_hot[i : i + 1, c : c + 1]).item()
         for c in range(CLASSES)]
        for i in range(len(p))
    ]  # fmt: skip


def _squeezed(loss: Callable, scores, one_hot) -> list:
    """``(batch, classes)`` of what MONAI gives as ``(batch, classes, 1, 1)``."""
    return loss(scores, one_hot).flatten(1).tolist()


if __name__ == "__main__":
    main()
