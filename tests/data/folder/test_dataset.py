"""Tests folders of images and masks: layouts, labels, and the scan cache."""

import ast
import shlex

import numpy as np
import pytest
import tifffile

from tests.data.folder.folders import (
    ids_of,
    open_set,
    problems_of,
    rng,
    write_picture,
    write_pixels,
    write_set,
)
from unet_jax.errors import InputError

# ---- layouts -------------------------------------------------------------------------

LAYOUTS = {
    "two folders": ("images/{}.png", "masks/{}.png"),
    "other names": ("JPEG/../imgs/{}.bmp", "Labels/{}.png"),
    "mask suffix in two folders": ("images/{}.png", "gt/{}_mask.png"),
    "both have a suffix": ("images/{}_img.png", "masks/{}_seg.png"),
    "nnU-Net raw": ("imagesTr/{}_0000.nii.gz", "labelsTr/{}.nii.gz"),
    "side by side": ("{}.png", "{}_mask.png"),
    "side by side, both with a suffix": ("{}_image.png", "{}_mask.png"),
    "a folder a patient, both with one": ("{}/a_img.png", "{}/a_seg.png"),
    "side by side, other suffix": ("{}.tif", "{}-label.tif"),
    "a folder a patient": ("{}/scan.png", "{}/scan_seg.png"),
    "a folder a patient, by words": ("{}/image.nii.gz", "{}/label.nii.gz"),
    "a folder a patient, instances": ("{}/image.tif", "{}/instances.tif"),
    "patients in two folders": ("images/{}/a.png", "masks/{}/a.png"),
    "two folders a patient": ("{}/images/a.png", "{}/masks/a.png"),
    "volumes and labels": ("{}-volume.tif", "{}-labels.tif"),
}


@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS)
def test_layouts_are_found(tmp_path, layout):
    image, mask = layout
    if ".." in image:
        (tmp_path / "JPEG").mkdir()
    size = (8, 9, 3) if image.endswith(".nii.gz") else (8, 10)
    pixels = {}
    for number, name in enumerate(["p1", "p2", "p3", "p4"]):
        pixels[name] = write_picture(
            tmp_path / image.format(name),
            number,
            mask=tmp_path / mask.format(name),
            size=size,
        )
    (tmp_path / ".hidden.png").write_text("no picture")
    (tmp_path / "notes.txt").write_text("no picture")
    dataset = open_set(tmp_path)
    assert len(dataset.traits) == 4
    seen = {}
    for split in ("train", "validation", "test"):
        source = dataset.source(split)
        for case in (source[index] for index in range(len(source))):
            name = next(name for name in pixels if name in case.id)
            assert name in case.group
            seen[name] = case
    assert set(seen) == set(pixels)
    for name, case in seen.items():
        expected = pixels[name]
        if image.endswith(".nii.gz"):
            expected = expected[::-1]  # the affine's first axis runs to the left
            assert case.spacing == (1.0, 1.5, 4.0)
        np.testing.assert_array_equal(case.image[..., 0], expected)
        assert set(np.unique(case.label)) == {0, 1, 2}


def test_links_to_folders_are_followed(tmp_path):
    """Sets may consist of links; a link to a folder above makes no endless loop."""
    folder = tmp_path / "set"
    for number in range(4):
        write_set(tmp_path / f"elsewhere/p{number}", count=1, first=number)
    folder.mkdir()
    for number in range(4):
        (folder / f"p{number}").symlink_to(tmp_path / f"elsewhere/p{number}")
    for link in ("elsewhere/p0/again", "elsewhere/p1/images/again"):
        (tmp_path / link).symlink_to(tmp_path / "elsewhere" / link.split("/")[1])
    dataset = open_set(folder)
    assert [case.id for case in dataset.traits] == [f"p{n}/{n}" for n in range(4)]


def test_two_folders_with_patients_in_each_split(tmp_path):
    for place, split in enumerate(("train", "val", "test")):
        for patient in range(2):
            name = f"p{2 * place + patient}/a.png"
            write_picture(
                tmp_path / split / "images" / name,
                2 * place + patient,
                mask=tmp_path / split / "masks" / name,
            )
    dataset = open_set(tmp_path)
    assert ids_of(dataset, "train") == ["train/p0/a", "train/p1/a"]
    assert ids_of(dataset, "validation") == ["val/p2/a", "val/p3/a"]
    assert ids_of(dataset, "test") == ["test/p4/a", "test/p5/a"]
    assert dataset.source("test")[1].group == "p5"


