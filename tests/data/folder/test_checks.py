"""Tests that all problems of a folder are reported together, with file and fix."""

import ast
import json
import shlex

import nibabel
import numpy as np
import pytest
import tifffile

from tests.data.folder.folders import (
    AFFINE,
    ids_of,
    open_set,
    problems_of,
    rng,
    write_picture,
    write_pixels,
    write_set,
)
from unet_jax.data.folder.classes import find_classes
from unet_jax.errors import setting

# ---- every problem at once, and each with its file ----------------------------------


def _named(folder, values, *, count=8, size=(8, 10)):
    """Write pictures whose masks have 0, 1 and 2, and other values in some of them."""
    write_set(folder, count=count, size=size)
    for number, added in values.items():
        mask = (np.arange(np.prod(size)).reshape(size) % 3).astype(np.uint8)
        mask.ravel()[: 2 * len(added)] = np.repeat(added, 2)
        write_pixels(folder / f"masks/{number}.png", mask)
    return folder


def test_all_problems_of_one_case_are_collected(tmp_path):
    _named(tmp_path, {0: [9], 1: [8]})
    pixels = rng(0).random((8, 10)).astype(np.float32)
    pixels[3, 3] = np.nan
    (tmp_path / "images/0.png").unlink()
    write_pixels(tmp_path / "images/0.tif", pixels)
    write_picture(tmp_path / "images/1.png", 1, size=(8, 12))
    lines = problems_of(tmp_path, class_names=("a", "b", "c"))
    assert len(lines) == 3
    assert "images/0.tif: 1 of 80 values are NaN" in lines[0]
    assert "masks/1.png: size (8, 10); expected (8, 12)" in lines[1]
    assert "masks/0.png, " in lines[2]
    assert "masks/1.png: the label has the values 0, 1, 2, 8, 9" in lines[2]
    assert lines[2].endswith("='((0, 0), (1, 1), (2, 2), (8, -1), (9, -1))'")


@pytest.mark.parametrize("mask", ["broken", "missing"])
def test_an_image_is_looked_at_whatever_its_mask_is_like(tmp_path, mask):
    write_set(tmp_path, count=10)
    write_picture(tmp_path / "images/1.png", 1, channels=3)
    for number in range(1, 7):
        (tmp_path / f"masks/{number}.png").unlink()
        if mask == "broken":
            (tmp_path / f"masks/{number}.png").write_bytes(b"")
    copy = (tmp_path / "images/2.png").read_bytes()
    for number in range(3, 7):
        (tmp_path / f"images/{number}.png").write_bytes(copy)
    path = tmp_path / "splits.json"
    splits = {"train": [*"120789"], "validation": ["3"], "test": ["4"]}
    path.write_text(json.dumps(splits))
    lines = problems_of(tmp_path, splits=str(path))
    bad = 4 if mask == "broken" else 1  # 5 and 6 are in no split
    assert len(lines) == bad + 1 + 2
    assert "images/1.png: channels: 3 in 1 cases; expected 1" in "".join(lines)
    same = [line for line in lines if "the same image" in line]
    for line, number in zip(same, (3, 4), strict=True):
        assert f"images/{number}.png: the same image as" in line


def test_every_bad_file_of_a_case_is_named(tmp_path):
    for number in range(4):
        for channel in range(3):
            write_picture(
                tmp_path / f"imagesTr/c{number}_{channel:04d}.png",
                10 * number + channel,
                mask=tmp_path / f"labelsTr/c{number}.png",
                size=(8, 11) if (number, channel) == (2, 1) else (8, 10),
            )
    write_pixels(tmp_path / "labelsTr/c2.png", np.full((8, 10), 1, np.uint8))
    for channel in (0, 2):
        (tmp_path / f"imagesTr/c1_{channel:04d}.png").write_bytes(b"")
    lines = problems_of(tmp_path)
    assert len(lines) == 3
    assert "c1_0000.png: is empty" in lines[0]
    assert "c1_0002.png: is empty" in lines[1]
    assert "c2_0001.png: size (8, 11); expected (8, 10) as the other" in lines[2]


