"""Holds the values that are tried of each parameter of each method, and the bounds."""

from typing import Any

_CHANNELS = 4
"""Number of channels that are tried one by one, beside their mean."""

_NAMING: dict[str, tuple[Any, ...]] = {
    "texture": (False, True),
    "scale": ("stored", "image"),
}
_CONTOURS: dict[str, tuple[Any, ...]] = {
    **_NAMING,
    "threshold": (0.05, 0.01, 0.02, 0.1, 0.2, 0.4),
    "closing": (0, 1, 2),
    "sigma": (0.0, 1.0, 2.0),
    "fill": (False, True),
}
_BASINS: dict[str, tuple[Any, ...]] = {
    **_NAMING,
    "threshold": (0.05, 0.01, 0.02, 0.1, 0.2),
    "sigma": (0.0, 1.0, 2.0),
    "fill": (False, True),
}
_WINDOWS = (51, 11, 25, 101)
_BOXES = (*_WINDOWS, 201)  # the time of a box does not grow with it
_MASKS = ("all", "nonzero")

GRIDS: dict[str, dict[str, tuple[Any, ...]]] = {
    "manual_threshold": {},
    "otsu": {"mask": _MASKS, "scope": ("image", "training")},
    "adaptive_gaussian": {"window": _WINDOWS, "mask": _MASKS},
    "adaptive_mean": {"window": _BOXES, "mask": _MASKS},
    "niblack": {"window": _BOXES, "mask": _MASKS},
    "sauvola": {"window": _BOXES, "mask": _MASKS},
    "sobel": _CONTOURS,
    "prewitt": _CONTOURS,
    "log": {**_CONTOURS, "sigma": (1.0, 0.7, 2.0)},
    "canny": _CONTOURS,
    "watershed": _BASINS,
    "discontinuity": {
        "feature": ("intensity", "color", "std", "structure"),
        **_BASINS,
        "sigma": (0.3, 0.6, 1.0, 2.0),
    },
    "region_growing": {
        "tolerance": (2.0, 0.5, 1.0, 3.0, 5.0),
        "fraction": (0.2, 0.05, 0.5, 0.8),
        "rest": ("nearest", "background"),
        "scale": ("stored", "image"),
    },
    "split_and_merge": {
        "split": (0.3, 0.1, 0.6),
        "merge": (0.3, 0.1, 0.6, 1.0),
        "min_size": (1, 2),
        **_NAMING,
    },
    "kmeans": {"scope": ("training", "image"), "scale": ("stored", "image")},
    "kmeans_position": {"k": (32, 16, 64), "weight": (1.0, 0.3, 3.0), **_NAMING},
}
"""Values by method and parameter; the search begins with the first of each. `grid_of`
adds what depends on the data."""


def grid_of(
    name: str, *, num_classes: int, channels: int, one_scale: bool = False
) -> dict[str, tuple[Any, ...]]:
    """Return the values to try of each parameter of a method.

    Args:
        one_scale: whether all images are parts of one scan, where "stored" and "image"
            mean the same.

    Returns:
        The committed grid, and what depends on the data: numbers of levels and
        clusters near the number of classes; each channel and their mean where there are
        several; colour spaces where there are three channels.
    """
    grid = dict(GRIDS[name])
    if name == "otsu":
        levels = (num_classes, num_classes - 1, num_classes + 1)
        grid["levels"] = tuple(count for count in levels if count >= 2)
    if name == "kmeans":
        grid["k"] = tuple(num_classes * n // 2 for n in (2, 3, 4, 8))
    if name in ("manual_threshold", "otsu", "niblack", "sauvola") or name.startswith(
        "adaptive"
    ):
        single = tuple(range(min(channels, _CHANNELS)))
        # First, since no other value helps on a channel that shows nothing.
        tried = single if channels == 1 else ("mean", *single)
        grid = {"channel": tried, **grid}
    if one_scale and "scale" in grid:
        grid["scale"] = grid["scale"][:1]
    if name.startswith("kmeans"):
        grid = {"space": ("rgb", "lab", "hsv") if channels == 3 else ("rgb",), **grid}
    if name == "discontinuity" and channels == 1:
        # One channel has no colour: its changes are those of intensity.
        grid["feature"] = tuple(f for f in grid["feature"] if f != "color")
    return grid


CUTS = {
    "manual_threshold": "thresholds",
    "adaptive_gaussian": "offsets",
    "adaptive_mean": "offsets",
    "niblack": "k",
    "sauvola": "k",
}
"""Name of the cuts of a method. They are fitted by `fit_levels`, or given as a tuple of
numbers."""

RENAMED = {
    "region_growing": {"share": "fraction"},
    "discontinuity": {"deviation": "std"},
}
"""Former name of a parameter or value -> its name; read until version 0.3."""

BOUNDS: dict[str, tuple[float, float, type]] = {
    "threshold": (0.0, 1.0, float),
    "sigma": (0.0, 100.0, float),
    "closing": (0, 20, int),
    "window": (3, 9999, int),
    "levels": (2, 32, int),
    "k": (1, 10_000, int),
    "weight": (0.0, 1e6, float),
    "tolerance": (0.0, 1e9, float),
    "fraction": (0.0, 1.0, float),
    "split": (0.0, 1e9, float),
    "merge": (0.0, 1e9, float),
    "min_size": (1, 1024, int),
}
"""Smallest and largest value that a config may give, and its type."""
