"""Adds the pixels of all cases up: reliability bins and the confusion matrix."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from unet_jax.evaluation.case_scores import CaseScores
from unet_jax.evaluation.summary import number
from unet_jax.metrics.calibration import (
    Reliability,
    expected_calibration_error,
    reliability_curve,
)


def pooled_confusion(
    scored: Sequence[CaseScores], class_names: Sequence[str]
) -> dict[str, Any]:
    """Add the confusion matrices of all cases.

    Args:
        scored: scores of each case.
        class_names: name of each class index.

    Returns: ``classes``, their names, and ``pixels``: a row for each labelled class
        with the number of pixels of each predicted class.
    """
    total = np.sum([case.confusion for case in scored], axis=0)
    return {"classes": list(class_names), "pixels": total.tolist()}


def pooled_reliability(scored: Sequence[CaseScores]) -> dict[str, Any]:
    """The reliability curve over the pixels of all cases, if there is one."""
    found = [case.reliability for case in scored if case.reliability is not None]
    if not found:
        return {}
    sums = Reliability(*(np.sum(parts, axis=0) for parts in zip(*found, strict=True)))
    return {
        "reliability": {
            "ece": number(float(expected_calibration_error(sums))),
            "bins": reliability_curve(sums),
        }
    }
