"""PNG, JPEG and BMP: pixels for images, values for masks."""

from pathlib import Path

import numpy as np
from PIL import ExifTags, Image

from unet_jax.data.stored import upright


def read_picture(path: Path, *, indices: bool = False) -> np.ndarray:
    """Decode PNG, JPEG or BMP, upright.

    Args:
        path: the file.
        indices: give the indices of a palette and the 0 and 1 of a 1-bit picture, as a
            mask means them, instead of colours and 0 and 255.

    Returns:
        ``(height, width, channels)`` without alpha.
    """
    with Image.open(path, formats=("PNG", "JPEG", "BMP")) as picture:
        raw = picture.tile[0].args if picture.format == "PNG" else None
        orientation = picture.getexif().get(ExifTags.Base.Orientation, 1)
        if indices and picture.mode in ("P", "PA", "1"):
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
