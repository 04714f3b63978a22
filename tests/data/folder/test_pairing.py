"""Tests how the names of files become images, channels and masks."""

import json
import os
import unicodedata

import numpy as np
import pytest

from tests.data.folder.folders import (
    ids_of,
    open_set,
    problems_of,
    rng,
    write_picture,
    write_pixels,
    write_set,
)
from unet_jax.data.folder.channels import image_and_channel, proposed_channels
from unet_jax.errors import InputError, setting

SQUARE = np.zeros((8, 10), np.uint8)


def _spots(*places):
    """A binary mask with single pixels."""
    mask = SQUARE.copy()
    mask.ravel()[list(places)] = 255
    return mask


def _label_of(dataset, name):
    for split in ("train", "validation", "test"):
        source = dataset.source(split)
        for index in range(len(source)):
            if source[index].id == name:
                return source[index].label
    raise KeyError(name)


# ---- several masks of an image -------------------------------------------------------


@pytest.mark.parametrize(
    ("image", "first", "second"),
    [
        ("c{}.png", "c{}_mask.png", "c{}_mask_1.png"),  # BUSI
        ("c{}.png", "c{}_mask.png", "c{}_mask2.png"),
        ("c ({}).png", "c ({})_mask.png", "c ({})_mask (2).png"),
        ("images/c{}.png", "masks/c{}.png", "masks/c{}_1.png"),
        ("images/c{}.png", "masks/c{}_seg.png", "masks/c{}_seg-2.png"),
        ("images/c{}.png", "masks/c{}/left.png", "masks/c{}/right.png"),
        ("images/c{}.png", "masks/c{}_mask_1.png", "masks/c{}_mask_2.png"),
        ("c{}.png", "c{}_label_1.png", "c{}_label_2.png"),
        ("c{0}/images/c{0}.png", "c{}/masks/77ab.png", "c{}/masks/01fe.png"),  # DSB
        ("c{}/scan.png", "c{}/mask_a.png", "c{}/mask_b.png"),
    ],
)
def test_several_masks_of_an_image_are_refused_or_joined(
    tmp_path, image, first, second
):
    for number in range(6):
        write_picture(tmp_path / image.format(number), number)
        for name, at in ((first, 3), (second, 41)):
            (tmp_path / name.format(number)).parent.mkdir(parents=True, exist_ok=True)
            if name == first or number in (2, 4):
                write_pixels(tmp_path / name.format(number), _spots(at, 20))
    (line,) = problems_of(tmp_path)
    assert "a second mask of its image, such as" in line
    assert line.endswith("set --config.data.join_masks=True")
    assert all(name.format(2).rpartition("/")[2] in line for name in (first, second))
    dataset = open_set(tmp_path, join_masks=True)
    assert "; the masks of 2 images are joined" in dataset.notes[0]
    assert len(dataset.traits) == 6
    joined = [case.id for case in dataset.traits if len(case.masks) == 2]
    assert len(joined) == 2
    label = _label_of(dataset, joined[0])
    np.testing.assert_array_equal(np.flatnonzero(label), [3, 20, 41])
    assert label.max() == 1


def test_the_gif_masks_of_drive_belong_to_its_tiff_images(tmp_path):
    for number in range(21, 27):
        write_picture(tmp_path / f"images/{number}_training.tif", number, channels=3)
        for place, end in (("1st_manual", "manual1"), ("mask", "training_mask")):
            path = tmp_path / place / f"{number}_{end}.gif"
            path.parent.mkdir(exist_ok=True)
            write_pixels(path, _spots(number))
    dataset = open_set(tmp_path, masks="1st_manual")
    assert len(dataset.traits) == 6
    label = _label_of(dataset, "23")
    np.testing.assert_array_equal(np.flatnonzero(label), [23])


def test_a_number_without_a_mark_is_another_image(tmp_path):
    write_set(tmp_path, count=6, classes=2)
    write_pixels(tmp_path / "masks/41.png", SQUARE)
    (line,) = problems_of(tmp_path, join_masks=True)
    assert "masks/41.png: no image has its name" in line


