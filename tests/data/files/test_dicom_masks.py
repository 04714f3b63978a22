"""Tests masks of DICOM series, which highdicom and pydicom wrote."""

import highdicom.seg
import numpy as np
import pytest

from tests.data.files.dicoms import (
    ROWS_COLUMNS,
    UIDS,
    write_rtstruct,
    write_seg,
    write_series,
)
from unet_jax.data.files.dicom import mask_kind, read_dicom
from unet_jax.data.files.dicom_masks import referred_series, segment_names
from unet_jax.data.files.dicom_seg import write_dicom_seg
from unet_jax.data.files.polygons import fill_polygons
from unet_jax.data.files.read import list_images, read_image
from unet_jax.data.folder.segments import read_dicom_mask
from unet_jax.data.regions import Region
from unet_jax.errors import InputError

SHAPE = (5, 8, 7)  # slices, rows, columns
ORIGIN = np.array([-10.0, 20.0, 5.0])
NORMAL = np.cross(ROWS_COLUMNS[:3], ROWS_COLUMNS[3:])


@pytest.fixture
def series(tmp_path):
    write_series(tmp_path / "p1", count=SHAPE[0], size=SHAPE[1:], **UIDS)
    return read_dicom(tmp_path / "p1")


def _masks():
    drawn = np.random.default_rng(3).integers(0, 3, SHAPE)
    drawn[0] = drawn[3] = 0  # slices without a frame
    return {"liver": drawn == 1, "tumour": drawn == 2}


def _on_grid(drawn):
    return np.transpose(drawn, (2, 1, 0))  # (x, y, z)


def _read(path, series, segments=("liver", "tumour"), **options):
    stored = read_dicom_mask(path, image=series, segments=segments, **options)
    np.testing.assert_array_equal(stored.affine, series.affine)
    return stored.image[..., 0]


@pytest.mark.parametrize("kind", ["BINARY", "FRACTIONAL", "LABELMAP"])
def test_a_segmentation_lies_on_its_series(tmp_path, series, kind):
    masks = _masks()
    write_seg(tmp_path / "a.dcm", tmp_path / "p1", masks, kind=kind)
    found = _read(tmp_path / "a.dcm", series)
    expected = _on_grid(masks["liver"] + 2 * masks["tumour"])
    np.testing.assert_array_equal(found, expected)
    assert segment_names(tmp_path / "a.dcm") == ["liver", "tumour"]
    assert referred_series(tmp_path / "a.dcm") == {"1.2.3"}
    assert mask_kind(tmp_path / "a.dcm") == "SEG"
    seg = highdicom.seg.segread(tmp_path / "a.dcm")
    volume = seg.get_volume(combine_segments=True)
    assert int((volume.array > 0).sum()) == int((found > 0).sum())
    seg._db_con.close()


def test_what_we_write_is_read_again(tmp_path, series):
    masks = _masks()
    labels = _on_grid(masks["liver"] + 2 * masks["tumour"]).astype(np.uint8)
    write_dicom_seg(
        tmp_path / "a.dcm",
        series,
        labels,
        series=tmp_path / "p1",
        class_names=("background", "liver", "tumour"),
        class_colors=((0, 0, 0), (255, 0, 0), (0, 255, 0)),
    )
    assert segment_names(tmp_path / "a.dcm") == ["liver", "tumour"]
    np.testing.assert_array_equal(_read(tmp_path / "a.dcm", series), labels)


def test_segments_are_found_by_name_and_may_have_a_part_of_the_slices(tmp_path, series):
    masks = _masks()
    chosen = slice(4, 0, -1)
    write_seg(tmp_path / "a.dcm", tmp_path / "p1", masks, chosen=chosen)
    found = _read(tmp_path / "a.dcm", series, segments=("tumour",))
    np.testing.assert_array_equal(found, _on_grid(masks["tumour"]))


def test_overlapping_segments_are_regions_or_refused(tmp_path, series):
    whole, core = np.zeros(SHAPE, bool), np.zeros(SHAPE, bool)
    whole[1:4, 2:7, 1:6], core[2, 3:5, 2:4] = True, True
    write_seg(tmp_path / "a.dcm", tmp_path / "p1", {"whole": whole, "core": core})
    with pytest.raises(
        InputError,
        match=r"a\.dcm: the segments 'whole' and 'core' overlap in 4 pixels of a slice;"
        r".* set --config\.data\.regions='\(\(\"whole\", \(1, 2\), 1\), \(\"core\", ",
    ):
        _read(tmp_path / "a.dcm", series, segments=("whole", "core"))
    regions = (Region("whole", (1, 2), 1), Region("core", (2,), 2))
    options = {"segments": ("whole", "core"), "regions": regions}
    found = _read(tmp_path / "a.dcm", series, **options)
    np.testing.assert_array_equal(found, _on_grid(whole * 1 + core))
    core[0, 0, 0] = True
    write_seg(tmp_path / "a.dcm", tmp_path / "p1", {"whole": whole, "core": core})
    with pytest.raises(InputError, match="1 voxels are in 'core' alone; expected a cl"):
        _read(tmp_path / "a.dcm", series, **options)


