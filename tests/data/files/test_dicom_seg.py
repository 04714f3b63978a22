"""Tests DICOM segmentations, which pydicom alone reads again."""

import sys

import numpy as np
import pydicom
import pytest
from pydicom.uid import generate_uid

from tests.data.files.dicoms import ROWS_COLUMNS, write_frames, write_series
from unet_jax.data.files.dicom import read_dicom
from unet_jax.data.files.dicom_seg import write_dicom_seg
from unet_jax.errors import InputError

CLASSES = {
    "class_names": ("background", "white matter", "lesion"),
    "class_colors": ((0, 0, 0), (255, 0, 0), (0, 255, 0)),
}


@pytest.fixture
def series(tmp_path):
    """A series whose files are in another order than their places."""
    tags = {"StudyInstanceUID": "1.2.9", "FrameOfReferenceUID": "1.2.8"}
    write_series(tmp_path / "p1", **tags)
    return read_dicom(tmp_path / "p1")


def _write(path, stored, labels):
    write_dicom_seg(path, stored, labels, series=stored.path, **CLASSES)


def _labels(stored):
    shape = stored.image.shape[:-1]
    labels = np.random.default_rng(1).integers(0, 3, shape).astype(np.uint8)
    labels[..., 1] = 0  # a slice without a segment
    return labels


def _read_back(path, stored):
    """Return the labels of a segmentation on a grid, by the places of its frames."""
    seg = pydicom.dcmread(path)
    labels = np.zeros(stored.image.shape[:-1], np.uint8)
    inverse = np.linalg.inv(stored.affine)
    for frame, group in zip(
        seg.pixel_array, seg.PerFrameFunctionalGroupsSequence, strict=True
    ):
        x, y, z = group.PlanePositionSequence[0].ImagePositionPatient
        place = inverse @ [-x, -y, z, 1]
        np.testing.assert_allclose(place[:2], 0, atol=1e-6)
        np.testing.assert_allclose(place[2], round(place[2]), atol=1e-6)
        number = group.SegmentIdentificationSequence[0].ReferencedSegmentNumber
        labels[..., round(place[2])][frame.T > 0] = number
    return labels


def test_the_labels_lie_where_those_of_the_series_do(series, tmp_path):
    labels = _labels(series)
    _write(tmp_path / "a.seg.dcm", series, labels)
    np.testing.assert_array_equal(_read_back(tmp_path / "a.seg.dcm", series), labels)
    seg = pydicom.dcmread(tmp_path / "a.seg.dcm")
    shared = seg.SharedFunctionalGroupsSequence[0]
    directions = shared.PlaneOrientationSequence[0].ImageOrientationPatient
    np.testing.assert_allclose(directions, ROWS_COLUMNS)
    assert shared.PixelMeasuresSequence[0].PixelSpacing == [0.75, 0.5]


def test_the_frames_of_a_file_are_the_sources_of_those_of_its_segmentation(
    series, tmp_path
):
    write_frames(tmp_path / "all.dcm", tmp_path / "p1")
    stored = read_dicom(tmp_path / "all.dcm")
    labels = _labels(stored)
    _write(tmp_path / "a.seg.dcm", stored, labels)
    np.testing.assert_array_equal(_read_back(tmp_path / "a.seg.dcm", series), labels)


def test_segments_have_the_names_of_the_classes_and_refer_to_their_slices(
    series, tmp_path
):
    _write(tmp_path / "a.seg.dcm", series, _labels(series))
    seg = pydicom.dcmread(tmp_path / "a.seg.dcm")
    found = [(one.SegmentNumber, one.SegmentLabel) for one in seg.SegmentSequence]
    assert found == [(1, "white matter"), (2, "lesion")]
    assert (seg.StudyInstanceUID, seg.FrameOfReferenceUID) == ("1.2.9", "1.2.8")
    slices = map(pydicom.dcmread, (tmp_path / "p1").iterdir())
    places = {one.SOPInstanceUID: one.ImagePositionPatient for one in slices}
    (reference,) = seg.ReferencedSeriesSequence
    assert reference.SeriesInstanceUID == "1.2.3"
    listed = {
        one.ReferencedSOPInstanceUID for one in reference.ReferencedInstanceSequence
    }
    assert listed == set(places)
    for group in seg.PerFrameFunctionalGroupsSequence:
        source = group.DerivationImageSequence[0].SourceImageSequence[0]
        place = group.PlanePositionSequence[0].ImagePositionPatient
        assert places[source.ReferencedSOPInstanceUID] == place


def test_an_image_without_foreground_has_an_empty_segmentation(series, tmp_path):
    labels = np.zeros(series.image.shape[:-1], np.uint8)
    _write(tmp_path / "a.seg.dcm", series, labels)
    assert not _read_back(tmp_path / "a.seg.dcm", series).any()


@pytest.mark.parametrize("tag", ["StudyInstanceUID", "FrameOfReferenceUID"])
def test_a_series_without_a_uid_is_refused(tmp_path, tag):
    tags = {"StudyInstanceUID": "1.2.9", "FrameOfReferenceUID": "1.2.8"} | {tag: ""}
    write_series(tmp_path / "p1", **tags)
    stored = read_dicom(tmp_path / "p1")
    with pytest.raises(InputError, match=f"has no {tag}; expected it"):
        _write(tmp_path / "a.dcm", stored, _labels(stored))
    assert not (tmp_path / "a.dcm").exists()


def test_a_series_of_an_unknown_kind_is_refused_in_a_line(tmp_path):
    tags = {"StudyInstanceUID": "1.2.9", "FrameOfReferenceUID": "1.2.8"}
    write_series(tmp_path / "p1", SOPClassUID=generate_uid(), **tags)
    stored = read_dicom(tmp_path / "p1")
    with pytest.raises(InputError, match="p1: highdicom cannot write a segmentation"):
        _write(tmp_path / "a.dcm", stored, _labels(stored))


def test_without_highdicom_the_command_is_named(series, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "highdicom.seg", None)
    with pytest.raises(InputError, match="run `pip install highdicom`"):
        _write(tmp_path / "a.dcm", series, _labels(series))