def test_masks_that_contradict_each_other_are_not_joined(tmp_path):
    write_set(tmp_path, classes=2)
    mask = SQUARE.copy()
    mask[1, 2:5] = 2  # of which (1, 3) is 1 in the first mask
    write_pixels(tmp_path / "masks/3_1.png", mask)
    (line,) = problems_of(tmp_path, join_masks=True)
    assert "masks/3_1.png: 1 pixels have another value than in " in line
    assert "such as 2 where those have 1" in line
    write_pixels(tmp_path / "masks/3_1.png", np.zeros((8, 9), np.uint8))
    (line,) = problems_of(tmp_path, join_masks=True)
    assert "3_1.png: size (8, 9, 1); expected" in line or "3.png: size" in line


# ---- channels by the endings of their names ------------------------------------------

BRATS = ("_flair", "_t1", "_t1ce", "_t2")


def _channels(folder, endings, *, image="p{0}/p{0}{1}.png", mask="p{0}/p{0}_seg.png"):
    """Write six images of one file for each channel; all pixels are the number."""
    for number in range(6):
        for index, ending in enumerate(endings):
            path = folder / image.format(number, ending)
            path.parent.mkdir(parents=True, exist_ok=True)
            pixels = rng(number).integers(0, 9, (8, 10)).astype(np.uint8)
            write_pixels(path, pixels + np.uint8(10 * index))
        path = folder / mask.format(number)
        path.parent.mkdir(parents=True, exist_ok=True)
        write_pixels(path, (np.arange(80) % 2).reshape(8, 10).astype(np.uint8))
    return folder


@pytest.mark.parametrize(
    ("endings", "image", "mask"),
    [
        (BRATS, "p{0}/p{0}{1}.png", "p{0}/p{0}_seg.png"),
        (("_DWI", "_T1c"), "p{0}/p{0}{1}.png", "p{0}/p{0}_tumor_segmentation.png"),
        (("-t1c", "-t1n", "-t2f"), "p{0}/p{0}{1}.png", "p{0}/p{0}-seg.png"),
        (("flair", "t1", "t1ce"), "p{0}/{1}.png", "p{0}/seg.png"),
        (("_green", "_nir", "_red"), "images/a{0}{1}.png", "masks/a{0}.png"),
        (("", "_adc", "_dwi"), "a{0}{1}.png", "a{0}_mask.png"),
        (("_a", "_b"), "p{0}/images/x{1}.png", "p{0}/masks/x.png"),
    ],
)
def test_channels_are_proposed_and_taken_in_their_order(tmp_path, endings, image, mask):
    folder = _channels(tmp_path, endings, image=image, mask=mask)
    (line,) = problems_of(folder)
    assert f"set {setting('data.channels', endings)}" in line
    dataset = open_set(folder, channels=endings)
    assert len(dataset.traits) == 6
    pixels = dataset.source("train")[0].image
    assert pixels.shape == (8, 10, len(endings))
    assert (pixels - pixels[..., :1] == 10 * np.arange(len(endings))).all()
    turned = open_set(folder, channels=endings[::-1]).source("train")[0].image
    np.testing.assert_array_equal(turned, pixels[..., ::-1])


def test_the_channels_of_an_image_are_counted_as_one_image(tmp_path):
    dataset = open_set(_channels(tmp_path, BRATS), channels=BRATS)
    found = [dataset.source(split).extent().images for split in dataset.splits.parts]
    assert sum(found) == len(dataset.traits)


@pytest.mark.parametrize(
    ("masks", "folder", "told"),
    [
        (("_left", "_right"), "masks", r"data.mask_suffix=_left or --.*=_right, and m"),
        (("",), "lung_masks", r"images/ \(6\), lung_masks/ \(6\), but .*data.masks"),
    ],
)
def test_masks_that_no_image_pairs_with_are_described(tmp_path, masks, folder, told):
    for number in range(6):
        name = f"x{'abcdef'[number]}"
        write_picture(tmp_path / f"images/{name}.png", number)
        for ending in masks:
            write_picture(tmp_path / folder / f"{name}{ending}.png", number)
    with pytest.raises(InputError, match=told):
        open_set(tmp_path)


