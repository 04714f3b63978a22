"""Writes small DICOM series."""

import numpy as np
import pydicom
from pydicom.uid import (
    CTImageStorage,
    EnhancedCTImageStorage,
    ExplicitVRLittleEndian,
    generate_uid,
)

ROWS_COLUMNS = (0.8, -0.6, 0.0, 0.36, 0.48, -0.8)
"""Directions of an oblique series."""


def write_slice(file, pixels, *, position, series="1.2.3", **tags):
    """Write one slice ``(rows, columns)`` of int16; ``tags`` replace or add others."""
    slice_ = pydicom.Dataset()
    slice_.file_meta = pydicom.dataset.FileMetaDataset()
    slice_.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    slice_.SOPClassUID, slice_.SOPInstanceUID = CTImageStorage, generate_uid()
    slice_.SeriesInstanceUID, slice_.Modality = series, "CT"
    slice_.ImagePositionPatient = [round(float(place), 9) for place in position]
    slice_.ImageOrientationPatient = list(ROWS_COLUMNS)
    slice_.PixelSpacing, slice_.SliceThickness = [0.75, 0.5], 2.5
    slice_.Rows, slice_.Columns = pixels.shape
    slice_.PhotometricInterpretation, slice_.SamplesPerPixel = "MONOCHROME2", 1
    slice_.BitsAllocated = slice_.BitsStored = 16
    slice_.HighBit, slice_.PixelRepresentation = 15, 1
    slice_.RescaleSlope, slice_.RescaleIntercept = 1, -1024
    for name, value in tags.items():
        setattr(slice_, name, value)
    slice_.PixelData = pixels.astype("<i2").tobytes()
    file.parent.mkdir(parents=True, exist_ok=True)
    slice_.save_as(file, enforce_file_format=True)


def write_series(folder, *, count=4, size=(6, 5), seed=0, step=2.0, **tags):
    """Write slices whose names are in another order than their places.

    Returns:
        The stored values ``(slices, rows, columns)``, in the order of the places.
    """
    normal = np.cross(ROWS_COLUMNS[:3], ROWS_COLUMNS[3:])
    pixels = np.random.default_rng(seed).integers(0, 2000, (count, *size))
    for number in range(count):
        name = f"IM{(number * 3 + 2) % 7:04d}"
        place = np.array([-10.0, 20.0, 5.0]) + number * step * normal
        write_slice(folder / name, pixels[number], position=place, **tags)
    return pixels


def write_frames(file, folder):
    """Write the slices of a series as the frames of one file, the last place first."""
    slices = [pydicom.dcmread(one) for one in folder.iterdir()]
    normal = np.cross(ROWS_COLUMNS[:3], ROWS_COLUMNS[3:])
    slices.sort(key=lambda one: -np.dot(one.ImagePositionPatient, normal))
    header, frames = slices[0], []
    for one in slices:
        frame, inside = pydicom.Dataset(), pydicom.Dataset()
        inside.ImagePositionPatient = one.ImagePositionPatient
        frame.PlanePositionSequence = [inside]
        frames.append(frame)
    header.NumberOfFrames = len(frames)
    header.SOPClassUID = header.file_meta.MediaStorageSOPClassUID = (
        EnhancedCTImageStorage
    )
    header.PerFrameFunctionalGroupsSequence = frames
    shared, measures, plane = (pydicom.Dataset() for _ in range(3))
    measures.PixelSpacing = header.PixelSpacing
    measures.SliceThickness = header.SliceThickness
    plane.ImageOrientationPatient = header.ImageOrientationPatient
    shared.PixelMeasuresSequence = [measures]
    shared.PlaneOrientationSequence = [plane]
    header.SharedFunctionalGroupsSequence = [shared]
    header.PixelData = b"".join(one.PixelData for one in slices)
    del header.PixelSpacing, header.ImagePositionPatient
    header.save_as(file)
