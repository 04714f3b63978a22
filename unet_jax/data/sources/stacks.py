"""Slices that are files of their own, as the volume that they are."""

import re
from collections.abc import Sequence

from unet_jax.data.sources.folder_layout import Layout, Pair
from unet_jax.errors import InputError

_NUMBER = re.compile(r"(\d+)\D*$")


def stack_slices(layout: Layout) -> Layout:
    """Make one case of the pictures of each patient's folder.

    The last number of a file's name is the place of its slice: 2 comes before 10. NIfTI
    files are volumes already and stay as they are.

    Args:
        layout: pairs of pictures.

    Returns:
        Pairs of kind "slices", a patient each; a slice without a mask stays a pair of
        its own, and so becomes a fault.

    Raises:
        InputError: a picture lies in no patient's folder, has no number, or the number
            of another.
    """
    patients: dict[str, list[Pair]] = {}
    kept: list[Pair] = []
    for pair in layout.pairs:
        if not pair.masks or pair.images[0].name.lower().endswith((".nii", ".nii.gz")):
            kept.append(pair)
            continue
        if not pair.patient or len(pair.images) > 1:
            what = "one of several channels" if pair.patient else "in no folder"
            raise InputError(
                f"{pair.images[0]}: is {what}; expected the slices of each patient in "
                "a folder, since data.stack=True; set data.stack=False to score each "
                "picture by itself"
            )
        patients.setdefault(pair.patient, []).append(pair)
    gaps = 0
    for patient, pairs in patients.items():
        numbers = _numbers(pairs)
        order = sorted(numbers)
        gaps += order[-1] - order[0] >= len(order)
        ordered = [numbers[number] for number in order]
        kept.append(
            Pair(
                id=patient,
                patient=patient,
                images=tuple(pair.images[0] for pair in ordered),
                masks=tuple(pair.masks[0] for pair in ordered),
                kind="slices",
            )
        )
    note = f"{layout.note}; the slices of a folder are one volume"
    if gaps:
        note += f" ({gaps} of {len(patients)} have gaps in their numbers)"
    pairs_by_id = tuple(sorted(kept, key=lambda pair: pair.id))
    return layout._replace(pairs=pairs_by_id, note=note)


def _numbers(pairs: Sequence[Pair]) -> dict[int, Pair]:
    """Find the place of each slice of a patient."""
    numbers: dict[int, Pair] = {}
    for pair in pairs:
        match = _NUMBER.search(pair.id.rpartition("/")[2])
        if match is None:
            raise InputError(
                f"{pair.images[0]}: no number in its name; expected that of the slice, "
                "since data.stack=True; rename it, or set data.stack=False"
            )
        other = numbers.setdefault(int(match[1]), pair)
        if other is not pair:
            raise InputError(
                f"{pair.images[0]}: slice {int(match[1])} is also "
                f"{other.images[0].name}; expected a number once in a folder"
            )
    return numbers