def _square(place, low=1.6, high=5.4, squeeze=1.0):
    """Return a contour around the pixels 2 to 5, in mm."""
    middle = (low + high) / 2
    corners = np.array([[low, low], [low, high], [high, high], [high, low]])
    corners = middle + (corners - middle) * squeeze
    across, down = np.array(ROWS_COLUMNS[:3]) * 0.5, np.array(ROWS_COLUMNS[3:]) * 0.75
    plane = corners[:, :1] * across + corners[:, 1:] * down
    return ORIGIN + plane + place * 2.0 * NORMAL


def test_contours_are_filled_on_their_slices_and_holes_stay_empty(tmp_path, series):
    structures = {
        "GTV": [_square(1), _square(1, squeeze=0.3), _square(2.3)],
        "point": [],
    }
    write_rtstruct(tmp_path / "rs.dcm", structures)
    assert segment_names(tmp_path / "rs.dcm") == ["GTV"]
    assert referred_series(tmp_path / "rs.dcm") == {"1.2.3"}
    found = _read(tmp_path / "rs.dcm", series, segments=("GTV",))
    expected = np.zeros_like(found)
    expected[2:6, 2:6, 1:3] = 1
    expected[3:5, 3:5, 1] = 1 - fill_polygons(
        [np.array([[-0.07, -0.07], [-0.07, 1.07], [1.07, 1.07], [1.07, -0.07]])], (2, 2)
    )
    np.testing.assert_array_equal(found, expected)


def _other_frame(folder, _):
    write_seg(folder / "m.dcm", folder / "p1", _masks(), FrameOfReferenceUID="1.7")


def _between(folder, _):
    write_series(folder / "q", count=5, size=SHAPE[1:], step=1.5, **UIDS)
    write_seg(folder / "m.dcm", folder / "q", _masks())


def _contours_close(folder, _):
    write_rtstruct(folder / "m.dcm", {"liver": [_square(1), _square(1.3)]})


def _contour_outside(folder, _):
    write_rtstruct(folder / "m.dcm", {"liver": [_square(5)]})


def _contour_across(folder, _):
    contour = _square(1)
    contour[:2] += 3 * NORMAL
    write_rtstruct(folder / "m.dcm", {"liver": [contour]})


def _other_frame_of_contours(folder, _):
    write_rtstruct(folder / "m.dcm", {"liver": [_square(1)]}, frame="1.7")


def _damaged(folder, _):
    write_rtstruct(folder / "m.dcm", {"liver": [_square(1)]})
    content = (folder / "m.dcm").read_bytes()
    (folder / "m.dcm").write_bytes(content[:-40])


@pytest.mark.parametrize(
    ("write", "message"),
    [
        (_other_frame, r"m\.dcm: its frame of reference 1\.7 is not that of p1 \(1\.2"),
        (_other_frame_of_contours, r"m\.dcm: its frame of reference 1\.7 is not that"),
        (_between, r"m\.dcm: its pixels lie up to 0\.5 voxels beside those of p1; exp"),
        (
            _contours_close,
            r"contours of 'liver' have 1\.30 and 1\.00 as their place am",
        ),
        (
            _contour_outside,
            r"16 pixels of a slice lie outside of p1, such as \(2, 2, 5",
        ),
        (_damaged, r"m\.dcm: cannot be read \(.*; expected a whole DICOM file; exp"),
        (_contour_across, r"a contour of 'liver' runs through 1\.5 slices of p1; exp"),
    ],
)
def test_what_does_not_lie_on_the_grid_is_refused(tmp_path, series, write, message):
    write(tmp_path, series)
    with pytest.raises(InputError, match=message):
        _read(tmp_path / "m.dcm", series)


def test_a_mask_is_no_image_and_no_slice_of_its_series(tmp_path, series):
    write_seg(tmp_path / "p1/seg.dcm", tmp_path / "p1", _masks())
    np.testing.assert_array_equal(read_image(tmp_path / "p1").image, series.image)
    write_seg(tmp_path / "a.dcm", tmp_path / "p1", _masks())
    assert list_images(tmp_path) == [tmp_path / "p1"]
    with pytest.raises(InputError, match=r"is a mask of a DICOM series \(SEG\); exp"):
        read_image(tmp_path / "p1/seg.dcm")
