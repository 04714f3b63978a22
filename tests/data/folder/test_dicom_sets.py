"""Tests sets whose masks are DICOM segmentations or RTSTRUCT."""

import numpy as np
import pytest

from tests.data.files.dicoms import (
    ROWS_COLUMNS,
    UIDS,
    write_rtstruct,
    write_seg,
    write_series,
)
from tests.data.folder.folders import open_set, problems_of
from unet_jax.data.regions import Region
from unet_jax.errors import InputError

SHAPE = (5, 8, 7)


def _patient(series, number, **tags):
    tags = {"PatientID": f"id{number}", **UIDS, **tags}
    return write_series(
        series, count=5, size=SHAPE[1:], seed=number, series=f"1.5.{number}", **tags
    )


def _with_segments(series, mask, number, names=("liver", "tumour"), **tags):
    """Write a series, and segments by the remainder of its values."""
    pixels = _patient(series, number, **tags)
    masks = {name: pixels % 3 == at for at, name in enumerate(names, start=1)}
    write_seg(mask, series, masks)


LAYOUTS = {
    "two folders": ("images/p{}", "labels/p{}.dcm"),
    "beside the slices": ("p{0}", "p{0}/seg.dcm"),
    "folders of series": ("p{}/study/a", "p{}/study/b/1-1.dcm"),
}


@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS)
def test_segments_are_the_classes_of_the_series_that_they_refer_to(tmp_path, layout):
    for number in range(4):
        # The order of the segments of one case is not that of the others.
        names = ("liver", "tumour") if number else ("tumour", "liver")
        _with_segments(
            *(tmp_path / one.format(number) for one in layout), number, names
        )
    names = ("background", "liver", "tumour")
    data = open_set(tmp_path, class_names=names)
    assert data.class_names == names
    cases = {}
    for split in data.splits.parts:
        source = data.source(split)
        cases |= {source[at].id: source[at] for at in range(len(source))}
    assert len(cases) == 4
    for name, case in cases.items():
        values = (case.image[..., 0] + 1024) % 3
        swapped = np.where(values > 0, 3 - values, 0)
        expected = swapped if "p0" in name else values
        np.testing.assert_array_equal(case.label, expected)
    note = "segments of 4 DICOM masks: 'liver' in 4, 'tumour' in 4"
    assert any(note in one for one in data.notes), data.notes
    assert "left out: nothing" in data.notes
    if layout == LAYOUTS["two folders"]:  # by name, where the folders are named
        named = open_set(tmp_path, images="images", masks="labels", class_names=names)
        assert [case.values for case in named.traits] == [
            case.values for case in data.traits
        ]
    # Segments give the same classes where no name is told.
    assert set(open_set(tmp_path).class_names[1:]) == {"liver", "tumour"}


def test_series_of_a_patient_are_a_group_and_those_without_a_mask_are_left_out(
    tmp_path,
):
    for number in range(5):
        folder, patient = tmp_path / f"s{number}", f"id{number // 2}"
        _with_segments(folder, folder / "s.dcm", number, PatientID=patient)
    _patient(tmp_path / "s9", 9)
    data = open_set(tmp_path)
    assert data.groups["s0"] == data.groups["s1"] != data.groups["s2"]
    assert any("1 series without a mask are left out" in one for one in data.notes)


def test_a_segment_that_is_no_class_is_refused_until_the_classes_are_named(tmp_path):
    for number in range(4):
        names = ("liver", "Liver") if number == 2 else ("liver", "tumour")
        folder = tmp_path / f"p{number}"
        _with_segments(folder, folder / "seg.dcm", number, names)
    (line,) = problems_of(tmp_path)
    assert line.startswith(f"{tmp_path / 'p2/seg.dcm'}: the segments 'Liver' are not")
    assert line.endswith(
        'other: --config.data.segments=\'("liver", "tumour", "Liver")\''
    )
    (line,) = problems_of(tmp_path, class_names=("background", "liver", "tumour"))
    assert line.startswith(f"{tmp_path / 'p2/seg.dcm'}: the segments 'Liver' are no cl")
    assert line.endswith('set --config.data.segments=\'("liver", "tumour")\'')
    data = open_set(tmp_path, segments=("tumour",), class_names=("air", "lesion"))
    assert data.class_names == ("air", "lesion")
    values = {case.id: set(case.values) for case in data.traits}
    assert values == {"p0": {0, 1}, "p1": {0, 1}, "p2": {0}, "p3": {0, 1}}
    with pytest.raises(
        InputError, match=r"data\.segments: no mask has 'tumor'; expect"
    ):
        open_set(tmp_path, segments=("tumor",))


def test_segments_that_overlap_are_regions(tmp_path):
    regions = (Region("whole", (1, 2), 1), Region("core", (2,), 2))
    for number in range(4):
        folder = tmp_path / f"p{number}"
        pixels = _patient(folder, number)
        masks = {"whole": pixels % 3 > 0, "core": pixels % 3 == 2}
        write_seg(folder / "seg.dcm", folder, masks)
    data = open_set(tmp_path, regions=regions)
    case = data.source("train")[0]
    np.testing.assert_array_equal((case.image[..., 0] + 1024) % 3, case.label)
    lines = problems_of(tmp_path)
    assert len(lines) == 4
    assert "the segments 'whole' and 'core' overlap in" in lines[0]


def test_contours_beside_the_slices_are_masks(tmp_path):
    across, down = np.array(ROWS_COLUMNS[:3]) * 0.5, np.array(ROWS_COLUMNS[3:]) * 0.75
    start = np.array([-10.0, 20.0, 5.0]) + 4 * np.cross(across, down) / 0.375
    square = [
        start + x * across + y * down for x, y in [(1, 1), (1, 4), (4, 4), (4, 1)]
    ]
    for number in range(4):
        folder = tmp_path / f"p{number}"
        _patient(folder, number, PatientID="anonymous")
        write_rtstruct(folder / "rs", {"GTV": [square]}, series=f"1.5.{number}")
    data = open_set(tmp_path)
    assert data.class_names == ("background", "GTV")
    assert [case.values[1] for case in data.traits] == [9] * 4
    assert len(set(data.groups.values())) == 4  # one id of all patients tells nothing


def test_a_mask_of_another_series_and_masks_of_two_formats_are_refused(tmp_path):
    for number in range(3):
        folder = tmp_path / f"p{number}"
        _with_segments(folder, folder / "seg.dcm", number)
    write_rtstruct(tmp_path / "p1/rs.dcm", {"liver": []}, series="1.4")
    (line,) = problems_of(tmp_path)
    assert line.startswith(f"{tmp_path / 'p1/rs.dcm'}: the series that the mask refers")
    (tmp_path / "p1/rs.dcm").unlink()
    write_rtstruct(tmp_path / "p1/rs.dcm", {"liver": []}, series="1.5.1")
    (line,) = problems_of(tmp_path)
    assert "a second mask of its image, such as seg.dcm beside rs.dcm" in line