def test_several_files_are_channels(tmp_path):
    for number in range(4):
        for channel in range(2):
            write_picture(
                tmp_path / f"imagesTr/c{number}_{channel:04d}.png",
                10 * number + channel,
                mask=tmp_path / f"labelsTr/c{number}.png",
            )
    dataset = open_set(tmp_path)
    assert [case.id for case in dataset.traits] == ["c0", "c1", "c2", "c3"]
    assert {case.channels for case in dataset.traits} == {2}


def test_named_folders_and_suffix(tmp_path):
    write_set(tmp_path)
    write_set(tmp_path / "deep")
    (tmp_path / "images").rename(tmp_path / "first")
    (tmp_path / "masks").rename(tmp_path / "second")
    dataset = open_set(tmp_path, images="first", masks="second")
    assert len(dataset.traits) == 6
    assert problems_of(tmp_path, images="third")[0].endswith(
        "third is no folder; expected a folder in data.path"
    )


def test_a_folder_that_cannot_be_read_says_what_was_expected(tmp_path):
    assert "is nothing, expected a folder" in problems_of(tmp_path / "none")[0]
    (tmp_path / "file").write_text("")
    assert "is a file, expected a folder" in problems_of(tmp_path / "file")[0]
    line = problems_of(tmp_path)[0]
    assert "holds 0 images and 0 masks" in line
    assert "set data.images and data.masks, or data.mask_suffix" in line
    for name in ("images", "imgs", "masks"):
        write_picture(tmp_path / name / "a.png", 0)
    assert (
        "has the folders images, imgs; expected one; name" in problems_of(tmp_path)[0]
    )


def test_suffixes_in_capitals(tmp_path):
    for number in range(6):
        write_picture(
            tmp_path / f"IMG_{number}.PNG",
            number,
            mask=tmp_path / f"IMG_{number}_Mask.PNG",
        )
    assert len(open_set(tmp_path).traits) == 6


# ---- labels --------------------------------------------------------------------------


def _masks(folder, labels):
    """Write a set with the same mask for each of five images."""
    for number in range(5):
        path = folder / "images" / f"{number}.png"
        write_picture(path, number, size=np.shape(labels)[:2])
        (folder / "masks").mkdir(exist_ok=True)
        write_pixels(folder / "masks" / f"{number}.png", np.asarray(labels))
    return folder


def test_0_and_255_just_work(tmp_path):
    _masks(tmp_path, np.uint8([[0, 255, 0], [255, 0, 0]]))
    for names in (None, ("back", "cell")):
        dataset = open_set(tmp_path, class_names=names)
        assert dataset.class_names == (names or ("background", "class_1"))
        assert dataset.label_map == ((0, 0), (255, 1))
        label = dataset.source("train")[0].label
        np.testing.assert_array_equal(label, [[0, 1, 0], [1, 0, 0]])


def test_plain_classes_are_counted(tmp_path):
    dataset = open_set(_masks(tmp_path, np.uint8([[0, 1], [2, 3]])))
    assert dataset.class_names == ("background", "class_1", "class_2", "class_3")


def test_unexpected_values_propose_a_map_that_works(tmp_path):
    _masks(tmp_path, np.uint8([[0, 40], [80, 120]]))
    (line,) = problems_of(tmp_path)
    assert "the values 0, 40, 80, 120; expected 0 to the largest class" in line
    proposal = ast.literal_eval(shlex.split(line.split("data.label_map=")[1])[0])
    dataset = open_set(tmp_path, label_map=proposal)
    np.testing.assert_array_equal(dataset.source("test")[0].label, [[0, 1], [2, 3]])
    names = ("a", "b", "c", "d")
    (line,) = problems_of(tmp_path, class_names=names)
    proposal = ast.literal_eval(shlex.split(line.split("data.label_map=")[1])[0])
    assert open_set(tmp_path, class_names=names, label_map=proposal)
    (line,) = problems_of(tmp_path, label_map=((0, 0), (40, 1), (80, 1)))
    assert "expected 0, 40, 80" in line
    assert "(120, -1)" in line
    ignoring = open_set(tmp_path, label_map=((0, 0), (40, 1), (80, 1), (120, -1)))
    np.testing.assert_array_equal(ignoring.source("test")[0].label, [[0, 1], [1, -1]])


