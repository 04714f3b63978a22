"""Reads a DICOM series, with pydicom: a folder of slices, or a file of frames."""

import contextlib
import itertools
import os
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from unet_jax.data.files.stored import StoredImage, check_affine
from unet_jax.errors import InputError

SUFFIXES = (".dcm", ".dicom", ".ima")
_MAGIC = 128, b"DICM"

_MASK_CLASSES = {
    b"1.2.840.10008.5.1.4.1.1.66.4": "SEG",
    b"1.2.840.10008.5.1.4.1.1.66.7": "SEG",  # label map segmentation
    b"1.2.840.10008.5.1.4.1.1.481.3": "RTSTRUCT",
}
_CLASS = re.compile(rb"\x02\x00\x02\x00UI..([0-9.]+)", re.DOTALL)
_START = 512  # bytes that hold the class of a file

_TILT = 0.01  # mm that slices move aside for each mm between them
_UNEVEN = 0.1  # part of the distance of slices by which one may lie elsewhere
_SAME = 1e-3


class Frame(NamedTuple):
    """One slice: its pixels ``(rows, columns, channels)`` and its place in mm (LPS)."""

    pixels: np.ndarray
    position: np.ndarray
    directions: np.ndarray
    """``(2, 3)``: of the columns' index, and of the rows' index."""
    sizes: tuple[float, float]
    """Distance of rows, and of columns."""
    thickness: float
    slope: float
    intercept: float


def is_series(folder: Path) -> bool:
    """Tell whether a folder has the slices of a series.

    Files that are all series of their own are images by themselves.

    Raises:
        InputError: there are DICOM files, but pydicom is not installed.
    """
    files = [one for one in dicom_files(folder) if not mask_kind(one)]
    if len(files) < 2:
        return False
    first, second = (_header(file).get("SeriesInstanceUID") for file in files[:2])
    if first == second:
        return True
    found = Counter(_header(file).get("SeriesInstanceUID") for file in files)
    return len(found) < len(files)


def dicom_files(folder: Path) -> list[Path]:
    """List the DICOM files of a folder; many have no ending, or one of digits."""
    found = []
    for name in sorted(os.listdir(folder)):
        ending = os.path.splitext(name)[1].lower()
        unnamed = not ending or ending[1:].isdecimal()
        if name.startswith(".") or not (ending in SUFFIXES or unnamed):
            continue
        file = folder / name
        if name == "DICOMDIR" or not file.is_file():
            continue
        if not unnamed or _has_magic(file):
            found.append(file)
    return found


def mask_kind(file: Path) -> str:
    """Return "SEG" or "RTSTRUCT" for a file that is a mask of a series; "" for others.

    Its first bytes tell, so that many files are looked at in a short time.
    """
    name = file.name.lower()
    ending = os.path.splitext(name)[1]
    if not (ending in SUFFIXES or not ending or ending[1:].isdecimal()):
        return ""
    try:
        with file.open("rb") as stream:
            start = stream.read(_START)
    except OSError:  # reported where the file is read
        return ""
    at, code = _MAGIC
    found = _CLASS.search(start, at) if start[at:].startswith(code) else None
    return _MASK_CLASSES.get(found[1], "") if found else ""


def _has_magic(file: Path) -> bool:
    """Tell whether the first bytes are those of DICOM."""
    at, code = _MAGIC
    try:
        with file.open("rb") as stream:
            return stream.read(at + len(code))[at:] == code
    except OSError:  # reported where it is an image
        return False


def read_dicom(
    path: Path, axes: str | None = None, indices: bool = False
) -> StoredImage:
    """Decode a series: slices in the order of their places, on a scale in units.

    Args:
        path: a folder of slices, or one file.

    Returns:
        The volume ``(x, y, z, channels)``, its affine and spacing. Rescale slope and
        intercept are applied; where all are whole numbers the values stay integers.

    Raises:
        InputError: pydicom is not installed, or the files are several series, or no
            stack of equal slices at equal distances.
    """
    headers = read_headers(path)
    _check_one_series(headers, path)
    frames = [frame for one in headers for frame in frames_of(one, path)]
    first = frames[0]
    _check_equal(frames, path)
    normal = np.cross(*first.directions)
    frames.sort(key=lambda frame: float(frame.position @ normal))
    step = _step(frames, normal, path)
    affine = np.eye(4)
    down, across = first.sizes
    affine[:3, 0] = first.directions[0] * across
    affine[:3, 1] = first.directions[1] * down
    affine[:3, 2], affine[:3, 3] = step, frames[0].position
    affine[:2] *= -1  # DICOM's axes run to the left and to the back
    check_affine(affine, path)
    spacing = tuple(np.linalg.norm(affine[:3, :3], axis=0).tolist())
    # (z, rows, columns, channels) to (x, y, z, channels)
    volume = np.transpose(_stacked(frames), (2, 1, 0, 3))
    frame = str(headers[0].get("FrameOfReferenceUID") or "")
    tags = {"frame_of_reference": frame} if frame else {}
    return StoredImage(path, volume, affine, spacing, "volume", tags=tags)