def test_every_unknown_colour_of_a_mask_is_named(tmp_path):
    write_set(tmp_path)
    for number in range(6):
        mask = np.zeros((8, 10, 3), np.uint8)
        mask[2:] = (200, 0, 0)
        mask[5:] = (0, 30, 0)
        mask[7] = (0, 0, 90)
        write_pixels(tmp_path / f"masks/{number}.png", mask)
    lines = problems_of(tmp_path, palette=((0, 0, 0), (200, 0, 0)))
    assert len(lines) == 6
    assert "30 pixels have a colour that is not in data.palette" in lines[0]
    assert "most of them (0, 30, 0)" in lines[0]
    assert "(also (0, 0, 90)); add them to data.palette" in lines[0]


def test_a_link_to_nothing_is_named(tmp_path):
    write_set(tmp_path)
    (tmp_path / "images/3.png").unlink()
    (tmp_path / "images/3.png").symlink_to(tmp_path / "gone.png")
    (line,) = problems_of(tmp_path)
    assert f"images/3.png: a link to nothing ({tmp_path / 'gone.png'}); exp" in line
    assert line.endswith("put the file back, or remove the link")


def test_values_splits_and_classes_are_looked_at_together(tmp_path):
    folder = _named(tmp_path / "set", {5: [9]})
    (folder / "images/7.png").write_bytes((folder / "images/0.png").read_bytes())
    path = tmp_path / "splits.json"
    splits = {"train": ["0", "1", "5"], "validation": ["3"], "test": ["7", "4"]}
    path.write_text(json.dumps(splits))
    options = {"class_names": tuple("abcde"), "splits": str(path)}
    lines = problems_of(folder, **options)
    assert len(lines) == 3
    assert "masks/5.png: the label has the values 0, 1, 2, 9" in lines[0]
    assert "images/7.png: the same image as" in lines[1]
    assert lines[2].startswith("class 4 (e): no training case has it")


@pytest.mark.parametrize("beside", [False, True])
def test_files_that_are_there_twice_are_problems_among_others(tmp_path, beside):
    image, mask = ("{}.png", "{}_mask.png") if beside else ("images/{}", "masks/{}")
    image, mask = (name.removesuffix(".png") + ".png" for name in (image, mask))
    for number in range(8):
        path = tmp_path / image.format(number)
        write_picture(path, number, mask=tmp_path / mask.format(number))
    first = tmp_path / image.format(2)
    write_picture(first.with_suffix(".bmp"), 2)
    second = tmp_path / mask.format(3)
    write_pixels(second.with_suffix(".bmp"), np.zeros((8, 10), np.uint8))
    (tmp_path / mask.format(4)).write_bytes(b"\x89PNG\r\n\x1a\n1")
    (tmp_path / mask.format(5)).unlink()
    lines = problems_of(tmp_path)
    assert len(lines) == 4
    assert (
        "2.bmp and 2.png have the same name; expected one image"
        in lines[0] + (lines[1])
    )
    assert "are masks of one image; expected one; remove one" in lines[0] + lines[1]
    assert any(f"{tmp_path / mask.format(4)}: cannot be read" in line for line in lines)
    assert any("5.png: no mask has its name" in line for line in lines)


@pytest.mark.parametrize(
    ("values", "options", "proposal"),
    [
        # A value of one mask may be a rare class: pasting the map must not delete it.
        ({5: [9]}, {}, ((0, 0), (1, 1), (2, 2), (9, 3))),
        ({5: [77]}, {"class_names": tuple("abcd")}, ((0, 0), (1, 1), (2, 2), (77, 3))),
        ({5: [77]}, {"class_names": tuple("abc")}, ((0, 0), (1, 1), (2, 2), (77, -1))),
        (
            {1: [4, 255], 2: [4], 5: [6, 255], 6: [6]},
            {},
            ((0, 0), (1, 1), (2, 2), (4, 3), (6, 4), (255, -1)),
        ),
        ({n: [255] for n in range(8)}, {}, ((0, 0), (1, 1), (2, 2), (255, -1))),
        ({n: [7] for n in range(8)}, {}, ((0, 0), (1, 1), (2, 2), (7, 3))),
        (
            {n: [7, 255] for n in range(8)},
            {"class_names": tuple("abcd")},
            ((0, 0), (1, 1), (2, 2), (7, 3), (255, -1)),
        ),
    ],
)
def test_proposed_maps_leave_out_what_is_no_class(tmp_path, values, options, proposal):
    folder = _named(tmp_path, values)
    lines = problems_of(folder, **options)
    found = ast.literal_eval(shlex.split(lines[0].split("label_map=")[1])[0])
    assert found == proposal
    if len(values) == 1:
        assert "masks/5.png" in lines[0]
    names = options.get("class_names")
    if names is None or len(names) == 1 + max(index for _, index in proposal):
        assert open_set(folder, class_names=names, label_map=proposal)


