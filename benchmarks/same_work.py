"""Checks that both sides do the same work; a pair that differs is not timed."""

import pathlib
from collections.abc import Mapping
from typing import Any

import numpy as np


class OtherWorkError(Exception):
    """The two sides of a pair do different work."""


def check_facts(ours: Mapping[str, Any], peer: Mapping[str, Any]) -> None:
    """Refuse sides whose facts differ.

    Args:
        ours: facts of our side, such as parameters and shapes.
        peer: facts of the peer.

    Raises:
        OtherWorkError: a fact differs, or only one side has it.
    """
    for key in sorted({*ours, *peer}):
        if key not in ours or key not in peer or ours[key] != peer[key]:
            raise OtherWorkError(
                f"{key}: found {ours.get(key)!r} in ours and {peer.get(key)!r} in the "
                "peer's; expected them equal"
            )


def check_outputs(
    ours: pathlib.Path, peer: pathlib.Path, tolerances: Mapping[str, float]
) -> dict[str, dict[str, float]]:
    """Refuse sides whose results differ.

    Args:
        ours: npz file of our side.
        peer: npz file of the peer.
        tolerances: largest allowed difference of each array, as a fraction of its
            largest value, or of 1 where all values are smaller.

    Returns:
        Difference ``found`` and difference ``allowed`` of each array.

    Raises:
        OtherWorkError: an array is missing, has another shape, or differs too much.
    """
    with np.load(ours) as own, np.load(peer) as theirs:
        arrays = [dict(own), dict(theirs)]
    differences = {}
    for name, allowed in tolerances.items():
        if any(name not in side for side in arrays):
            raise OtherWorkError(
                f"{name}: found it on one side only; expected it on both"
            )
        first, second = (side[name].astype(np.float64) for side in arrays)
        if first.shape != second.shape:
            raise OtherWorkError(
                f"{name}: found shape {first.shape} in ours and {second.shape} in the "
                "peer's; expected them equal"
            )
        scale = max(1.0, float(np.abs(second).max()))
        found = float(np.abs(first - second).max()) / scale
        if not found <= allowed:  # also refuses NaN
            raise OtherWorkError(
                f"{name}: the two sides differ by {found:.3g} of the largest value; "
                f"expected at most {allowed:g}"
            )
        differences[name] = {"found": found, "allowed": allowed}
    return differences