def read_headers(path: Path) -> list[Any]:
    """Read the files that have pixels, as pydicom gives them, in order of their names.

    Args:
        path: a folder of slices, beside which masks may lie, or one file.
    """
    files = [path]
    if path.is_dir():
        files = [one for one in dicom_files(path) if not mask_kind(one)]
    return [one for one in map(read_dataset, files) if "PixelData" in one]


def frame_places(header: Any) -> list[np.ndarray]:
    """Return the place of each frame of a file, in mm (LPS)."""
    shared = list(header.get("SharedFunctionalGroupsSequence") or [])
    own = header.get("PerFrameFunctionalGroupsSequence")
    places = [
        frame_value(header, groups, "PlanePosition", "ImagePositionPatient")
        for groups in ([[one, *shared] for one in own] if own else [shared])
    ]
    return [np.array(place, np.float64) for place in places]


def _check_one_series(headers: Sequence[Any], path: Path) -> None:
    """Refuse several series, none, and objects that are no images."""
    if kind := "" if path.is_dir() else mask_kind(path):
        raise InputError(
            f"{path}: is a mask of a DICOM series ({kind}); expected an image; put it "
            "beside its series in a folder to train on"
        )
    if not headers:
        raise InputError(
            f"{path}: no DICOM file has pixels; expected the slices of a series; "
            "export it again"
        )
    found: dict[str, list[Any]] = {}
    for one in headers:
        found.setdefault(str(one.get("SeriesInstanceUID")), []).append(one)
    if len(found) > 1:
        shown = [
            f"{of[0].get('SeriesDescription', uid)!r} ({len(of)} "
            f"file{'s' * (len(of) > 1)}, such as {Path(of[0].filename).name})"
            for uid, of in itertools.islice(found.items(), 5)
        ]
        raise InputError(
            f"{path}: holds {len(found)} series: {', '.join(shown)}; expected one; "
            "move each into a folder of its own"
        )


def frames_of(header: Any, path: Path) -> Iterator[Frame]:
    """Yield the frames of a file; an enhanced one has several, with their places."""
    name = Path(header.filename).name
    try:
        pixels = np.asarray(header.pixel_array)
    except Exception as error:  # decoders raise anything
        text = " ".join(str(error).split())[:160]
        raise InputError(
            f"{path}: the pixels of {name} cannot be decoded ({text}); expected a "
            "whole file; export it uncompressed, or run `pip install 'pylibjpeg[all]'`"
        ) from None
    if header.get("SamplesPerPixel", 1) == 1:
        pixels = pixels[..., None]
    if pixels.ndim == 3:
        pixels = pixels[None]
    shared = list(header.get("SharedFunctionalGroupsSequence") or [])
    own = header.get("PerFrameFunctionalGroupsSequence") or [None] * len(pixels)
    for frame, group in zip(pixels, own, strict=True):
        groups = [*([] if group is None else [group]), *shared]
        position = frame_value(header, groups, "PlanePosition", "ImagePositionPatient")
        turn = frame_value(
            header, groups, "PlaneOrientation", "ImageOrientationPatient"
        )
        sizes = frame_value(header, groups, "PixelMeasures", "PixelSpacing")
        if position is None or turn is None or sizes is None:
            raise InputError(
                f"{path}: {name} states no ImagePositionPatient, "
                "ImageOrientationPatient or PixelSpacing; expected slices of CT, MR or "
                "PET; save other pictures as PNG or TIFF"
            )
        scale = "PixelValueTransformation"
        slope = frame_value(header, groups, scale, "RescaleSlope")
        yield Frame(
            frame,
            np.array(position, np.float64),
            np.array(turn, np.float64).reshape(2, 3),
            (float(sizes[0]), float(sizes[1])),
            float(frame_value(header, groups, "PixelMeasures", "SliceThickness") or 1),
            1.0 if slope is None else float(slope),
            float(frame_value(header, groups, scale, "RescaleIntercept") or 0),
        )


def frame_value(header: Any, groups: Iterable[Any], sequence: str, key: str) -> Any:
    """Return a tag of a frame's groups, or of the file; None if it has none."""
    for group in groups:
        inside = group.get(f"{sequence}Sequence")
        if inside and inside[0].get(key) is not None:
            return inside[0].get(key)
    return header.get(key)


