"""Reads PNG, JPEG, BMP and GIF, as pixels of images or values of masks; writes PNG."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import ExifTags, Image, ImageFile

from unet_jax.data.files.stored import Color, StoredImage, transparent_pixels
from unet_jax.errors import InputError

_GREY_STEPS = {"L;2": 85, "L;4": 17}
"""Factors by which Pillow multiplies the greys of a PNG of few bits."""


def read_picture(
    path: Path, axes: str | None = None, indices: bool = False
) -> StoredImage:
    """Decode PNG, JPEG, BMP or a GIF of one frame as stored, not yet upright.

    The colours of a GIF are read, never its indices: programs sort them as they like,
    so that index 0 is black in one file and white in another.

    Args:
        indices: whether to return the indices of a palette, and the values of 1, 2 or 4
            bits, as masks need them, instead of colours and values up to 255.

    Returns:
        A picture ``(height, width, channels)`` without alpha.
    """
    with Image.open(path, formats=("PNG", "JPEG", "BMP", "GIF")) as picture:
        _check_frames(path, picture)
        mode = picture.mode
        raw = picture.tile[0].args if picture.format == "PNG" else None
        orientation = picture.getexif().get(ExifTags.Base.Orientation, 1)
        packed, alpha = _packed_bmp(path, picture), None
        indices = indices and picture.format != "GIF"
        colors = _colors(picture) if indices else {}
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
        elif picture.mode in ("L", "RGB", "I;16", "I", "LA"):
            pixels = np.asarray(picture)
        elif picture.mode == "1":
            pixels = np.asarray(picture.convert("L"))
        elif picture.mode == "P":
            # A palette may carry transparency, which only RGBA takes in. An index has
            # one colour, so that transparency hides nothing.
            pixels = np.asarray(picture.convert("RGBA"))[..., :3]
        elif picture.mode in ("PA", "RGBA"):
            pixels = np.asarray(picture.convert("RGBA"))
        else:
            pixels = np.asarray(picture.convert("RGB"))
    pixels = pixels if pixels.ndim == 3 else pixels[..., None]
    if pixels.shape[-1] in (2, 4):
        pixels, alpha = pixels[..., :-1], pixels[..., -1]
    return StoredImage(
        path,
        pixels,
        None,
        None,
        "picture",
        orientation=orientation,
        transparent=None if alpha is None else transparent_pixels(alpha),
        colors=colors,
        tags={"photometric": mode},
    )


def _colors(picture: ImageFile.ImageFile) -> dict[int, Color]:
    """Return the colour of each index of a palette, and of the values of one bit."""
    if picture.mode == "1":
        return {0: (0, 0, 0), 1: (255, 255, 255)}
    if picture.mode not in ("P", "PA"):
        return {}
    parts = picture.getpalette("RGB") or []
    rows = zip(parts[::3], parts[1::3], parts[2::3], strict=True)
    return dict(enumerate(rows))


def _check_frames(path: Path, picture: ImageFile.ImageFile) -> None:
    """Refuse a film."""
    frames = getattr(picture, "n_frames", 1) if picture.format == "GIF" else 1
    if frames > 1:
        raise InputError(
            f"{path}: {frames} frames; expected a single picture; save the frames as "
            "PNG files"
        )


def _packed_bmp(path: Path, picture: ImageFile.ImageFile) -> np.ndarray | None:
    """Decode a BMP whose bits per pixel Pillow mistakes because its palette is grey.

    Pillow drops a palette of 0, 1, 2, ... or of black and white, and then reads the
    pixels as 8 bits, or as 1, whatever they are.
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
    """Decode a 16-bit colour PNG twice, because Pillow keeps only the high byte."""
    halves = {"LA;16B": ("RGBA",)}.get(raw, (raw, raw.replace("16B", "16L")))
    decoded = []
    for half in halves:
        with Image.open(path, formats=("PNG",)) as picture:
            # Decoding as little endian gives the low byte.
            picture.tile = [picture.tile[0]._replace(args=half)]
            decoded.append(np.asarray(picture).astype(np.uint16))
    if raw == "LA;16B":
        # Four bytes per pixel: grey high, grey low, alpha high, alpha low.
        return decoded[0][..., ::2] * 256 + decoded[0][..., 1::2]
    return decoded[0] * 256 + decoded[1]


def write_palette_png(
    path: Path, labels: np.ndarray, stored: StoredImage, palette: Sequence[Color]
) -> None:
    """Write uint8 ``(height, width)`` as a palette PNG: class and colour in one."""
    height, width = labels.shape
    picture = Image.frombytes("P", (width, height), labels.tobytes())
    picture.putpalette([part for color in palette for part in color])
    picture.save(path)