@pytest.mark.parametrize(
    ("values", "names", "completed"),
    [
        ((0, 1, 2), ("cell", "nucleus"), ("background", "cell", "nucleus")),
        ((0, 1), ("cell",), ("background", "cell")),
        ((0, 255), ("cell",), ("background", "cell")),
        ((0, 1, 2), ("Background", "cell"), ("Background", "cell", "class_2")),
        ((0, 1, 2, 5), ("a", "b"), ("a", "b", "class_2", "class_3")),
        ((0, 1, 4, 5, 255), ("bg", "a", "b"), ("bg", "a", "b", "class_3")),
    ],
)
def test_names_without_the_background_s_are_the_reason(values, names, completed):
    masks = {f"{one}": dict.fromkeys(values, 9) for one in range(4)}
    found = find_classes(
        masks, class_names=names, label_map=(), file_of=lambda one, _: f"{one}.png"
    )
    (line,) = found.problems
    assert f"data.class_names has {len(names)} names; expected a name for each" in line
    assert setting("data.class_names", completed) in line
    assert ("background too" in line) == (completed[0] == "background")


def test_0_and_1_in_some_masks_and_255_in_others_are_one_class(tmp_path):
    write_set(tmp_path, classes=2)
    label = np.zeros((8, 10), np.uint8)
    label[:4] = 255
    for number in range(3):
        write_pixels(tmp_path / f"masks/{number}.png", label)
    (line,) = problems_of(tmp_path)
    assert line.endswith("--config.data.label_map='((0, 0), (1, 1), (255, 1))'")


def test_a_class_outside_of_the_training_slab_is_missing(tmp_path):
    size = (100, 12)
    write_picture(tmp_path / "images/a.png", 0, size=size)
    label = np.zeros(size, np.uint8)
    label[10:20], label[95:99] = 1, 2
    (tmp_path / "masks").mkdir()
    write_pixels(tmp_path / "masks/a.png", label)
    (line,) = problems_of(tmp_path)
    assert line.startswith("class 2 (class_2): no training case has it")
    label[30:40] = 2
    write_pixels(tmp_path / "masks/a.png", label)
    assert open_set(tmp_path)


