"""Writes small DICOM series, and masks of them."""

import highdicom.seg
import numpy as np
import pydicom
from pydicom.sr.codedict import codes
from pydicom.uid import (
    CTImageStorage,
    EnhancedCTImageStorage,
    ExplicitVRLittleEndian,
    RTStructureSetStorage,
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


def write_series(
    folder, *, count=4, size=(6, 5), seed=0, step=2.0, pixels=None, **tags
):
    """Write slices whose names are in another order than their places.

    Returns:
        The stored values ``(slices, rows, columns)``, in the order of the places.
    """
    normal = np.cross(ROWS_COLUMNS[:3], ROWS_COLUMNS[3:])
    if pixels is None:
        pixels = np.random.default_rng(seed).integers(0, 2000, (count, *size))
    for number in range(len(pixels)):
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


UIDS = {"StudyInstanceUID": "1.2.9", "FrameOfReferenceUID": "1.2.8"}
"""Tags that a mask of a series refers to."""


def ordered_slices(folder):
    """Read the images of a folder in the order of their places."""
    slices = [pydicom.dcmread(one) for one in folder.iterdir()]
    slices = [one for one in slices if one.Modality == "CT"]
    normal = np.cross(ROWS_COLUMNS[:3], ROWS_COLUMNS[3:])
    return sorted(slices, key=lambda one: np.dot(one.ImagePositionPatient, normal))


def write_seg(file, series, masks, *, kind="BINARY", chosen=slice(None), **tags):
    """Write a segmentation with highdicom; frames without a pixel are left out.

    Args:
        masks: ``(slices, rows, columns)`` bool or fractions, by name of the segment.
        chosen: slices of the series that the segmentation has.
    """
    code = codes.SCT.Tissue
    named = [
        highdicom.seg.SegmentDescription(number, name, code, code, "MANUAL")
        for number, name in enumerate(masks, start=1)
    ]
    sources = ordered_slices(series)[chosen]
    for one in sources:
        for tag in ("PatientID", "PatientName", "PatientBirthDate", "PatientSex"):
            one.setdefault(tag, "")
        for tag in ("AccessionNumber", "StudyID", "StudyDate", "StudyTime"):
            one.setdefault(tag, "")
    pixels = np.stack(list(masks.values()), axis=-1)[chosen]
    if kind == "LABELMAP":
        pixels = (pixels * np.arange(1, 1 + len(masks))).sum(axis=-1).astype(np.uint8)
    made = highdicom.seg.Segmentation(
        source_images=sources,
        pixel_array=pixels.astype(np.float32 if kind == "FRACTIONAL" else np.uint8),
        segmentation_type=kind,
        segment_descriptions=named,
        series_instance_uid=generate_uid(),
        series_number=1,
        sop_instance_uid=generate_uid(),
        instance_number=1,
        manufacturer="a",
        manufacturer_model_name="b",
        software_versions="1",
        device_serial_number="0",
    )
    for name, value in tags.items():
        setattr(made, name, value)
    file.parent.mkdir(parents=True, exist_ok=True)
    made.save_as(file)
    if table := getattr(made, "_db_con", None):  # highdicom leaves it open
        table.close()


def write_rtstruct(file, structures, *, series="1.2.3", frame="1.2.8"):
    """Write structures with contours ``(corners, 3)`` in mm (LPS), by their names."""
    made = pydicom.Dataset()
    made.file_meta = pydicom.dataset.FileMetaDataset()
    made.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    made.SOPClassUID, made.SOPInstanceUID = RTStructureSetStorage, generate_uid()
    made.Modality = "RTSTRUCT"
    made.ReferencedFrameOfReferenceSequence = [
        _dataset(
            RTReferencedStudySequence=[
                _dataset(
                    RTReferencedSeriesSequence=[_dataset(SeriesInstanceUID=series)]
                )
            ]
        )
    ]
    made.StructureSetROISequence = [
        _dataset(ROINumber=number, ROIName=name, ReferencedFrameOfReferenceUID=frame)
        for number, name in enumerate(structures)
    ]
    made.ROIContourSequence = [
        _dataset(
            ReferencedROINumber=number,
            ContourSequence=[
                _dataset(
                    ContourGeometricType="CLOSED_PLANAR",
                    NumberOfContourPoints=len(points),
                    ContourData=[round(float(one), 6) for one in np.ravel(points)],
                )
                for points in contours
            ],
        )
        for number, contours in enumerate(structures.values())
    ]
    file.parent.mkdir(parents=True, exist_ok=True)
    made.save_as(file, enforce_file_format=True)


def _dataset(**tags):
    made = pydicom.Dataset()
    for name, value in tags.items():
        setattr(made, name, value)
    return made