def test_channels_may_lie_in_folders(tmp_path):
    endings = ("red", "green")
    _channels(tmp_path, endings, image="images/{1}/{0}.png", mask="masks/{0}.png")
    dataset = open_set(tmp_path, channels=("green/", "red/"))
    pixels = dataset.source("train")[0].image
    assert (pixels[..., 0] - pixels[..., 1] == 10).all()


def test_channels_that_are_not_named_are_left_out(tmp_path):
    dataset = open_set(_channels(tmp_path, BRATS), channels=("_t2", "_flair"))
    assert dataset.traits[0].channels == 2
    assert "12 files that are none of data.channels are left out" in dataset.notes[0]


def test_a_channel_that_is_missing_or_there_twice(tmp_path):
    folder = _channels(tmp_path, BRATS)
    for number in (1, 4):
        (folder / f"p{number}/p{number}_t1.png").unlink()
    write_pixels(folder / "p5/p5_t2.bmp", SQUARE)
    first, second = problems_of(folder, channels=BRATS)
    assert "p1_flair.png, " in first
    assert "p4_flair.png: no files for the channel '_t1' of the image" in first
    assert "p5_flair.png: 2 files for the channel '_t2'" in second


@pytest.mark.parametrize(
    ("stem", "found"),
    [
        ("a/b_T1", ("a/b", 0)),
        ("a/b_t1ce", ("a/b", 1)),
        ("t2/b", ("b", 2)),
        ("a/t2/b", ("a/b", 2)),
        ("at2/b", None),
        ("b_seg", None),
    ],
)
def test_the_channel_of_a_file(stem, found):
    assert image_and_channel(stem, ("_t1", "_t1ce", "t2/")) == found


def test_numbers_and_copies_are_no_channels():
    masks = [f"img_{number}" for number in (1, 2, 3)]
    images = [*masks, *(f"img_{number}" for number in range(10, 40))]
    assert proposed_channels(images, masks) is None
    assert proposed_channels(masks, masks) is None


# ---- names in another Unicode form, and of bytes that are none -----------------------


def _composed(name):
    return unicodedata.normalize("NFC", name)


def _decomposed(name):
    return unicodedata.normalize("NFD", name)


@pytest.mark.parametrize(
    ("image", "mask"),
    [
        ("images/é_{}.png", "masks/é_{}.png"),
        ("images/é{}/a.png", "masks/é{}/a.png"),
        ("é_{}.png", "é_{}_mask.png"),
    ],
)
@pytest.mark.parametrize("forms", [(_composed, _decomposed), (_decomposed, _composed)])
def test_names_of_two_unicode_forms_are_one_name(tmp_path, image, mask, forms):
    for number in range(6):
        names = [form(name) for form, name in zip(forms, (image, mask), strict=True)]
        paths = [tmp_path / name.format(number) for name in names]
        write_picture(paths[0], number, mask=paths[1])
    dataset = open_set(tmp_path)
    assert len(dataset.traits) == 6
    assert all(len(case.masks) == 1 for case in dataset.traits)
    assert len(dataset.splits.parts["train"]) == 4


def test_names_in_options_and_files_may_have_another_form(tmp_path):
    folder = tmp_path / _decomposed("größe")
    for number in range(6):
        names = [
            folder / _decomposed(f"{place}/pä{number // 2}_{number}_fläche.png")
            for place in ("bilder_ä", "flächen")
        ]
        write_picture(names[0], number, mask=names[1])
    path = tmp_path / "splits.json"
    ids = [f"pä{number // 2}_{number}_fläche" for number in range(6)]
    path.write_text(json.dumps({"train": ids[:2], "val": ids[2:4], "test": ids[4:]}))
    dataset = open_set(
        tmp_path / _composed("größe"),
        images=_composed("bilder_ä"),
        masks=_composed("flächen"),
        splits=str(path),
        group_regex=_composed(r"^(pä\d)"),
    )
    assert [len(ids_of(dataset, split)) for split in ("train", "test")] == [2, 2]
    assert dataset.groups[dataset.traits[0].id] in (
        _composed("pä0"),
        _decomposed("pä0"),
    )


