"""Reads DICOM segmentations and RTSTRUCT: their segments on the grid of an image."""

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Integer

from unet_jax.data.files.dicom import frame_value, frames_of, mask_kind, read_dataset
from unet_jax.data.files.polygons import fill_polygons
from unet_jax.data.files.stored import StoredImage
from unet_jax.errors import InputError

_OFF = 0.1
"""Largest distance, in voxels, of a pixel of a mask from a voxel of the image."""

Voxels = Integer[np.ndarray, "voxels 3"]


def segment_names(path: Path) -> list[str]:
    """List the segments, or the structures that have contours, in their order.

    Raises:
        InputError: the file cannot be read.
    """
    with _whole(path):
        header = read_dataset(path)
        if mask_kind(path) == "SEG":
            return list(dict.fromkeys(_labels(header).values()))
        return [name for name, contours in _structures(header) if contours]


def referred_series(path: Path) -> set[str]:
    """Return the UIDs of the series that a mask was drawn on."""
    with _whole(path):
        header = read_dataset(path)
        found = list(header.get("ReferencedSeriesSequence") or [])  # of a SEG
        found += [
            series
            for frame in header.get("ReferencedFrameOfReferenceSequence") or []
            for study in frame.get("RTReferencedStudySequence") or []
            for series in study.get("RTReferencedSeriesSequence") or []
        ]
        return {str(one.get("SeriesInstanceUID")) for one in found}


def segment_voxels(path: Path, image: StoredImage) -> Iterator[tuple[str, Voxels]]:
    """Yield the voxels of each segment on the grid of an image, part by part.

    A pixel of a segmentation has to lie on a voxel of the image, and a contour in a
    slice; a frame that is not there is empty. Contours of a structure in one slice are
    filled by the even-odd rule, so that a contour inside another one is a hole.

    Args:
        image: the series that the mask was drawn on, or another image of its grid.

    Returns:
        Name of the segment, and the indices of voxels of a frame or of a slice.

    Raises:
        InputError: the file is damaged, does not lie on the grid, or has another frame
            of reference.
    """
    if image.affine is None:
        raise InputError(
            f"{path}: {image.path.name} states no place of its pixels; expected the "
            "DICOM series that the mask was drawn on; add it as the image"
        )
    read = _frames if mask_kind(path) == "SEG" else _contours
    with _whole(path):
        header = read_dataset(path)
        _check_frame_of_reference(header, path, image)
        yield from read(header, path, image)


@contextlib.contextmanager
def _whole(path: Path) -> Iterator[None]:
    """Turn any error of a damaged file, whose tags are decoded late, into one line."""
    try:
        yield
    except InputError:
        raise
    except Exception as error:  # decoders raise anything
        text = " ".join(str(error).split())[:160] or type(error).__name__
        raise InputError(
            f"{path}: cannot be read ({text}); expected a whole DICOM file; export it "
            "again"
        ) from None


def _labels(header: Any) -> dict[int, str]:
    """Return the name of each segment by its number; 0 is the background."""
    return {
        int(one.SegmentNumber): str(one.get("SegmentLabel", "")).strip()
        for one in header.get("SegmentSequence") or []
        if int(one.SegmentNumber) > 0
    }


def _structures(header: Any) -> Iterator[tuple[str, list[Any]]]:
    """Yield each structure of an RTSTRUCT with its closed contours."""
    names = {
        int(one.ROINumber): str(one.get("ROIName", "")).strip()
        for one in header.get("StructureSetROISequence") or []
    }
    for one in header.ROIContourSequence:
        contours = [
            contour
            for contour in one.get("ContourSequence") or []
            if str(contour.get("ContourGeometricType")).startswith("CLOSED")
        ]
        yield names.get(int(one.ReferencedROINumber), ""), contours


def _check_frame_of_reference(header: Any, path: Path, image: StoredImage) -> None:
    """Refuse a mask whose coordinates are not those of the image."""
    own = {str(header.get("FrameOfReferenceUID") or "")} | {
        str(one.get("ReferencedFrameOfReferenceUID") or "")
        for one in header.get("StructureSetROISequence") or []
    }
    expected = image.tags.get("frame_of_reference")
    if expected and own - {"", expected} and expected not in own:
        raise InputError(
            f"{path}: its frame of reference {sorted(own - {''})[0]} is not that of "
            f"{image.path.name} ({expected}); expected the coordinates of the image; "
            "register the mask to it, or add the series that it was drawn on"
        )