def _check_equal(frames: Sequence[Frame], path: Path) -> None:
    """Refuse slices of other sizes or directions, such as those of a localizer."""
    first = frames[0]
    for frame in frames:
        differences = [
            ("size", frame.pixels.shape, first.pixels.shape),
            ("pixel spacing", frame.sizes, first.sizes),
            (
                "orientation",
                frame.directions.ravel().tolist(),
                first.directions.ravel().tolist(),
            ),
        ]
        for what, found, expected in differences:
            if len(found) != len(expected) or not np.allclose(
                found, expected, atol=_SAME
            ):
                raise InputError(
                    f"{path}: its slices have the {what} {found} and {expected}; "
                    "expected one; move the others away, such as localizers"
                )
    if abs(float(np.dot(*first.directions))) > _SAME:
        raise InputError(
            f"{path}: rows and columns are not perpendicular "
            f"({first.directions.ravel().tolist()}); expected ImageOrientationPatient "
            "of right angles; export it again"
        )


def _step(frames: Sequence[Frame], normal: np.ndarray, path: Path) -> np.ndarray:
    """Return the vector from a slice to the next; refuse gaps, repeats and tilts."""
    places = np.array([frame.position for frame in frames])
    if len(frames) == 1:
        return normal * frames[0].thickness
    heights = places @ normal
    distances = np.diff(heights)
    common = float(np.median(distances))
    if distances.min() < _SAME:
        count = int(np.sum(distances < _SAME))
        raise InputError(
            f"{path}: {count} slices lie where another one does, as in a series of "
            "several times or echoes; expected one slice at each place; move each "
            "volume into a folder of its own"
        )
    if np.abs(distances - common).max() > _UNEVEN * common:
        raise InputError(
            f"{path}: its slices are {distances.min():.4g} to {distances.max():.4g} mm "
            "apart; expected equal distances; add the slices that are missing, or "
            "resample the series"
        )
    step: np.ndarray = (places[-1] - places[0]) / (len(frames) - 1)
    aside = np.linalg.norm(step - (step @ normal) * normal)
    if aside > _TILT * common:
        angle = np.degrees(np.arctan2(aside, step @ normal))
        raise InputError(
            f"{path}: its slices are tilted by {angle:.1f} degrees to their stack (a "
            "tilted gantry); expected slices above each other; convert it with "
            "dcm2niix, which straightens it"
        )
    return step


def _stacked(frames: Sequence[Frame]) -> np.ndarray:
    """Stack the slices with slope and intercept, as integers where all are whole."""
    scales = {(one.slope, one.intercept) for one in frames}
    if scales == {(1.0, 0.0)}:
        return np.stack([one.pixels for one in frames])
    if all(slope == 1 and offset.is_integer() for slope, offset in scales):
        stack = np.stack(
            [one.pixels.astype(np.int32) + int(one.intercept) for one in frames]
        )
        short = np.iinfo(np.int16)
        fits = stack.min() >= short.min and stack.max() <= short.max
        return stack.astype(np.int16) if fits else stack
    return np.stack(
        [
            (one.pixels * np.float64(one.slope) + one.intercept).astype(np.float32)
            for one in frames
        ]
    )


def read_dataset(file: Path) -> Any:
    """Read a file; the values of tags are not validated, for few files pass that."""
    pydicom = pydicom_for(file)
    with pydicom.config.disable_value_validation():
        return pydicom.dcmread(file, force=False)


def series_of(image: Path) -> tuple[str, str]:
    """Return the UID of the series of an image, and the id of its patient.

    Args:
        image: a folder of slices, or one file.
    """
    files = [image]
    if image.is_dir():
        files = [one for one in dicom_files(image) if not mask_kind(one)]
    header = _header(files[0])
    keys = ("SeriesInstanceUID", "PatientID")
    uid, patient = (str(header.get(key) or "") for key in keys)
    return uid, patient


def _header(file: Path) -> Any:
    """Read the series that a file belongs to; an empty header if it is damaged."""
    pydicom = pydicom_for(file)
    with contextlib.suppress(pydicom.errors.InvalidDicomError, OSError, EOFError):
        return pydicom.dcmread(
            file,
            stop_before_pixels=True,
            specific_tags=["SeriesInstanceUID", "PatientID"],
        )
    return {}


def pydicom_for(path: Path) -> Any:
    """Import pydicom, which only this format needs."""
    try:
        import pydicom
    except ImportError:
        raise InputError(
            f"{path}: pydicom is not installed; expected it for DICOM files; run "
            "`pip install pydicom`"
        ) from None
    return pydicom
