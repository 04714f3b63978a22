"""Checks what the files of a set say about their numbers against each other.

A palette, an orientation and a nodata value give numbers a meaning. Where two files
give them different ones, nothing here chooses: the problem names both readings and the
key that decides.
"""

import math
from collections import Counter
from collections.abc import Sequence

from unet_jax.data.case import IGNORE
from unet_jax.data.case_traits import CaseTraits
from unet_jax.data.files.stored import Color
from unet_jax.data.folder.options import ReadOptions
from unet_jax.data.label_map import Entry
from unet_jax.errors import named_files, setting

_PROPOSED = 24


def palette_problems(cases: Sequence[CaseTraits], options: ReadOptions) -> list[str]:
    """Find a value that has one colour in some masks and another in others."""
    if options.palette or options.palette_indices:
        return []
    found: dict[int, dict[Color, list[str]]] = {}
    for case in cases:
        for value, color, mask in case.colors:
            found.setdefault(value, {}).setdefault(color, []).append(mask)
    for value, files in sorted(found.items()):
        if len(files) > 1:
            (one, first), (two, second), *_ = files.items()
            return [
                f"masks: the value {value} has the colour {one} in "
                f"{named_files(first)}, and {two} in {named_files(second)}; expected "
                f"one colour for a value; {_by_color(cases)}to read the values in "
                "spite of the colours set --config.data.palette_indices=True"
            ]
    return []


def _by_color(cases: Sequence[CaseTraits]) -> str:
    """Propose a palette, the most frequent colour first."""
    counts: Counter[Color] = Counter()
    for case in cases:
        stated = {value: color for value, color, _ in case.colors}
        several = len({mask for _, _, mask in case.colors}) > 1
        for value, pixels in case.values.items():
            grey = min(max(value, 0), 255)
            # The pixels of the values of several slices are counted together.
            if several:
                counts.update(color for one, color, _ in case.colors if one == value)
            else:
                counts[stated.get(value, (grey, grey, grey))] += pixels
    if len(counts) > _PROPOSED:
        return ""
    palette = tuple(color for color, _ in counts.most_common())
    return f"to read by colour set {setting('data.palette', palette)}, "


def orientation_problems(
    cases: Sequence[CaseTraits], options: ReadOptions
) -> list[str]:
    """Find turned images whose masks fit both upright and stored pixels.

    One image whose mask fits the upright pixels only shows how all masks were drawn.
    """
    if options.orientation or any(case.turned == "upright" for case in cases):
        return []
    doubtful = [case.images[0] for case in cases if case.turned == "unclear"]
    if not doubtful:
        return []
    return [
        f"{named_files(doubtful)}: the EXIF or TIFF orientation turns the image, but "
        "not its mask, whose size fits both readings; expected a mask that fits one; "
        "set --config.data.orientation=upright if masks lie on the image as a viewer "
        "shows it, or --config.data.orientation=stored if on the stored pixels"
    ]


def undeclared_problems(cases: Sequence[CaseTraits]) -> list[str]:
    """Find images whose lowest value others declare as missing, and they do not.

    0 is an intensity in too many files to be doubted.
    """
    declared = {case.missing: case.images[0] for case in cases if case.missing}
    found: dict[float, list[str]] = {}
    for case in cases:
        for value in declared if case.missing is None else ():
            if math.isclose(case.lowest, value, rel_tol=1e-6):
                found.setdefault(value, []).append(case.images[0])
    return [
        f"{named_files(files)}: the lowest value is {value:.6g}, which "
        f"{declared[value]} declares as missing (GDAL nodata); expected one meaning "
        f"for a value; declare it with gdal_edit.py -a_nodata {value:.9g}"
        for value, files in sorted(found.items())
    ]


def nodata_problems(
    cases: Sequence[CaseTraits], classes: Sequence[Entry], given: Sequence[Entry]
) -> list[str]:
    """Find values that masks declare as nodata, and hold, and that count as classes.

    0 stays a class: many programs declare the background of a mask as nodata.
    """
    files: dict[int, list[str]] = {}
    for case in cases:
        if case.nodata and case.nodata in case.values:
            files.setdefault(case.nodata, []).append(case.masks[0])
    if given or not files:
        return []
    value, names = next(iter(files.items()))
    ignored = tuple((key, IGNORE if key in files else to) for key, to in classes)
    return [
        f"{named_files(names)}: the value {value} is declared as nodata (GDAL), and "
        f"may be a class; to ignore it set {setting('data.label_map', ignored)}, to "
        f"keep it {setting('data.label_map', tuple(classes))}"
    ]