def test_few_instances_are_one_class_too(tmp_path):
    write_set(tmp_path, classes=8)
    (line,) = problems_of(tmp_path, class_names=("background", "nucleus"))
    assert line.endswith("--config.data.label_map='((0, 0), ((1, 7), 1))'")


def test_instances_become_one_class_by_a_range(tmp_path):
    instances = np.arange(400).reshape(20, 20).astype(np.uint16)
    _masks(tmp_path, instances)
    for names in (None, ("background", "nucleus")):
        (line,) = problems_of(tmp_path, class_names=names)
        proposal = ast.literal_eval(shlex.split(line.split("label_map=")[1])[0])
        assert proposal == ((0, 0), ((1, 399), 1))
        dataset = open_set(tmp_path, class_names=names, label_map=proposal)
        label = dataset.source("train")[0].label
        np.testing.assert_array_equal(label, instances > 0)


def test_instances_with_a_value_to_ignore_propose_a_map_that_works(tmp_path):
    write_set(tmp_path)
    for number, file in enumerate(sorted((tmp_path / "masks").iterdir())):
        ids = (np.arange(80, dtype=np.int16).reshape(8, 10) - 1) * (number + 1)
        file.unlink()
        tifffile.imwrite(file.with_suffix(".tif"), ids)
    (line,) = problems_of(tmp_path)
    proposal = ast.literal_eval(shlex.split(line.split("data.label_map=")[1])[0])
    assert proposal[0] == ((-6, -1), -1)
    assert open_set(tmp_path, label_map=proposal).class_names == (
        "background",
        "class_1",
    )


def test_colour_masks_go_through_the_palette(tmp_path):
    palette = ((0, 0, 0), (250, 10, 10), (10, 10, 250))
    labels = np.arange(12).reshape(3, 4) % 3
    _masks(tmp_path, np.uint8(palette)[labels])
    (line,) = problems_of(tmp_path)
    assert "a colour mask; expected a colour for each class" in line
    dataset = open_set(tmp_path, palette=palette)
    assert len(dataset.class_names) == 3
    np.testing.assert_array_equal(dataset.source("train")[0].label, labels)


def test_channels_of_tiff_by_the_config(tmp_path):
    for number in range(4):
        image = rng(number).integers(0, 60000, (3, 8, 9)).astype(np.uint16)
        for folder in ("images", "masks"):
            (tmp_path / folder).mkdir(exist_ok=True)
        tifffile.imwrite(
            tmp_path / f"images/{number}.tif", image, photometric="minisblack"
        )
        labels = (np.arange(72).reshape(8, 9) % 2).astype(np.uint8)
        tifffile.imwrite(tmp_path / f"masks/{number}.tif", labels)
    (line,) = problems_of(tmp_path)
    assert "2.tif and 1 more: read as a stack of slices" in line
    assert "give --config.data.tiff_axes=CYX" in line
    dataset = open_set(tmp_path, tiff_axes="CYX")
    case = dataset.source("train")[0]
    assert case.image.shape == (8, 9, 3)
    assert case.image.dtype == np.uint16


# ---- what is kept --------------------------------------------------------------------


def test_files_are_read_once_and_again_when_they_change(tmp_path, monkeypatch):
    folder, cache = write_set(tmp_path / "set"), tmp_path / "run" / "dataset.json"
    first = open_set(folder, cache)
    read = []
    from unet_jax.data.folder import scan as folder_scan

    examine = folder_scan.examine
    monkeypatch.setattr(
        folder_scan,
        "examine",
        lambda pair, options: read.append(pair.id) or examine(pair, options),
    )
    again = open_set(folder, cache)
    assert read == []
    assert again.traits == first.traits
    assert again.fingerprint == first.fingerprint
    write_picture(folder / "images/3.png", 33)
    changed = open_set(folder, cache)
    assert read == ["3"]
    assert changed.fingerprint != first.fingerprint
    cache.write_text("{")
    open_set(folder, cache)
    assert len(read) == 7


def test_a_file_that_changes_under_the_run_is_named(tmp_path):
    source = open_set(write_set(tmp_path)).source("train")
    case = source[0]
    write_picture(tmp_path / f"images/{case.id}.png", 1, size=(5, 5))
    with pytest.raises(InputError, match="changed during the run"):
        source[0]
    with pytest.raises(IndexError):
        source[99]
