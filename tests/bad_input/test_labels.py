"""Tests masks that cannot be read or have values of no class."""

import numpy as np
import pytest

from tests.bad_input.contents import (
    GREY,
    MANY,
    NOT_FINITE,
    not_finite,
    picture,
    tiff,
    tiff_axes,
)
from tests.bad_input.given import READ_DATA, SIZE, one_problem, train_command

pytestmark = pytest.mark.slow  # some 300 commands in all

GOOD = np.zeros((SIZE, SIZE), np.uint8)
GOOD[4:14, 5:18] = 1
_MASK = "{here}/data/masks/2"
_GAP = (
    "masks: the values {} ({} only in {}); expected 0 to the largest class without "
    "a gap, or a label map, in this order, or another (-1 to ignore a value): "
    "--config.data.label_map='{}'"
)
BAD_MASKS = {
    "out of range": (
        ".png",
        picture("PNG", GOOD * 7),
        _GAP.format("0, 1, 7", 7, f"{_MASK}.png", "((0, 0), (1, 1), (7, 2))"),
    ),
    "negative": (
        ".tif",
        tiff(-GOOD.astype(np.int16)),
        _GAP.format("-1, 0, 1", -1, f"{_MASK}.tif", "((0, 0), (1, 1), (-1, -1))"),
    ),
    "fractions": (
        ".tif",
        tiff(GOOD.astype(np.float32) / 2),
        f"{_MASK}.tif: 130 of 576 values are no whole numbers, such as 0.5; expected "
        "the class of every pixel; save the mask without interpolation",
    ),
    "NaN": (
        ".tif",
        tiff(not_finite(np.nan)),
        f"{_MASK}.tif: {NOT_FINITE}",
    ),
    "another size": (
        ".png",
        picture("PNG", GOOD[:20]),
        f"{_MASK}.png: size (20, 24); expected (24, 24) as 2.png; export both on one "
        "grid",
    ),
    "5 channels": (
        ".tif",
        tiff(MANY, **tiff_axes("CYX")),
        f"{_MASK}.tif: 5 channels; expected one value per pixel, or red, green and "
        "blue; save one mask per file",
    ),
    "blurred by JPEG": (
        ".jpg",
        picture("JPEG", (np.hypot(*np.indices(GREY.shape)) * 7).astype(np.uint8)),
        f"{_MASK}.jpg: <any> different values; expected at most 2 in a JPEG, which "
        "blurs the edges of a mask into values of no class; save masks as PNG or "
        "lossless TIFF",
    ),
    "empty": (
        ".png",
        b"",
        f"{_MASK}.png: is empty (0 bytes); expected PNG; copy it again",
    ),
    "missing": (
        ".txt",
        b"",
        "{here}/data/images/2.png: no mask has its name; add the mask, move the image "
        "away, or list the cases of the run in data.splits",
    ),
}


@pytest.mark.parametrize("name", BAD_MASKS)
@pytest.mark.parametrize("mode", READ_DATA)
def test_a_mask_that_is_none(place, refused, mode, name):
    suffix, content, line = BAD_MASKS[name]
    (place / "data/masks/2.png").unlink()
    (place / f"data/masks/2{suffix}").write_bytes(content)
    if mode != "train" and line.startswith("masks:"):
        found = line.partition("values ")[2].partition(" (")[0]
        line = (
            f"{_MASK}{suffix}: the label has the values {found}, expected 0, 1; give "
            "every stored value its class (-1 to ignore it), to ignore <any>, set "
            "--config.data.label_map=<any>"
        )
    one_problem(refused, mode, place, line)


@pytest.mark.parametrize("mode", READ_DATA)
def test_a_mask_without_an_image(place, refused, mode):
    (place / "data/images/2.png").unlink()
    line = (
        "{here}/data/masks/2.png: no image has its name; add the image, or move "
        "the mask away"
    )
    if mode != "train":  # the run has its splits on record
        line = (
            "data.path {here}/data: case 2 of the run is gone; expected every case of "
            "its recorded splits; put the files back"
        )
    one_problem(refused, mode, place, line)


def test_labels_that_are_all_ignored(place, refused):
    line = (
        "class 0 (a): no training case has it; expected at least one; fix "
        "data.class_names, data.label_map or the split"
    )
    head = f"data.path {place / 'data'}: found 2 problems; please fix all of them:"
    refused(
        f"{head}\n  {line}\n  {line.replace('0 (a)', '1 (b)')}",
        *train_command(place),
        "--config.data.label_map=((0,-1),(1,-1))",
        "--config.data.class_names=('a','b')",
        workdir=place / "new",
    )