def test_a_patient_of_two_unicode_forms_is_one_group(tmp_path):
    for number in range(8):
        form = _composed if number % 2 else _decomposed
        for place in ("images", "masks"):
            path = tmp_path / place / form(f"ü{number // 2}") / f"{number}.png"
            write_picture(path, number if place == "images" else 0, classes=2)
            if place == "masks":
                write_pixels(path, (np.arange(80) % 2).reshape(8, 10).astype(np.uint8))
    dataset = open_set(tmp_path)
    assert len(set(dataset.groups.values())) == 4


def test_names_that_are_no_text_are_read_and_split(tmp_path):
    for number in range(6):
        name = os.fsdecode(b"gr\xfcn_%d.png" % number)
        write_picture(
            tmp_path / "images" / name, number, mask=tmp_path / "masks" / name
        )
    path = tmp_path / "splits.json"
    # The second half as messages show it.
    ids = [f"gr\udcfcn_{number}" for number in range(3)]
    ids += [f"gr\\xfcn_{number}" for number in range(3, 6)]
    path.write_text(json.dumps({"train": ids[:4], "val": ids[4:5], "test": ids[5:]}))
    dataset = open_set(tmp_path, splits=str(path), cache=tmp_path / "facts.json")
    assert len(dataset.source("train")) == 4
    assert dataset.source("test")[0].id == "gr\udcfcn_5"
    assert dataset.fingerprint == open_set(tmp_path, splits=str(path)).fingerprint


# ---- what does not belong to a run ---------------------------------------------------


def test_what_data_splits_does_not_name_is_left_out(tmp_path):
    folder = write_set(tmp_path / "set", count=9)
    for number in (6, 7):
        (folder / f"masks/{number}.png").unlink()
    (folder / "images/8.png").write_bytes(b"")  # is named by no split either
    write_pixels(folder / "masks/lonely.png", SQUARE)
    assert len(problems_of(folder)) == 3
    path = tmp_path / "splits.json"
    splits = {"train": [*"0123"], "val": ["4"], "test": ["5"]}
    path.write_text(json.dumps(splits))
    dataset = open_set(folder, splits=str(path))
    assert len(dataset.traits) == 6
    assert "3 images that the splits do not name are left out" in dataset.notes[0]
    assert "1 masks without an image that the splits do" in dataset.notes[0]
    splits["train"].append("7")
    path.write_text(json.dumps(splits))
    (line,) = problems_of(folder, splits=str(path))
    assert "images/7.png: no mask has its name" in line


def test_the_masks_of_voc_lie_beside_annotations_that_are_no_pictures(tmp_path):
    for number in range(6):
        name = f"2007_{number:06d}"
        image, mask = (
            tmp_path / f"{place}/{name}.png"
            for place in ("JPEGImages", "SegmentationClass")
        )
        write_picture(image, number, mask=mask)
        (tmp_path / "Annotations").mkdir(exist_ok=True)
        (tmp_path / f"Annotations/{name}.xml").write_text("<a/>")
    assert len(open_set(tmp_path).traits) == 6


def test_files_that_are_not_read_are_counted_where_nothing_else_is(tmp_path):
    for number in range(4):
        for place in ("images", "masks"):
            path = tmp_path / place / f"{number}.gipl"
            path.parent.mkdir(exist_ok=True)
            path.write_bytes(b"voxels")
    (line,) = problems_of(tmp_path)
    assert line.endswith("files of other formats are not read (8 of .gipl)")


@pytest.mark.parametrize("value", [0, 7, (9, 200, 30)])
def test_blank_images_are_no_leak(tmp_path, value):
    for number in range(10):
        mask = tmp_path / f"masks/p{number // 2}/{number}.png"
        image = tmp_path / f"images/p{number // 2}/{number}.png"
        write_picture(image, number, mask=mask, channels=3, classes=2)
        if number % 2:
            blank = np.full((8, 10, 3), value, np.uint8)
            write_pixels(image, blank)
    dataset = open_set(tmp_path)
    assert sum(case.blank for case in dataset.traits) == 5
    blank[7, 9, 1] += 1  # no longer blank, and in several splits
    for number in range(1, 10, 2):
        write_pixels(tmp_path / f"images/p{number // 2}/{number}.png", blank)
    assert all("the same image as" in line for line in problems_of(tmp_path))
