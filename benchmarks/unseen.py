"""Scores a trained run on the scan of a person that it has never seen.

    python -m benchmarks.unseen IMAGE LABEL --workdir=runs/brain

IMAGE is a T1 scan with the skull on and LABEL its label map on the same grid: 0 other,
1 cortical grey matter, 2 inside of the white surface (white matter, deep grey matter,
ventricles), as FreeSurfer's surfaces give it. Predicted white matter is right inside,
and so are grey matter and fluid where they lie more than 3 mm inside of the surface.

Each row is the scan as another scanner might have given it. "stripped" has zeros
farther than 3 mm from the label.
"""

import argparse
import time
from collections.abc import Callable, Iterator
from typing import NamedTuple

import nibabel
import numpy as np
from scipy import ndimage

import unet_jax
from unet_jax.errors import InputError

Predict = Callable[[np.ndarray, tuple[float, ...]], np.ndarray]

_DEEP_MM = 3.0  # from the white surface inwards, where grey matter and fluid are right
_STRIP_MM = 3.0  # from the label outwards, what a stripped scan keeps
_FAR_MM = 10.0  # from the label outwards, where no tissue may be found

_FLUID, _GREY, _WHITE = ((1.0, 2569, 329), (0.86, 833, 83), (0.77, 500, 70))
"""Proton density, and T1 and T2 in ms at 1.5 T.

Source: BrainWeb's phantom (Kwan et al. 1999, doi:10.1109/42.816072).
"""
_REPETITION_MS = 3300  # of BrainWeb's spin echoes; echoes of 120 (T2) and 35 (PD)


class Scan(NamedTuple):
    """An image, its label and the millimetres of a voxel on each axis."""

    image: np.ndarray
    label: np.ndarray
    spacing: tuple[float, ...]


class Score(NamedTuple):
    """Scores of one row.

    Attributes:
        grey: Dice of cortical grey matter in the whole volume.
        inside: Dice of what lies inside of the white surface.
        grey_near: Dice of grey matter in the voxels that a stripped scan keeps, so
            that the cerebellum, which has no label, does not count as wrong.
        inside_near: Dice of what lies inside, in the same voxels.
        beyond: of the voxels in the upper half of the label's box that are more than 10
            mm outside of the label, the fraction called grey or white matter.
        background: of the voxels that the row shows as background, the fraction called
            any tissue; NaN where the skull is on.
        seconds: of the prediction.
    """

    grey: float
    inside: float
    grey_near: float
    inside_near: float
    beyond: float
    background: float
    seconds: float


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("image")
    parser.add_argument("label")
    parser.add_argument("--workdir", default="runs/brain", help="a finished run")
    given = parser.parse_args()
    try:
        run = unet_jax.load(given.workdir)
        scan = read_scan(given.image, given.label)
    except (InputError, OSError, nibabel.filebasedimages.ImageFileError) as error:
        raise SystemExit(f"benchmarks.unseen: error: {error}") from None
    print(
        "| scan | grey | inside | within 3 mm | beyond 10 mm | background | seconds |"
    )
    print("| --- | --- | --- | --- | --- | --- | --- |")
    for name, score in rows(
        scan, lambda image, spacing: run.predict(image[..., None], spacing=spacing)
    ):
        print(
            f"| {name} | {score.grey:.3f} | {score.inside:.3f} "
            f"| {score.grey_near:.3f}, {score.inside_near:.3f} | {score.beyond:.2%} "
            f"| {_percent(score.background)} | {score.seconds:.1f} |",
            flush=True,
        )


def _percent(value: float) -> str:
    """Write a fraction; a dash for NaN."""
    return "-" if np.isnan(value) else f"{value:.2%}"


def read_scan(image: str, label: str) -> Scan:
    """Read two NIfTI files of one grid, in RAS order."""
    volume, mask = (
        nibabel.as_closest_canonical(nibabel.load(file)) for file in (image, label)
    )
    if volume.shape != mask.shape:
        raise SystemExit(f"{label}: {mask.shape}, but {image}: {volume.shape}")
    spacing = tuple(map(float, volume.header.get_zooms()[:3]))
    return Scan(np.asarray(volume.dataobj), np.asarray(mask.dataobj), spacing)


def rows(scan: Scan, predict: Predict) -> Iterator[tuple[str, Score]]:
    """Predict and score every row of the table."""
    for name, changed in variants(scan):
        start = time.perf_counter()
        predicted = np.asarray(predict(changed.image, changed.spacing))
        seconds = time.perf_counter() - start
        stripped = not name.startswith("skull")
        yield name, score(predicted, changed, stripped=stripped, seconds=seconds)


