"""Writes a label map as a DICOM segmentation of its series, with highdicom."""

import importlib.metadata
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Integer

from unet_jax.data.files.dicom import frame_places, read_headers
from unet_jax.data.files.stored import Color, StoredImage
from unet_jax.errors import InputError
from unet_jax.runtime.atomic import atomic_path

_NEEDED = ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID", "SOPClassUID")
_MAY_BE_EMPTY = (  # anonymised files often lack them
    "PatientID",
    "PatientName",
    "PatientBirthDate",
    "PatientSex",
    "AccessionNumber",
    "StudyID",
    "StudyDate",
    "StudyTime",
)
_LONGEST_NAME = 64  # characters of a DICOM long string (LO)


def check_highdicom() -> None:
    """Refuse to go on without highdicom, which writes segmentations."""
    try:
        import highdicom.seg  # noqa: F401
    except ImportError:
        raise InputError(
            "--dicom_seg: highdicom is not installed; expected it to write DICOM "
            "segmentations; run `pip install highdicom`"
        ) from None


def write_dicom_seg(
    path: Path,
    stored: StoredImage,
    labels: Integer[np.ndarray, "x y z"],
    *,
    series: Path,
    class_names: Sequence[str],
    class_colors: Sequence[Color],
) -> None:
    """Write a DICOM segmentation, complete or not at all.

    Segment n is class n, with its name and colour; class 0 is what no segment covers.
    Each frame has the place of a slice of the series, and refers to that slice.

    Args:
        path: file to write.
        stored: the image that `read_dicom` made of the series.
        labels: class indices on the stored grid.
        series: folder of the slices, or the file of frames, that the image is from.
        class_names: name of each class.
        class_colors: colour of each class.

    Raises:
        InputError: highdicom is not installed, or the series lacks UIDs.
    """
    check_highdicom()
    import highdicom
    from pydicom.uid import generate_uid

    sources = read_headers(series)
    _check_sources(sources, series)
    # The slices of a label map are in the order of their places, not of the files.
    inverse = np.linalg.inv(np.asarray(stored.affine))
    places = [place for one in sources for place in frame_places(one)]
    slices = [round(float((inverse @ [-x, -y, z, 1])[2])) for x, y, z in places]
    version = importlib.metadata.version("unet_jax")
    try:
        segmentation = highdicom.seg.Segmentation(
            source_images=sources,
            pixel_array=np.stack([labels[..., index].T for index in slices]),
            segmentation_type="BINARY",
            segment_descriptions=_segments(class_names, class_colors, version),
            series_instance_uid=generate_uid(),
            series_number=1,
            sop_instance_uid=generate_uid(),
            instance_number=1,
            manufacturer="unet_jax",
            manufacturer_model_name="unet_jax",
            software_versions=version,
            device_serial_number="0",
            series_description="Segmentation by unet_jax",
            content_label="SEGMENTATION",
        )
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        text = " ".join(str(error).split())[:160]
        raise InputError(
            f"{series}: highdicom cannot write a segmentation of it ({text}); "
            "expected a complete series of CT, MR or PET; run without --dicom_seg"
        ) from None
    with atomic_path(path) as temporary:
        segmentation.save_as(temporary)
    # highdicom leaves its table of frames open, which Python 3.13 warns of.
    if table := getattr(segmentation, "_db_con", None):
        table.close()


def _check_sources(sources: Sequence[Any], path: Path) -> None:
    """Refuse slices that cannot be referred to; make the tags that may be empty."""
    for one in sources:
        for tag in (*_NEEDED, "FrameOfReferenceUID"):
            if not one.get(tag):
                raise InputError(
                    f"{path}: {Path(one.filename).name} has no {tag}; expected it, for "
                    "a DICOM segmentation refers to it; run without --dicom_seg"
                )
        for tag in _MAY_BE_EMPTY:
            one.setdefault(tag, "")


def _segments(
    class_names: Sequence[str], class_colors: Sequence[Color], version: str
) -> list[Any]:
    """Describe a segment for each class but class 0.

    The code of a class is a private one: its name alone does not tell which code of
    SNOMED CT it has.
    """
    import highdicom
    from pydicom.sr.codedict import Code, codes

    algorithm = highdicom.AlgorithmIdentificationSequence(
        name="unet_jax", family=codes.DCM.ArtificialIntelligence, version=version
    )
    return [
        highdicom.seg.SegmentDescription(
            segment_number=number,
            segment_label=class_names[number][:_LONGEST_NAME],
            segmented_property_category=codes.SCT.SpatialAndRelationalConcept,
            segmented_property_type=Code(
                f"CLASS_{number}", "99UNETJAX", class_names[number][:_LONGEST_NAME]
            ),
            algorithm_type="AUTOMATIC",
            algorithm_identification=algorithm,
            display_color=highdicom.color.CIELabColor.from_rgb(*class_colors[number]),
        )
        for number in range(1, len(class_names))
    ]
