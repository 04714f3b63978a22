"""Tests what is said of files that belong to no case, and of the spacing."""

import pytest

from tests.data.folder.folders import open_set, problems_of, write_picture, write_set
from unet_jax.errors import setting


def _notes(folder, **options):
    return "\n".join(open_set(folder, **options).notes)


def test_folders_suffixes_and_files_that_are_left_out_are_named(tmp_path):
    write_set(tmp_path)
    assert "left out: nothing" in _notes(tmp_path)
    for number in range(6):
        write_picture(tmp_path / f"vessels/{number}.png", number)
    for number in range(2):
        write_picture(tmp_path / f"overlays/a/{number}.png", number)
    write_picture(tmp_path / "cover.png", 9)
    (tmp_path / ".hidden").write_text("")
    for name in ("a.txt", "images/b.txt", "masks/c.json", "LICENSE"):
        (tmp_path / name).write_text("")
    notes = _notes(tmp_path)
    assert "left out: the folder vessels/: 6 images, as many as there are c" in notes
    assert "left out: the folder overlays/: 2 images\n" in notes
    assert "left out: files beside the folders: 1 image\n" in notes
    assert "no images: 2 of .txt, " in notes
    assert "1 of no suffix" in notes
    assert "hidden" not in notes


@pytest.mark.parametrize("other", ["1st_manual", "labels_fov", "seg-2"])
def test_a_second_folder_of_masks_is_asked_about(tmp_path, other):
    write_set(tmp_path)
    for number in range(6):
        write_picture(tmp_path / other / f"{number}.png", number)
    (line,) = problems_of(tmp_path)
    assert f"has masks in masks, {other}, 6 or more in each" in line
    settings = [setting("data.masks", name) for name in ("masks", other)]
    assert line.endswith(f"name it: {' or '.join(settings)}")
    assert f"left out: the folder {other}/: 6" in _notes(tmp_path, masks="masks")
    (tmp_path / other / "0.png").unlink()  # no mask for every image
    assert f"left out: the folder {other}/: 5" in _notes(tmp_path)


def test_it_is_said_where_spacing_comes_from(tmp_path):
    write_set(tmp_path / "png")
    assert "spacing: no file states one, and distances are in pixels" in _notes(
        tmp_path / "png"
    )
    notes = _notes(tmp_path / "png", known_spacing=(0.5, 0.5))
    assert "spacing: from data.known_spacing" in notes
    for number in range(3):
        name = f"{number}.nii.gz"
        mask = tmp_path / f"nii/masks/{name}"
        write_picture(
            tmp_path / f"nii/images/{name}", number, mask=mask, size=(4, 5, 6)
        )
    assert "spacing: from NIfTI headers" in _notes(tmp_path / "nii")


def test_a_folder_of_masks_with_endings_of_their_own_is_paired_once_it_is_named(
    tmp_path,
):
    for number in range(21, 27):
        write_picture(tmp_path / f"images/{number}_train.png", number)
        for name in ("mask/{}_train_mask.png", "1st_manual/{}_manual1.png"):
            image = tmp_path / "other.png"
            write_picture(image, number, mask=tmp_path / name.format(number))
    (tmp_path / "other.png").unlink()
    assert "data.masks" in problems_of(tmp_path)[0]
    for masks in ("mask", "1st_manual"):
        dataset = open_set(tmp_path, masks=masks)
        assert len(dataset.traits) == 6
        assert all(f"/{masks}/" in case.masks[0] for case in dataset.traits)