def _frames(
    header: Any, path: Path, image: StoredImage
) -> Iterator[tuple[str, Voxels]]:
    """Yield the voxels of each frame of a segmentation, with the segment's name."""
    labels = _labels(header)
    largest = float(header.get("MaximumFractionalValue") or 1)
    inverse = np.linalg.inv(np.asarray(image.affine))
    groups = header.PerFrameFunctionalGroupsSequence
    shared = list(header.get("SharedFunctionalGroupsSequence") or [])
    for frame, group in zip(frames_of(header, path), groups, strict=False):
        number = frame_value(
            header,
            [group, *shared],
            "SegmentIdentification",
            "ReferencedSegmentNumber",
        )
        down, across = frame.sizes
        steps = np.stack(
            [frame.directions[1] * down, frame.directions[0] * across, frame.position]
        )
        steps[:, :2] *= -1  # DICOM's axes run to the left and to the back
        steps = steps @ inverse[:3, :3].T
        steps[2] += inverse[:3, 3]
        pixels = frame.pixels[..., 0]
        off = np.abs(steps - np.rint(steps)) @ np.ones(3)
        away = float(max(off[2], off[0] * pixels.shape[0], off[1] * pixels.shape[1]))
        if away > _OFF:
            raise InputError(
                f"{path}: its pixels lie up to {away:.2g} voxels beside those of "
                f"{image.path.name}; expected a segmentation on the grid of its "
                "series; resample it, for example with 3D Slicer"
            )
        steps = np.rint(steps).astype(np.int64)
        if number is None:  # a label map: pixels are the numbers of segments
            found = [(one, pixels == one) for one in np.unique(pixels[pixels > 0])]
        else:
            found = [(number, pixels >= largest / 2)]
        for one, inside in found:
            voxels = np.argwhere(inside) @ steps[:2] + steps[2]
            _check_inside(voxels, path, image)
            yield labels.get(int(one), ""), voxels


def _contours(
    header: Any, path: Path, image: StoredImage
) -> Iterator[tuple[str, Voxels]]:
    """Yield the voxels inside of the contours of each structure and slice."""
    inverse = np.linalg.inv(np.asarray(image.affine))
    for name, contours in _structures(header):
        slices: dict[tuple[int, int], list[tuple[float, np.ndarray]]] = {}
        for contour in contours:
            points = np.array(contour.ContourData, np.float64).reshape(-1, 3)
            points[:, :2] *= -1  # DICOM's axes run to the left and to the back
            points = points @ inverse[:3, :3].T + inverse[:3, 3]
            spread = np.ptp(points, axis=0)
            axis = int(np.argmin(spread))
            if spread[axis] > _OFF and len(points) > 1:
                raise InputError(
                    f"{path}: a contour of {name!r} runs through "
                    f"{spread[axis]:.2g} slices of {image.path.name}; expected "
                    "contours in its slices; add the series that they were drawn on"
                )
            height = float(points[:, axis].mean())
            place = (axis, int(np.floor(height + 0.5)))
            slices.setdefault(place, []).append((height, np.delete(points, axis, 1)))
        for (axis, index), drawn in slices.items():
            heights = [height for height, _ in drawn]
            if max(heights) - min(heights) > _OFF:
                raise InputError(
                    f"{path}: contours of {name!r} have {max(heights):.2f} and "
                    f"{min(heights):.2f} as their place among the slices of "
                    f"{image.path.name}; expected one in a slice; add the series that "
                    "they were drawn on"
                )
            plane = np.delete(image.image.shape[:-1], axis).tolist()
            inside = fill_polygons([points for _, points in drawn], tuple(plane))
            voxels = np.insert(np.argwhere(inside), axis, index, axis=1)
            _check_inside(voxels, path, image)
            yield name, voxels


def _check_inside(voxels: Voxels, path: Path, image: StoredImage) -> None:
    """Refuse voxels outside of the image."""
    shape = image.image.shape[:-1]
    outside = ((voxels < 0) | (voxels >= shape)).any(axis=1)
    if outside.any():
        raise InputError(
            f"{path}: {int(outside.sum())} pixels of a slice lie outside of "
            f"{image.path.name}, such as {tuple(voxels[outside][0].tolist())} of "
            f"{shape}; expected a mask of this image; add the series that it was drawn "
            "on"
        )