def variants(scan: Scan) -> Iterator[tuple[str, Scan]]:
    """Yield the scan as other scanners might have given it."""
    kept = _distance(scan.label > 0, scan.spacing) <= _STRIP_MM
    head = scan.image.astype(np.float32)
    stripped = scan._replace(image=np.where(kept, head, 0))
    brightest = float(stripped.image.max())
    negative = np.where(kept, brightest - stripped.image + 1, 0)
    inverted = scan._replace(image=negative)
    noise = np.random.default_rng(0).normal(0, 0.02 * brightest, (2, *head.shape))
    yield "stripped", stripped
    yield "skull on", scan._replace(image=head)
    yield (
        "stripped, inverted, 1.3 mm, bias 30 %",
        resampled(inverted._replace(image=negative * bias(head.shape, 0.3)), 1.3),
    )
    yield (
        "stripped, Rician noise of 2 % everywhere",
        scan._replace(image=np.hypot(stripped.image + noise[0], noise[1])),
    )
    yield "stripped, inverted", inverted
    yield (
        "stripped, bias 30 %",
        scan._replace(image=stripped.image * bias(head.shape, 0.3)),
    )
    yield "stripped, 0.8 mm", resampled(stripped, 0.8)
    yield "stripped, 1.2 mm", resampled(stripped, 1.2)
    yield "stripped, slices of 4 mm", resampled(stripped, (*scan.spacing[:2], 4.0))
    yield (
        "stripped, exponent 0.6",
        scan._replace(image=brightest * (stripped.image / brightest) ** 0.6),
    )
    yield "stripped, as T2", spin_echo(stripped, echo_ms=120)
    yield "stripped, as PD", spin_echo(stripped, echo_ms=35)
    yield "skull on, inverted", scan._replace(image=float(head.max()) - head)
    yield "skull on, without margin", cut(scan._replace(image=head))


def resampled(scan: Scan, spacing: float | tuple[float, ...]) -> Scan:
    """Bring a scan to other voxels: the image linearly, the label by the nearest."""
    wanted = np.broadcast_to(spacing, 3)
    zoom = np.array(scan.spacing) / wanted
    image = ndimage.zoom(scan.image, zoom, order=1, grid_mode=True, mode="nearest")
    label = ndimage.zoom(scan.label, zoom, order=0, grid_mode=True, mode="nearest")
    return Scan(image, label, tuple(float(step) for step in wanted))


def bias(shape: tuple[int, ...], strength: float) -> np.ndarray:
    """Make a smooth field of factors from ``1 - strength`` to ``1 + strength``."""
    x, y, z = np.meshgrid(
        *(np.linspace(-1, 1, size, dtype=np.float32) for size in shape),
        indexing="ij",
        sparse=True,
    )
    return 1 + strength * (x + y * z) / 2


def spin_echo(scan: Scan, *, echo_ms: float) -> Scan:
    """Give the tissues of a stripped T1 scan the contrast of a spin echo.

    The signals of fluid, grey and white matter, which their relaxation times decide,
    are interpolated between the intensities of the three in the scan. It keeps its
    noise, and what else is as dark as fluid in T1 has the signal of fluid too.
    """
    grey, white = (float(np.median(scan.image[scan.label == one])) for one in (1, 2))
    fluid = float(np.percentile(scan.image[scan.image > 0], 5))
    signals = [
        density * (1 - np.exp(-_REPETITION_MS / t1)) * np.exp(-echo_ms / t2)
        for density, t1, t2 in (_FLUID, _GREY, _WHITE)
    ]
    beyond = max(0.0, 2 * signals[2] - signals[1])
    image = np.interp(
        scan.image, (fluid, grey, white, 2 * white - grey), (*signals, beyond)
    )
    return scan._replace(image=np.where(scan.image > 0, image, 0).astype(np.float32))


def cut(scan: Scan) -> Scan:
    """Cut a scan to the box of its label and 5 voxels."""
    box = tuple(
        slice(max(0, int(found.min()) - 5), int(found.max()) + 6)
        for found in np.nonzero(scan.label)
    )
    return Scan(scan.image[box], scan.label[box], scan.spacing)


def score(
    predicted: np.ndarray, scan: Scan, *, stripped: bool, seconds: float
) -> Score:
    """Compare a prediction of the classes of configs/brain.py with the label."""
    inside = scan.label == 2
    deep = _distance(~inside, scan.spacing) > _DEEP_MM
    from_label = _distance(scan.label > 0, scan.spacing)
    box = np.zeros(scan.label.shape, bool)
    places = np.nonzero(scan.label)
    first, last = (np.array([end(one) for one in places]) for end in (np.min, np.max))
    first[2] = (first[2] + last[2]) // 2
    box[tuple(slice(a, b + 1) for a, b in zip(first, last, strict=True))] = True
    far = box & (from_label > _FAR_MM)
    tissue = (predicted == 2) | (predicted == 3)
    empty = from_label > _STRIP_MM + max(scan.spacing)
    near = from_label <= _STRIP_MM
    grey_found = (predicted == 2) & ~deep
    inside_found = (predicted == 3) | ((predicted > 0) & deep)
    return Score(
        grey=dice(grey_found, scan.label == 1),
        inside=dice(inside_found, inside),
        grey_near=dice(grey_found & near, scan.label == 1),
        inside_near=dice(inside_found & near, inside),
        beyond=fraction(tissue, far),
        background=fraction(predicted > 0, empty) if stripped else float("nan"),
        seconds=seconds,
    )


def dice(predicted: np.ndarray, true: np.ndarray) -> float:
    """Return the Dice coefficient of two masks."""
    total = int(predicted.sum()) + int(true.sum())
    return 2 * int((predicted & true).sum()) / total if total else float("nan")


def fraction(found: np.ndarray, among: np.ndarray) -> float:
    """Return which fraction of some voxels is found; NaN for no voxel."""
    return float(found[among].mean()) if among.any() else float("nan")


def _distance(mask: np.ndarray, spacing: tuple[float, ...]) -> np.ndarray:
    """Return the millimetres to the nearest voxel of a mask; 0 in it."""
    millimetres: np.ndarray = ndimage.distance_transform_edt(~mask, sampling=spacing)
    return millimetres


if __name__ == "__main__":
    main()
