"""Makes contents of files, intact and damaged."""

import io
from pathlib import Path

import nibabel
import numpy as np
import tifffile
from PIL import Image

from tests.bad_input.given import SIZE

GREY = np.arange(SIZE * SIZE, dtype=np.uint8).reshape(SIZE, SIZE)
RGB = np.zeros((SIZE, SIZE, 3), np.uint8)
MANY = np.zeros((5, SIZE, SIZE), np.uint8)
NOT_FINITE = (
    "3 of 576 values are NaN or infinite; expected finite numbers; replace them, e.g. "
    "with numpy.nan_to_num, and save again"
)


class Malicious:
    """Creates the file ``malicious`` when its pickle is loaded."""

    def __reduce__(self):
        return open, (str(Path.cwd() / "malicious"), "w")


def picture(form, pixels=GREY):
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, form)
    return buffer.getvalue()


def tiff(pixels=GREY, **options):
    buffer = io.BytesIO()
    tifffile.imwrite(buffer, pixels, **options)
    return buffer.getvalue()


def tiff_axes(names):
    return {"photometric": "minisblack", "metadata": {"axes": names}}


def nifti(*shape, dtype=np.int16):
    return nibabel.Nifti1Image(np.zeros(shape, dtype), np.eye(4)).to_bytes()


def not_finite(value):
    pixels = np.ones((SIZE, SIZE), np.float32)
    pixels[0, :3] = value
    return pixels