def test_all_problems_are_reported_at_once(tmp_path):
    folder = write_set(tmp_path, count=8)
    (folder / "masks/0.png").unlink()
    write_pixels(folder / "masks/lonely.png", np.ones((8, 10), np.uint8))
    write_picture(folder / "images/1.png", 1, size=(8, 11))
    whole = (folder / "images/2.png").read_bytes()
    (folder / "images/2.png").write_bytes(whole[: len(whole) // 2])
    write_picture(folder / "images/3.png", 3, channels=3)
    (folder / "images/4.png").write_bytes(b"")
    lines = "\n".join(problems_of(folder))
    for text in (
        "images/0.png: no mask has its name; add the mask",
        "masks/lonely.png: no image has its name",
        "masks/1.png: size (8, 10); expected (8, 11) as 1.png",
        "images/2.png: cannot be read",
        "images/4.png: is empty (0 bytes)",
        "images/3.png: channels: 3 in 1 cases; expected 1 as in the others",
    ):
        assert text in lines, text
    assert len(lines.splitlines()) == 6


def test_volumes_with_other_affines_nan_and_other_axes(tmp_path):
    for number in range(6):
        write_picture(
            tmp_path / f"images/{number}.nii.gz",
            number,
            mask=tmp_path / f"labels/{number}.nii.gz",
            size=(6, 7, 5),
        )
    moved = AFFINE.copy()
    moved[1, 3] = 3
    label = nibabel.load(tmp_path / "labels/0.nii.gz")
    pixels = np.asarray(label.dataobj)
    nibabel.save(nibabel.Nifti1Image(pixels, moved), tmp_path / "labels/0.nii.gz")
    broken = rng(0).random((6, 7, 5)).astype(np.float32)
    broken[0, 0, :2] = np.nan, np.inf
    write_pixels(tmp_path / "images/1.nii.gz", broken)
    write_picture(tmp_path / "images/2.png", 2, mask=tmp_path / "labels/2.png")
    (tmp_path / "images/2.nii.gz").unlink()
    (tmp_path / "labels/2.nii.gz").unlink()
    lines = "\n".join(problems_of(tmp_path))
    assert "its affine differs from 0.nii.gz's, voxels are up to 3 mm apart" in lines
    assert "2 of 210 values are NaN or infinite" in lines
    assert "images/2.png: spatial axes: 2 in 1 cases; expected 3" in lines
    assert "images/2.png: a known spacing: False in 1 cases; expected True" in lines


def test_a_class_that_training_never_sees(tmp_path):
    write_set(tmp_path, classes=3)
    (line,) = problems_of(tmp_path, class_names=("a", "b", "c", "d"))
    assert line.startswith("class 3 (d): no training case has it")


def test_the_same_image_in_two_splits(tmp_path):
    write_set(tmp_path, count=6)
    whole = (tmp_path / "images/0.png").read_bytes()
    for number in range(1, 6):
        (tmp_path / f"images/{number}.png").write_bytes(whole)
    lines = problems_of(tmp_path)
    assert "the same image as" in lines[0]
    assert "remove one, or put both into one group" in lines[0]
    assert lines[0].endswith("set --config.data.allow_duplicates=True")


def test_a_published_split_with_the_same_image_twice(tmp_path):
    write_set(tmp_path / "set", count=6)
    for name in ("4", "5"):
        whole = (tmp_path / "set/images/0.png").read_bytes()
        (tmp_path / f"set/images/{name}.png").write_bytes(whole)
    path = tmp_path / "splits.json"
    splits = {"train": ["0", "1"], "validation": ["2"], "test": ["3", "4", "5"]}
    path.write_text(json.dumps(splits))
    options = {"splits": str(path), "allow_duplicates": True}
    data = open_set(tmp_path / "set", **options)
    assert [data.source(split).duplicates for split in splits] == [0, 0, 2]
    (note,) = [note for note in data.notes if "two splits" in note]
    assert note.startswith("images in two splits: ")
    assert "images/4.png" in note


def test_the_same_image_twice_in_the_one_split_that_is_scored(tmp_path):
    folder = write_set(tmp_path / "set", count=4)
    (folder / "images/3.png").write_bytes((folder / "images/2.png").read_bytes())
    path = tmp_path / "splits.json"
    path.write_text('{"train": ["0", "1"], "validation": ["2", "3"]}')
    dataset = open_set(folder, splits=str(path))
    assert ids_of(dataset, "validation") == ids_of(dataset, "test") == ["2", "3"]
    path.write_text('{"train": ["0", "2"], "validation": ["1", "3"]}')
    (line,) = problems_of(folder, splits=str(path))
    assert "which is in train, while it is in validation" in line


def test_all_problems_are_in_one_report(tmp_path):
    write_set(tmp_path, count=60, classes=2)
    for number in range(53):
        (tmp_path / f"masks/{number}.png").unlink()
    (tmp_path / "images/54.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    write_pixels(tmp_path / "masks/55.png", np.full((8, 10), 7, np.uint8))
    lines = problems_of(tmp_path, class_names=("a", "b"))
    (line,) = (line for line in lines if "no mask has its name" in line)
    assert "and 50 more: " in line
    assert sum("54.png" in line for line in lines) == 1
    assert any("55.png" in line and "0, 1, 7" in line for line in lines)
    # What is sound is looked at too: nothing comes up only when the rest is fixed.
    write_pixels(tmp_path / "masks/55.png", np.zeros((8, 10), np.uint8))
    lines = problems_of(tmp_path, class_names=("a", "b", "c"))
    assert len(lines) == 3
    assert lines[-1].startswith("class 2 (c): no training case has it")


def test_colour_masks_without_a_palette_share_one_proposal(tmp_path):
    write_set(tmp_path)
    for number in range(6):
        mask = np.zeros((8, 9, 3), np.uint8)
        mask[:2] = (255, 0, 0) if number % 2 else (0, 0, 255)
        write_pixels(tmp_path / f"masks/{number}.png", mask)
    (line,) = problems_of(tmp_path)
    assert "2.png and 3 more masks: a colour mask" in line
    assert "--config.data.palette='((0, 0, 0), (0, 0, 255), (255, 0, 0))'" in line


def test_a_channel_that_lies_elsewhere_is_named(tmp_path):
    for number in range(6):
        write_picture(
            tmp_path / f"imagesTr/{number}_0000.nii.gz",
            number,
            mask=tmp_path / f"labelsTr/{number}.nii.gz",
            size=(6, 7, 5),
        )
        write_picture(
            tmp_path / f"imagesTr/{number}_0001.nii.gz", 50 + number, size=(6, 7, 5)
        )
    moved = AFFINE.copy()
    moved[2, 3] += 50
    file = tmp_path / "imagesTr/3_0001.nii.gz"
    nibabel.save(
        nibabel.Nifti1Image(np.asarray(nibabel.load(file).dataobj), moved), file
    )
    (line,) = problems_of(tmp_path)
    assert line.startswith(f"{file}: its affine differs from 3_0000.nii.gz's")
    assert "up to 50 mm apart" in line


# ---- where files lie -----------------------------------------------------------------


def _volumes(folder, write_mask):
    """Write volumes of the axes of a scanner, and their masks in another way."""
    for number in range(4):
        pixels = rng(number).integers(0, 3, (6, 7, 12)).astype(np.uint8)
        path = folder / f"p{number}/image.nii.gz"
        path.parent.mkdir(parents=True)
        write_pixels(path, pixels)
        write_mask(path.parent, pixels)


def test_a_mask_in_another_axis_order_fits_its_image(tmp_path):
    def write(folder, pixels):
        # The same place: axes swapped, and the new first one runs the other way.
        turned = AFFINE[:, [2, 1, 0, 3]].copy()
        turned[:, 3] += 11 * turned[:, 0]
        turned[:, 0] *= -1
        mask = nibabel.Nifti1Image(pixels.transpose(2, 1, 0)[::-1], turned)
        nibabel.save(mask, folder / "label.nii.gz")

    _volumes(tmp_path, write)
    source = open_set(tmp_path).source("train")
    np.testing.assert_array_equal(source[0].image[..., 0], source[0].label)


@pytest.mark.parametrize("turned", [False, True])
def test_one_file_with_a_place_and_one_without_is_a_problem(tmp_path, turned):
    def write(folder, pixels):
        pages = pixels if turned else pixels.transpose(2, 0, 1)
        tifffile.imwrite(folder / "label.tif", pages, photometric="minisblack")

    _volumes(tmp_path, write)
    lines = problems_of(tmp_path)
    assert len(lines) == 4
    assert "label.tif: image.nii.gz states how its voxels lie, label.tif" in (lines[0])
    assert "save label.tif in the format of image.nii.gz, with its header" in lines[0]


def test_a_spacing_that_some_files_lack_can_be_given(tmp_path):
    for number in range(5):
        unit = {"imagej": True, "metadata": {"unit": "cm"}}
        known = {"resolution": (100, 100), **unit}
        path = tmp_path / f"images/{number}.tif"
        write_picture(path, number, mask=tmp_path / f"masks/{number}.png")
        pixels = tifffile.imread(path)
        tifffile.imwrite(path, pixels, **(known if number else {}))
    (line,) = problems_of(tmp_path)
    assert "0.tif: a known spacing: False in 1 cases" in line
    assert "set data.known_spacing to the mm" in line
    assert open_set(tmp_path, known_spacing=(0.1, 0.1))
