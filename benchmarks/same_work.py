"""Do both sides do the same work? What is refused here is not timed."""

import pathlib
from collections.abc import Mapping
from typing import Any

import numpy as np


class OtherWorkError(Exception):
    """The two sides of a pair do not do the same."""


def check_facts(ours: Mapping[str, Any], peer: Mapping[str, Any]) -> None:
    """Refuse sides that differ in what they say of themselves.

    Args:
        ours: facts of our side, such as parameters and shapes.
        peer: those of the peer.

    Raises:
        OtherWorkError: a fact differs, or one side has it alone.
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
        peer: that of the peer.
        tolerances: for each array the largest difference that is let pass, as a share
            of the largest value, or of 1 where all are smaller.

    Returns:
        For each array the difference ``found`` and the one ``allowed``.

    Raises:
        OtherWorkError: an array is missing, of another shape, or too far off.
    """
    with np.load(ours) as own, np.load(peer) as theirs:
        arrays = [dict(own), dict(theirs)]
    differences = {}
    for name, allowed in tolerances.items():
        if any(name not in side for side in arrays):
            raise OtherWorkError(
                f"{name}: not shown by both sides; expected it of both"
            )
        first, second = (side[name].astype(np.float64) for side in arrays)
        if first.shape != second.shape:
            raise OtherWorkError(
                f"{name}: found shape {first.shape} in ours and {second.shape} in the "
                "peer's; expected them equal"
            )
        scale = max(1.0, float(np.abs(second).max()))
        found = float(np.abs(first - second).max()) / scale
        if not found <= allowed:  # NaN is no agreement either
            raise OtherWorkError(
                f"{name}: the two sides differ by {found:.3g} of the largest value; "
                f"expected at most {allowed:g}"
            )
        differences[name] = {"found": found, "allowed": allowed}
    return differences
