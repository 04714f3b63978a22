"""Joins slices that are separate files into volumes."""

import re
from collections.abc import Sequence

from unet_jax.data.files.formats import format_of
from unet_jax.data.folder.pairing import Layout, Pair
from unet_jax.errors import named_files, setting

_NUMBER = re.compile(r"(\d+)\D*$")


def stack_slices(layout: Layout) -> Layout:
    """Make one case of the pictures in each patient's folder.

    The last number in a file's name is the position of its slice: 2 comes before 10.
    NIfTI and other files of volumes stay as they are.

    Returns:
        Pairs of kind "slices", one per patient. A slice without a mask, outside of a
        patient's folder or with several channels becomes a stack of its own, so that
        its files are examined too; these slices, and slices with no or a repeated
        number, are among the problems.
    """
    patients: dict[str, list[Pair]] = {}
    kept: list[Pair] = []
    outside: list[str] = []
    channels: list[str] = []
    for pair in layout.pairs:
        if format_of(pair.images[0]).volumes:
            kept.append(pair)
        elif len(pair.masks) == len(pair.images) == 1 and pair.patient:
            patients.setdefault(pair.patient, []).append(pair)
        else:
            first = pair.images[:1], pair.masks[:1]
            kept.append(pair._replace(kind="slices", images=first[0], masks=first[1]))
            if len(pair.images) > 1 or len(pair.masks) > 1:
                channels.append(str(pair.images[0]))
            elif not pair.patient:
                outside.append(str(pair.images[0]))
    problems = [
        f"{named_files(files)}: {what}; expected the slices of each patient in a "
        f"folder, because data.stack is True; give {setting('data.stack', False)} to "
        "score each picture by itself"
        for files, what in ((outside, "in no folder"), (channels, "of several files"))
        if files
    ]
    gaps = 0
    for patient, pairs in patients.items():
        ordered, gap, wrong = _in_order(pairs)
        gaps += gap
        problems += wrong
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
    return layout._replace(
        pairs=pairs_by_id, note=note, problems=(*layout.problems, *problems)
    )


def _in_order(pairs: Sequence[Pair]) -> tuple[list[Pair], bool, list[str]]:
    """Sort the slices of a patient, and find gaps and problems of their numbers."""
    numbers: dict[int, Pair] = {}
    others: list[Pair] = []
    problems = []
    for pair in pairs:
        match = _NUMBER.search(pair.id.rpartition("/")[2])
        if match is None:
            others.append(pair)
            problems.append(
                f"{pair.images[0]}: no number in its name; expected the number of the "
                "slice, because data.stack is True; rename it, or give "
                f"{setting('data.stack', False)}"
            )
            continue
        other = numbers.setdefault(int(match[1]), pair)
        if other is not pair:
            others.append(pair)
            problems.append(
                f"{pair.images[0]}: slice {int(match[1])} is also "
                f"{other.images[0].name}; expected each number once in a folder; "
                "rename or remove one"
            )
    order = sorted(numbers)
    gap = bool(order) and order[-1] - order[0] >= len(order)
    return [numbers[number] for number in order] + others, gap, problems
