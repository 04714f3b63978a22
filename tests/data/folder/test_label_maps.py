"""Folders of label maps without images."""

import numpy as np
import pytest

from tests.data.folder.folders import ids_of, open_set, problems_of, write_pixels


def _write(folder, count=6, suffix=".png"):
    """Write label maps of three values in folders of patients."""
    for number in range(count):
        label = np.zeros((9, 11), np.uint8)
        label[2:6, 1 + number : 4 + number] = 40
        label[3:5, 2 + number] = 200
        place = folder / f"p{number}" / f"map{suffix}"
        place.parent.mkdir(parents=True)
        write_pixels(place, label)
    return folder


MAP = ((0, 0), (40, 1), ((100, 255), 2))


def test_the_image_of_a_case_is_its_stored_values(tmp_path):
    found = open_set(_write(tmp_path), labels_only=True, label_map=MAP)
    ids = [
        one for split in ("train", "validation", "test") for one in ids_of(found, split)
    ]
    assert sorted(ids) == [f"p{number}/map" for number in range(6)]
    case = found.source("train")[0]
    assert case.group == case.id.partition("/")[0]
    np.testing.assert_array_equal(np.unique(case.image), [0, 40, 200])
    np.testing.assert_array_equal(
        case.label, case.image[..., 0] // 40 // 2.5 + (case.image[..., 0] == 40)
    )
    assert "label maps without images" in found.notes[0]


def test_colour_masks_are_label_maps(tmp_path):
    colors = np.uint8([[0, 0, 0], [200, 0, 0], [0, 0, 200]])
    for number in range(5):
        label = np.zeros((8, 9), int)
        label[1 + number // 2 : 5, 2:7] = 1
        label[4, 4 + number // 3] = 2
        write_pixels(tmp_path / f"{number}.png", colors[label])
    palette = tuple(map(tuple, colors.tolist()))
    found = open_set(tmp_path, labels_only=True, palette=palette)
    case = found.source("train")[0]
    assert case.image.shape == (8, 9, 1)
    np.testing.assert_array_equal(case.image[..., 0], case.label)


def test_a_set_with_images_gives_its_masks(tmp_path):
    (tmp_path / "images").mkdir()
    write_pixels(tmp_path / "images/a.png", np.full((9, 11), 77, np.uint8))
    _write(tmp_path / "masks")
    found = open_set(tmp_path, labels_only=True, label_map=MAP)
    assert len(found.traits) == 6
    assert "left out: the folder images/: 1 image" in found.notes


def test_equal_label_maps_of_two_splits_are_told_and_not_refused(tmp_path):
    label = np.arange(30, dtype=np.uint8).reshape(5, 6) % 2
    for number in range(4):
        write_pixels(tmp_path / f"{number}.png", label)
    found = open_set(tmp_path, labels_only=True)
    assert any("images in two splits: " in note for note in found.notes)


def test_two_files_of_one_name_and_no_file_are_refused(tmp_path):
    assert "holds no label map" in problems_of(tmp_path, labels_only=True)[0]
    _write(tmp_path)
    label = np.eye(9, dtype=np.uint8)
    write_pixels(tmp_path / "p0/map.tif", label)
    problems = problems_of(
        tmp_path, labels_only=True, label_map=((0, 0), (40, 1), (200, 1))
    )
    assert any("have the same name" in problem for problem in problems)


@pytest.mark.parametrize("masks", ["no_such"])
def test_a_folder_that_is_not_there_is_refused(tmp_path, masks):
    _write(tmp_path)
    assert "is no folder" in problems_of(tmp_path, labels_only=True, masks=masks)[0]
