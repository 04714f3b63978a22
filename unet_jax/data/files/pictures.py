"""PNG, JPEG and BMP: pixels for images, values for masks."""

from pathlib import Path

import numpy as np
from PIL import ExifTags, Image, ImageFile

from unet_jax.data.files.stored import upright

_GREY_STEPS = {"L;2": 85, "L;4": 17}
"""What Pillow multiplies the greys of a PNG of few bits by."""


def read_picture(path: Path, *, indices: bool = False) -> np.ndarray:
    """Decode PNG, JPEG or BMP, upright.

    Args:
        path: the file.
        indices: give the indices of a palette and the values of a picture of 1, 2 or 4
            bits, as a mask means them, instead of colours and 0 to 255.

    Returns:
        ``(height, width, channels)`` without alpha.
    """
    with Image.open(path, formats=("PNG", "JPEG", "BMP")) as picture:
        raw = picture.tile[0].args if picture.format == "PNG" else None
        orientation = picture.getexif().get(ExifTags.Base.Orientation, 1)
        packed = _packed_bmp(path, picture)
        if packed is not None:
            white = 255 if picture.mode == "1" and not indices else 1
            pixels = packed * np.uint8(white)
        elif indices and raw in _GREY_STEPS:
            pixels = np.asarray(picture) // np.uint8(_GREY_STEPS[str(raw)])
        elif indices and picture.mode in ("P", "PA", "1"):
            pixels = np.asarray(picture.getchannel(0)).astype(np.uint8)
            pixels = pixels if picture.mode != "1" else (pixels > 0).astype(np.uint8)
        elif raw in ("RGB;16B", "RGBA;16B", "LA;16B"):
            pixels = _read_deep_png(path, str(raw))
        elif picture.mode in ("L", "RGB", "I;16", "I"):
            pixels = np.asarray(picture)
        elif picture.mode in ("1", "LA"):
            pixels = np.asarray(picture.convert("L"))
        elif picture.mode in ("P", "PA", "RGBA"):
            # A palette may carry transparency, which only RGBA takes in.
            pixels = np.asarray(picture.convert("RGBA"))[..., :3]
        else:
            pixels = np.asarray(picture.convert("RGB"))
    return upright(pixels if pixels.ndim == 3 else pixels[..., None], orientation)


def _packed_bmp(path: Path, picture: ImageFile.ImageFile) -> np.ndarray | None:
    """Decode a BMP whose bits a pixel Pillow mistakes, since its palette is grey.

    A palette of 0, 1, 2, ... or of black and white is dropped as saying nothing; but
    then the pixels are taken for 8 bits, or for 1, whatever they have.

    Args:
        path: the file.
        picture: the same file, opened.

    Returns:
        ``(height, width)`` indices; None for every other picture.
    """
    if picture.format != "BMP" or picture.mode not in ("1", "L"):
        return None
    content, tile = path.read_bytes(), picture.tile[0]
    # The short header of OS/2 has 12 bytes, and sizes of 2.
    at = 24 if content[14] == 12 else 28
    bits = int.from_bytes(content[at : at + 2], "little")
    if tile.codec_name != "raw" or bits == {"1": 1, "L": 8}[picture.mode]:
        return None
    assert isinstance(tile.args, tuple)
    indices = Image.frombytes(
        "P",
        picture.size,
        content[tile.offset :],
        "raw",
        {1: "P;1", 4: "P;4", 8: "P"}[bits],
        *tile.args[1:],
    )
    return np.asarray(indices)


def _read_deep_png(path: Path, raw: str) -> np.ndarray:
    """Decode a 16-bit colour PNG; Pillow keeps the high byte only, so ask twice."""
    halves = {"LA;16B": ("RGBA",)}.get(raw, (raw, raw.replace("16B", "16L")))
    decoded = []
    for half in halves:
        with Image.open(path, formats=("PNG",)) as picture:
            # Decoding as little endian gives the low byte.
            picture.tile = [picture.tile[0]._replace(args=half)]
            decoded.append(np.asarray(picture).astype(np.uint16))
    if raw == "LA;16B":
        # Four bytes a pixel: grey high, grey low, alpha high, alpha low.
        return decoded[0][..., 0] * 256 + decoded[0][..., 1]
    return (decoded[0] * 256 + decoded[1])[..., :3]
