"""Writes image, label and prediction of a case as small PNGs that a page can layer."""

import pathlib
from collections.abc import Sequence
from typing import Any

import numpy as np
from PIL import Image

from unet_jax.labels import IGNORE
from unet_jax.report.panels import IGNORED_COLOR, displayable, upright_slice
from unet_jax.runtime.atomic import atomic_path

SIDE = 512
"""Largest height and width of a PNG; a larger picture is reduced."""
SLICES = 8
"""Largest number of slices along each axis of a volume."""
IGNORED = 255
"""Index of ignored pixels in the PNG of a label."""

_PLANES = ("sagittal", "coronal", "axial")


def write_layers(
    folder: pathlib.Path,
    *,
    image: np.ndarray,
    label: np.ndarray,
    prediction: np.ndarray,
    slice_axis: int,
    spacing: Sequence[float] | None,
    class_colors: Sequence[Sequence[int]],
) -> list[dict[str, Any]]:
    """Write the layers of a picture, or of a few slices along each axis of a volume.

    A volume without a spacing is a stack of pictures, and sliced along one axis only.
    Among the slices is the one with the most wrong pixels.

    Args:
        folder: folder for the files.
        image: ``(*spatial, channels)``, a volume in RAS order.
        label: ``(*spatial)`` class indices or IGNORE.
        prediction: ``(*spatial)`` class indices.
        slice_axis: axis that a volume without a spacing is sliced along.
        spacing: mm of a pixel along each axis, or None.
        class_colors: red, green and blue of each class index, 0 to 255.

    Returns: An entry for each plane: ``plane`` (its name), ``axis`` (None for a
        picture), ``pixel_mm`` (height and width of a pixel, or None), ``shown`` (place
        in ``slices`` of the one with the most wrong pixels) and ``slices``, each with
        ``index``, ``wrong_pixels`` and the names of the files ``image``, ``label`` and
        ``prediction``. Empty for more than 255 classes, which such a PNG cannot hold.
    """
    if len(class_colors) > IGNORED:
        return []
    colors = np.full((256, 3), IGNORED_COLOR, np.uint8)
    colors[: len(class_colors)] = class_colors
    palette = colors.ravel().tolist()
    if label.ndim == 2:
        layers = {"image": displayable(image), "label": label, "prediction": prediction}
        files = _write(folder, "picture", layers, palette)
        row = {"index": None, "wrong_pixels": int(_wrong(label, prediction).sum())}
        pixel = None if spacing is None else [float(mm) for mm in spacing]
        head = {"plane": "picture", "axis": None, "pixel_mm": pixel, "shown": 0}
        return [{**head, "slices": [row | files]}]
    layers = {"image": image, "label": label, "prediction": prediction}
    axes = (slice_axis,) if spacing is None else (2, 1, 0)
    return [_plane(folder, layers, axis, spacing, palette) for axis in axes]


def _plane(
    folder: pathlib.Path,
    volumes: dict[str, np.ndarray],
    axis: int,
    spacing: Sequence[float] | None,
    palette: list[int],
) -> dict[str, Any]:
    """Write the layers of a few slices of a volume along an axis."""
    label, prediction = volumes["label"], volumes["prediction"]
    others = tuple(a for a in range(3) if a != axis)
    errors = _wrong(label, prediction).sum(axis=others).tolist()
    marked = np.asarray(((label > 0) | (prediction > 0)).any(axis=others))
    chosen = _chosen_slices(errors, marked)
    # One grey window for all slices.
    shown = displayable(np.take(volumes["image"], chosen, axis=axis))
    name = "slice" if spacing is None else _PLANES[axis]
    rows: list[dict[str, Any]] = []
    for place, index in enumerate(chosen):
        layers = {
            what: upright_slice(volume, at, axis, oriented=spacing is not None)
            for what, volume, at in (
                ("image", shown, place),
                ("label", label, index),
                ("prediction", prediction, index),
            )
        }
        files = _write(folder, f"{name}-{index}", layers, palette)
        rows.append({"index": index, "wrong_pixels": errors[index], **files})
    return {
        "plane": name,
        "axis": axis,
        # The first of the other axes is to the right, the second one is up.
        "pixel_mm": spacing and [float(spacing[a]) for a in others[::-1]],
        "shown": max(range(len(rows)), key=lambda i: rows[i]["wrong_pixels"]),
        "slices": rows,
    }


def _wrong(label: np.ndarray, prediction: np.ndarray) -> np.ndarray:
    """Mark the pixels whose class is wrong."""
    return np.asarray((label != prediction) & (label != IGNORE))


def _chosen_slices(errors: list[int], marked: np.ndarray) -> list[int]:
    """Spread slices over those with foreground; one has the most wrong pixels."""
    found = np.flatnonzero(marked)
    if not len(found):
        found = np.arange(len(marked))
    worst = int(np.argmax(errors)) if any(errors) else int(found[len(found) // 2])
    spread = found[np.linspace(0, len(found) - 1, SLICES).round().astype(int)]
    chosen = set(spread.tolist())
    if worst not in chosen:
        chosen.remove(min(chosen, key=lambda index: abs(index - worst)))
        chosen.add(worst)
    return sorted(chosen)


def _write(
    folder: pathlib.Path,
    name: str,
    layers: dict[str, np.ndarray],
    palette: list[int],
) -> dict[str, str]:
    """Write the layers of one slice; return the name of each file."""
    files = {}
    for what, layer in layers.items():
        files[what] = f"{name}-{what}.png"
        with atomic_path(folder / files[what]) as temporary:
            _as_png(layer, palette).save(temporary, format="PNG", optimize=True)
    return files


def _as_png(layer: np.ndarray, palette: list[int]) -> Image.Image:
    """Make a grey, RGB or indexed picture of at most `SIDE` pixels."""
    factor = max(1.0, max(layer.shape[:2]) / SIDE)
    height, width = (max(1, round(side / factor)) for side in layer.shape[:2])
    if layer.ndim == 3:
        pixels = np.round(255 * layer).astype(np.uint8)
        is_grey = bool((pixels == pixels[..., :1]).all())
        picture = Image.fromarray(pixels[..., 0] if is_grey else pixels)
        return picture.resize((width, height), Image.Resampling.BOX)
    # IGNORE is -1, which becomes 255.
    picture = Image.fromarray(layer.astype(np.int16).astype(np.uint8))
    picture.putpalette(palette)
    return picture.resize((width, height), Image.Resampling.NEAREST)
