"""Turns the scores of a case into JSON and back without losing a bit."""

from typing import Any

import numpy as np

from unet_jax.evaluation.case_scores import CaseScores
from unet_jax.metrics.calibration import Reliability
from unet_jax.metrics.overlap import ConfusionCounts


def pack_scores(scores: CaseScores) -> dict[str, Any]:
    """Turn the scores of a case into nested lists and dicts for JSON.

    Args:
        scores: scores of a case; they may hold NaN.

    Returns: Nested lists and dicts.

    Example:
        >>> from unet_jax.metrics.overlap import ConfusionCounts
        >>> one = np.array([[1]])
        >>> scores = CaseScores({"dice": np.array([0.1])}, {"ece": 0.2},
        ...     ConfusionCounts(one, one, one, one), None, {}, None, one)
        >>> unpack_scores(pack_scores(scores)).by_class
        {'dice': array([0.1])}
    """
    return {
        "by_class": _lists(scores.by_class),
        "whole": {name: float(value) for name, value in scores.whole.items()},
        "counts": [np.asarray(count).tolist() for count in scores.counts],
        "slices": None if scores.slices is None else _lists(scores.slices),
        "sizes": _lists(scores.sizes),
        "reliability": (
            None
            if scores.reliability is None
            else [np.asarray(sums).tolist() for sums in scores.reliability]
        ),
        "confusion": scores.confusion.tolist(),
        "labelled": None if scores.labelled is None else scores.labelled.tolist(),
    }


def unpack_scores(packed: dict[str, Any]) -> CaseScores:
    """Undo `pack_scores`, also after a round trip through JSON."""
    slices, reliability = packed["slices"], packed["reliability"]
    labelled = packed["labelled"]
    return CaseScores(
        by_class=_arrays(packed["by_class"]),
        whole=dict(packed["whole"]),
        counts=ConfusionCounts(
            *(np.array(count, np.int64) for count in packed["counts"])
        ),
        slices=None if slices is None else _arrays(slices),
        sizes=_arrays(packed["sizes"]),
        reliability=(
            None
            if reliability is None
            else Reliability(*(np.array(sums, np.float64) for sums in reliability))
        ),
        confusion=np.array(packed["confusion"], np.int64),
        labelled=None if labelled is None else np.array(labelled),
    )


def _lists(columns: dict[str, np.ndarray]) -> dict[str, Any]:
    """Arrays as lists of Python floats, which JSON keeps exactly."""
    return {name: np.asarray(v, np.float64).tolist() for name, v in columns.items()}


def _arrays(columns: dict[str, Any]) -> dict[str, np.ndarray]:
    """Lists as arrays."""
    return {name: np.array(v, np.float64) for name, v in columns.items()}
