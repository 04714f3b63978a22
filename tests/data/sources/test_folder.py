"""A folder of images and masks: layouts, labels, splits, every fault by its text."""

import ast
import itertools
import json

import nibabel
import numpy as np
import pytest
import tifffile
from PIL import Image

from unet_jax.data.sources.folder import FolderOptions, open_folder
from unet_jax.errors import InputError

AFFINE = np.diag([-1.0, 1.5, 4.0, 1.0])


def _rng(number):
    return np.random.default_rng(number)


def _picture(path, number, *, mask=None, size=(8, 10), classes=3, channels=None):
    """Write an image, and its mask with every class."""
    shape = size if channels is None else (*size, channels)
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = _rng(number).integers(0, 255, shape).astype(np.uint8)
    _write(path, pixels)
    if mask is not None:
        labels = np.arange(np.prod(size)).reshape(size) % classes
        mask.parent.mkdir(parents=True, exist_ok=True)
        _write(mask, labels.astype(np.uint8))
    return pixels


def _write(path, pixels):
    if path.suffix == ".tif":
        tifffile.imwrite(path, pixels)
    elif path.name.endswith(".nii.gz"):
        nibabel.save(nibabel.Nifti1Image(pixels, AFFINE), path)
    else:
        Image.fromarray(pixels).save(path)


def _set(folder, count=6, first=0, **options):
    """Write a plain set of two folders."""
    for number in range(first, first + count):
        name = f"{number}.png"
        _picture(
            folder / "images" / name, number, mask=folder / "masks" / name, **options
        )
    return folder


def _open(folder, cache=None, seed=0, **options):
    return open_folder(
        FolderOptions(path=str(folder), **options),
        seed=seed,
        num_threads=2,
        scan_cache=cache,
    )


def _ids(dataset, split):
    source = dataset.source(split)
    return [source[index].id for index in range(len(source))]


def _faults(folder, **options):
    """The lines of an error."""
    with pytest.raises(InputError) as info:
        _open(folder, **options)
    return [*info.value.details] or [str(info.value)]


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
}


@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS)
def test_layouts_are_found(tmp_path, layout):
    image, mask = layout
    if ".." in image:
        (tmp_path / "JPEG").mkdir()
    size = (8, 9, 3) if image.endswith(".nii.gz") else (8, 10)
    pixels = {}
    for number, name in enumerate(["p1", "p2", "p3", "p4"]):
        pixels[name] = _picture(
            tmp_path / image.format(name),
            number,
            mask=tmp_path / mask.format(name),
            size=size,
        )
    (tmp_path / ".hidden.png").write_text("no picture")
    (tmp_path / "notes.txt").write_text("no picture")
    dataset = _open(tmp_path)
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


def test_several_files_are_channels(tmp_path):
    for number in range(4):
        for channel in range(2):
            _picture(
                tmp_path / f"imagesTr/c{number}_{channel:04d}.png",
                10 * number + channel,
                mask=tmp_path / f"labelsTr/c{number}.png",
            )
    dataset = _open(tmp_path)
    assert [case.id for case in dataset.traits] == ["c0", "c1", "c2", "c3"]
    assert {case.channels for case in dataset.traits} == {2}


def test_named_folders_and_suffix(tmp_path):
    _set(tmp_path)
    _set(tmp_path / "deep")
    (tmp_path / "images").rename(tmp_path / "first")
    (tmp_path / "masks").rename(tmp_path / "second")
    dataset = _open(tmp_path, images="first", masks="second")
    assert len(dataset.traits) == 6
    assert _faults(tmp_path, images="third")[0].endswith("third is no folder")


def test_a_folder_that_cannot_be_read_says_what_was_expected(tmp_path):
    assert "is nothing, expected a folder" in _faults(tmp_path / "none")[0]
    (tmp_path / "file").write_text("")
    assert "is a file, expected a folder" in _faults(tmp_path / "file")[0]
    line = _faults(tmp_path)[0]
    assert "holds 0 images and 0 masks" in line
    assert "set data.images and data.masks, or data.mask_suffix" in line
    for name in ("images", "imgs", "masks"):
        _picture(tmp_path / name / "a.png", 0)
    assert "has the folders images, imgs; name the one" in _faults(tmp_path)[0]


# ---- labels --------------------------------------------------------------------------


def _masks(folder, labels):
    """Write a set with the same mask for each of five images."""
    for number in range(5):
        path = folder / "images" / f"{number}.png"
        _picture(path, number, size=np.shape(labels)[:2])
        (folder / "masks").mkdir(exist_ok=True)
        _write(folder / "masks" / f"{number}.png", np.asarray(labels))
    return folder


def test_0_and_255_just_work(tmp_path):
    _masks(tmp_path, np.uint8([[0, 255, 0], [255, 0, 0]]))
    for names in (None, ("back", "cell")):
        dataset = _open(tmp_path, class_names=names)
        assert dataset.class_names == (names or ("background", "class_1"))
        assert dataset.label_map == ((0, 0), (255, 1))
        label = dataset.source("train")[0].label
        np.testing.assert_array_equal(label, [[0, 1, 0], [1, 0, 0]])


def test_plain_classes_are_counted(tmp_path):
    dataset = _open(_masks(tmp_path, np.uint8([[0, 1], [2, 3]])))
    assert dataset.class_names == ("background", "class_1", "class_2", "class_3")


def test_unexpected_values_propose_a_map_that_works(tmp_path):
    _masks(tmp_path, np.uint8([[0, 40], [80, 120]]))
    (line,) = _faults(tmp_path)
    assert "the values 0, 40, 80, 120; expected 0 to a largest class" in line
    proposal = ast.literal_eval(line.split("data.label_map=")[1])
    dataset = _open(tmp_path, label_map=proposal)
    np.testing.assert_array_equal(dataset.source("test")[0].label, [[0, 1], [2, 3]])
    names = ("a", "b", "c", "d")
    (line,) = _faults(tmp_path, class_names=names)
    proposal = ast.literal_eval(line.split("label_map = ")[1])
    assert _open(tmp_path, class_names=names, label_map=proposal)
    (line,) = _faults(tmp_path, label_map=((0, 0), (40, 1), (80, 1)))
    assert "expected 0, 40, 80" in line
    assert "(120, -1)" in line
    ignoring = _open(tmp_path, label_map=((0, 0), (40, 1), (80, 1), (120, -1)))
    np.testing.assert_array_equal(ignoring.source("test")[0].label, [[0, 1], [1, -1]])


def test_instances_become_one_class_by_a_range(tmp_path):
    instances = np.arange(400).reshape(20, 20).astype(np.uint16)
    _masks(tmp_path, instances)
    for names in (None, ("background", "nucleus")):
        (line,) = _faults(tmp_path, class_names=names)
        proposal = ast.literal_eval(line.split("label_map")[1].lstrip(" ="))
        assert proposal == ((0, 0), ((1, 399), 1))
        dataset = _open(tmp_path, class_names=names, label_map=proposal)
        label = dataset.source("train")[0].label
        np.testing.assert_array_equal(label, instances > 0)


def test_instances_with_a_value_to_ignore_propose_a_map_that_works(tmp_path):
    _set(tmp_path)
    for number, file in enumerate(sorted((tmp_path / "masks").iterdir())):
        ids = (np.arange(80, dtype=np.int16).reshape(8, 10) - 1) * (number + 1)
        file.unlink()
        tifffile.imwrite(file.with_suffix(".tif"), ids)
    (line,) = _faults(tmp_path)
    proposal = ast.literal_eval(line.split("data.label_map=")[1])
    assert proposal[0] == ((-6, -1), -1)
    assert _open(tmp_path, label_map=proposal).class_names == ("background", "class_1")


def test_colour_masks_go_through_the_palette(tmp_path):
    palette = ((0, 0, 0), (250, 10, 10), (10, 10, 250))
    labels = np.arange(12).reshape(3, 4) % 3
    _masks(tmp_path, np.uint8(palette)[labels])
    (line,) = _faults(tmp_path)
    assert "a colour mask; name the colour of each class" in line
    dataset = _open(tmp_path, palette=palette)
    assert len(dataset.class_names) == 3
    np.testing.assert_array_equal(dataset.source("train")[0].label, labels)


def test_channels_of_tiff_by_the_config(tmp_path):
    for number in range(4):
        image = _rng(number).integers(0, 60000, (3, 8, 9)).astype(np.uint16)
        for folder in ("images", "masks"):
            (tmp_path / folder).mkdir(exist_ok=True)
        tifffile.imwrite(
            tmp_path / f"images/{number}.tif", image, photometric="minisblack"
        )
        labels = (np.arange(72).reshape(8, 9) % 2).astype(np.uint8)
        tifffile.imwrite(tmp_path / f"masks/{number}.tif", labels)
    (line,) = _faults(tmp_path)
    assert "2.tif and 1 more images: read as a stack of slices" in line
    assert "set data.tiff_axes='CYX'" in line
    dataset = _open(tmp_path, tiff_axes="CYX")
    case = dataset.source("train")[0]
    assert case.image.shape == (8, 9, 3)
    assert case.image.dtype == np.uint16


# ---- splits --------------------------------------------------------------------------


def _patients(folder):
    """Write two slices of each of ten patients."""
    for patient in range(10):
        for index in range(2):
            name = f"p{patient:02d}_{index}.png"
            _picture(
                folder / "images" / name,
                2 * patient + index,
                mask=folder / "masks" / name,
            )
    return folder


def test_splits_are_drawn_by_group_and_seed(tmp_path):
    _patients(tmp_path)
    splits = {}
    for seed in (0, 0, 1):
        dataset = _open(tmp_path, seed=seed, group_regex=r"^(p\d+)_")
        found = {name: _ids(dataset, name) for name in ("train", "validation", "test")}
        assert sorted(itertools.chain(*found.values())) == sorted(
            c.id for c in dataset.traits
        )
        groups = [{one[:3] for one in ids} for ids in found.values()]
        assert [len(group) for group in groups] == [6, 2, 2]
        assert not groups[0] & groups[1] | groups[0] & groups[2] | groups[1] & groups[2]
        assert splits.setdefault(seed, found) == found
    assert splits[0] != splits[1]


def test_folds_are_disjoint_and_cover_all_but_the_test_split(tmp_path):
    _patients(tmp_path)
    options = {"group_regex": r"^(p\d+)_", "folds": 4}
    parts = [_open(tmp_path, fold=fold, **options) for fold in range(4)]
    tests = [_ids(part, "test") for part in parts]
    assert all(test == tests[0] for test in tests)
    validated = [one for part in parts for one in _ids(part, "validation")]
    assert len(validated) == len(set(validated)) == 16
    assert not set(validated) & set(tests[0])
    for part in parts:
        assert set(_ids(part, "train")) == set(validated) - set(
            _ids(part, "validation")
        )
    with pytest.raises(InputError, match=r"data.fold: found 4, expected 0 to 3"):
        _open(tmp_path, fold=4, **options)
    with pytest.raises(InputError, match=r"data.folds: found 9, expected at most 8"):
        _open(tmp_path, fold=0, group_regex=r"^(p\d+)_", folds=9)


@pytest.mark.parametrize("names", ["id", "file name"])
def test_splits_of_a_json_file(tmp_path, names):
    folder = _patients(tmp_path / "set")
    end = ".png" if names == "file name" else ""
    path = tmp_path / "splits.json"
    content = {
        "train": [f"p0{n}_{i}{end}" for n in range(6) for i in range(2)],
        "val": [f"p06_0{end}", f"p06_1{end}"],
        "test": [f"p07_0{end}"],
    }
    path.write_text(json.dumps(content))
    dataset = _open(folder, splits=str(path), group_regex=r"^(p\d+)_")
    assert _ids(dataset, "test") == ["p07_0"]
    assert _ids(dataset, "validation") == ["p06_0", "p06_1"]
    assert len(_ids(dataset, "train")) == 12
    assert any("5 cases are in no split" in note for note in dataset.notes)
    del content["val"]
    path.write_text(json.dumps(content))
    drawn = _open(folder, splits=str(path), group_regex=r"^(p\d+)_")
    validation = {one[:3] for one in _ids(drawn, "validation")}
    assert len(validation) == 1
    assert not validation & {one[:3] for one in _ids(drawn, "train")}


def test_splits_of_a_csv_file_with_groups(tmp_path):
    folder = _set(tmp_path / "set", count=4)
    path = tmp_path / "splits.csv"
    path.write_text("id,split,group\n0,train,a\n1,train,b\n2,validation,c\n3,test,d\n")
    dataset = _open(folder, splits=str(path))
    assert _ids(dataset, "train") == ["0", "1"]
    assert dataset.source("test")[0].group == "d"
    path.write_text("id,split,group\n0,train,a\n1,train,b\n2,test,a\n")
    (line,) = _faults(folder, splits=str(path))
    assert "group 'a' is in train (0) and in test (2)" in line
    path.write_text("name,split\n0,train\n")
    assert "expected id, and split or group" in _faults(folder, splits=str(path))[0]


def test_wrong_files_of_splits(tmp_path):
    folder = _set(tmp_path / "set", count=4)
    path = tmp_path / "splits.json"
    for content, message in (
        ("{", "is no JSON"),
        ("{}", "has no ids under 'train'"),
        ('{"train": ["0"], "holdout": []}', "has 'holdout': expected lists"),
        ('[{"train": ["0"]}]', "data.fold: found -1, expected 0 to 0"),
        ('{"train": ["0"], "train": ["1"]}', "names the split 'train' twice"),
        ('{"train": ["0"], "val": ["1"], "validation": ["2"]}', "'validation' twice"),
    ):
        path.write_text(content)
        assert message in _faults(folder, splits=str(path))[0]
    path.write_text('{"train": ["0", "9"], "test": ["0", "8"]}')
    lines = _faults(folder, splits=str(path))
    assert len(lines) == 3
    assert "'9' under train is in no file's name" in lines[0]
    assert "case '0' is in train (0) and in test (0)" in lines[2]
    assert "No such file" in _faults(folder, splits=str(tmp_path / "none.json"))[0]


def test_a_broken_file_of_splits_hides_no_other_fault(tmp_path):
    folder = _set(tmp_path / "set")
    (folder / "images/3.png").write_bytes(b"")
    path = tmp_path / "splits.json"
    path.write_text("{")
    lines = _faults(folder, splits=str(path), group_regex="(")
    assert [
        name for line in lines for name in ("3.png", "regex", "no JSON") if name in line
    ] == ["3.png", "regex", "no JSON"]


def test_one_image_is_cut_into_slabs_with_a_gap(tmp_path):
    pixels = _picture(
        tmp_path / "images/wide.png", 0, mask=tmp_path / "masks/wide.png", size=(9, 200)
    )
    dataset = _open(tmp_path)
    parts = {name: dataset.source(name)[0] for name in ("train", "validation", "test")}
    widths = {name: case.image.shape[1] for name, case in parts.items()}
    assert widths == {"train": 120, "validation": 36, "test": 36}
    np.testing.assert_array_equal(parts["train"].image[..., 0], pixels[:, :120])
    np.testing.assert_array_equal(parts["test"].image[..., 0], pixels[:, -36:])
    assert parts["train"].id == "wide[y 0-120]"
    named = f"case 'wide[y 0-120]', {tmp_path}/images/wide.png"
    assert dataset.source("train").where(0) == named
    whole = pixels[pixels != 0].astype(float)
    np.testing.assert_allclose(parts["test"].reference, [[whole.mean(), whole.std()]])
    assert any("no claim about new images" in note for note in dataset.notes)


def test_two_volumes_give_a_test_split_and_slabs(tmp_path):
    for number in range(2):
        _picture(
            tmp_path / f"images/{number}.nii.gz",
            number,
            mask=tmp_path / f"labels/{number}.nii.gz",
            size=(6, 7, 50),
        )
    dataset = _open(tmp_path)
    sizes = {
        name: dataset.source(name)[0].image.shape[2]
        for name in ("train", "validation", "test")
    }
    assert sizes == {"train": 39, "validation": 10, "test": 50}


def test_slabs_of_a_scan_share_out_what_is_labelled(tmp_path):
    image = np.random.default_rng(0).normal(size=(7, 8, 100)).astype(np.float32)
    label = np.zeros((7, 8, 100), np.uint8)
    label[2:4, 3:6, 10:60] = 1
    for name, array in (("images", image), ("labels", label)):
        (tmp_path / name).mkdir()
        _write(tmp_path / name / "scan.nii.gz", array)
    dataset = _open(tmp_path)
    parts = {name: dataset.source(name)[0] for name in ("train", "validation", "test")}
    ids = [case.id for case in parts.values()]
    assert ids == ["scan[z 0-40]", "scan[z 41-50]", "scan[z 51-100]"]
    counts = [int((case.label == 1).sum()) // 6 for case in parts.values()]
    assert counts == [30, 9, 9]


def test_slabs_of_a_scan_with_few_labelled_planes_are_those_of_the_whole(tmp_path):
    image = np.random.default_rng(0).normal(size=(7, 8, 100)).astype(np.float32)
    label = np.zeros((7, 8, 100), np.uint8)
    label[2:4, 3:6, 40:43] = 1
    for name, array in (("images", image), ("labels", label)):
        (tmp_path / name).mkdir()
        _write(tmp_path / name / "scan.nii.gz", array)
    dataset = _open(tmp_path)
    sizes = [dataset.source(name)[0].image.shape[2] for name in dataset.fingerprint]
    assert sizes == [60, 18, 18]


# ---- faults --------------------------------------------------------------------------


def test_all_faults_are_reported_at_once(tmp_path):
    folder = _set(tmp_path, count=8)
    (folder / "masks/0.png").unlink()
    _picture(folder / "masks/lonely.png", 0, classes=2)
    _picture(folder / "images/1.png", 1, size=(8, 11))
    whole = (folder / "images/2.png").read_bytes()
    (folder / "images/2.png").write_bytes(whole[: len(whole) // 2])
    _picture(folder / "images/3.png", 3, channels=3)
    (folder / "images/4.png").write_bytes(b"")
    lines = "\n".join(_faults(folder))
    for text in (
        "images/0.png: has no mask; expected one of its name",
        "masks/lonely.png: has no image",
        "masks/1.png: size (8, 10); expected (8, 11) as 1.png",
        "images/2.png: cannot be read",
        "images/4.png: is empty (0 bytes)",
        "images/3.png: channels: 3 in 1 cases; expected 1 as in the others",
    ):
        assert text in lines, text
    assert len(lines.splitlines()) == 6


def test_volumes_with_other_affines_nan_and_other_axes(tmp_path):
    for number in range(6):
        _picture(
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
    broken = _rng(0).random((6, 7, 5)).astype(np.float32)
    broken[0, 0, :2] = np.nan, np.inf
    _write(tmp_path / "images/1.nii.gz", broken)
    _picture(tmp_path / "images/2.png", 2, mask=tmp_path / "labels/2.png")
    (tmp_path / "images/2.nii.gz").unlink()
    (tmp_path / "labels/2.nii.gz").unlink()
    lines = "\n".join(_faults(tmp_path))
    assert "its affine differs from 0.nii.gz's, voxels lie up to 3 mm apart" in lines
    assert "2 of 210 values are NaN or infinite" in lines
    assert "images/2.png: spatial axes: 2 in 1 cases; expected 3" in lines
    assert "images/2.png: a known spacing: False in 1 cases; expected True" in lines


def test_a_class_that_training_never_sees(tmp_path):
    _set(tmp_path, classes=3)
    (line,) = _faults(tmp_path, class_names=("a", "b", "c", "d"))
    assert line.startswith("class 3 (d): no training case has it")


def test_the_same_image_in_two_splits(tmp_path):
    _set(tmp_path, count=6)
    whole = (tmp_path / "images/0.png").read_bytes()
    for number in range(1, 6):
        (tmp_path / f"images/{number}.png").write_bytes(whole)
    lines = _faults(tmp_path)
    assert "the same image as" in lines[0]
    assert "remove one, or put both into one group" in lines[0]


def test_the_same_image_twice_in_the_one_split_that_is_scored(tmp_path):
    folder = _set(tmp_path / "set", count=4)
    (folder / "images/3.png").write_bytes((folder / "images/2.png").read_bytes())
    path = tmp_path / "splits.json"
    path.write_text('{"train": ["0", "1"], "validation": ["2", "3"]}')
    dataset = _open(folder, splits=str(path))
    assert _ids(dataset, "validation") == _ids(dataset, "test") == ["2", "3"]
    path.write_text('{"train": ["0", "2"], "validation": ["1", "3"]}')
    (line,) = _faults(folder, splits=str(path))
    assert "which is in train, while it is in validation" in line


def test_all_faults_are_in_one_report(tmp_path):
    _set(tmp_path, count=60, classes=2)
    for number in range(53):
        (tmp_path / f"masks/{number}.png").unlink()
    (tmp_path / "images/54.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    _write(tmp_path / "masks/55.png", np.full((8, 10), 7, np.uint8))
    lines = _faults(tmp_path, class_names=("a", "b"))
    assert sum("has no mask" in line for line in lines) == 53
    assert sum("54.png" in line for line in lines) == 1
    assert any("55.png" in line and "0, 1, 7" in line for line in lines)
    # What is sound is looked at too: nothing comes up only when the rest is mended.
    _write(tmp_path / "masks/55.png", np.zeros((8, 10), np.uint8))
    lines = _faults(tmp_path, class_names=("a", "b", "c"))
    assert len(lines) == 55
    assert lines[-1].startswith("class 2 (c): no training case has it")


def test_colour_masks_without_a_palette_share_one_proposal(tmp_path):
    _set(tmp_path)
    for number in range(6):
        mask = np.zeros((8, 9, 3), np.uint8)
        mask[:2] = (255, 0, 0) if number % 2 else (0, 0, 255)
        _write(tmp_path / f"masks/{number}.png", mask)
    (line,) = _faults(tmp_path)
    assert "2.png and 3 more masks: a colour mask" in line
    assert "data.palette=((0, 0, 0), (0, 0, 255), (255, 0, 0))" in line


def test_folders_called_train_val_and_test_are_the_splits(tmp_path):
    for place, split in enumerate(("train", "val", "test")):
        _set(tmp_path / split, count=3, first=3 * place)
    data = _open(tmp_path)
    assert _ids(data, "train") == ["train/0", "train/1", "train/2"]
    assert _ids(data, "validation") == ["val/3", "val/4", "val/5"]
    assert _ids(data, "test") == ["test/6", "test/7", "test/8"]
    assert data.source("train")[0].group == "train/0"


@pytest.mark.parametrize("stray", ["", "extra/"])
def test_a_case_outside_of_the_split_folders_is_refused(tmp_path, stray):
    """Drawing splits of all would train on the folder called test."""
    for number, place in enumerate([*["train/"] * 3, *["test/"] * 3, stray]):
        name = f"{place}{number}.png"
        mask = tmp_path / "masks" / name
        _picture(tmp_path / "images" / name, number, mask=mask)
    (line,) = _faults(tmp_path)
    assert f"{stray}6: in no folder of a split, where others lie in test, train" in line
    assert "data.splits" in line


def test_a_folder_called_dev_is_the_validation_split(tmp_path):
    for place, split in enumerate(("train", "dev", "test")):
        _set(tmp_path / split, count=3, first=3 * place)
    assert _ids(_open(tmp_path), "validation") == ["dev/3", "dev/4", "dev/5"]


@pytest.mark.parametrize("above", ["", "site/"])
def test_the_visits_of_a_patient_stay_together(tmp_path, above):
    for patient in range(5):
        for visit in range(3):
            number = 3 * patient + visit
            _set(tmp_path / f"{above}p{patient}/v{visit}", count=1, first=number)
    data = _open(tmp_path)
    groups = [
        {data.source(split)[at].group for at in range(len(data.source(split)))}
        for split in ("train", "validation", "test")
    ]
    assert sum(map(len, groups)) == len(set.union(*groups)) == 5
    assert set.union(*groups) == {f"{above}p{patient}" for patient in range(5)}


def test_a_folder_that_is_no_patient_may_be_cut_by_an_expression(tmp_path):
    for number in range(6):
        _set(tmp_path / f"set/site{number % 3}/p{number}", count=1, first=number)
    ids = [f"site{number % 3}/p{number}/{number}" for number in range(6)]
    path = tmp_path / "splits.json"
    path.write_text(json.dumps({"train": ids[:3], "val": ids[3:5], "test": ids[5:]}))
    lines = _faults(tmp_path / "set", splits=str(path))
    assert "group 'site0' is in train" in lines[0]
    assert "set data.group_regex where a folder is no patient" in lines[0]
    data = _open(tmp_path / "set", splits=str(path), group_regex=r"p\d+")
    assert _ids(data, "test") == ids[5:]


def test_suffixes_in_capitals(tmp_path):
    for number in range(6):
        _picture(
            tmp_path / f"IMG_{number}.PNG",
            number,
            mask=tmp_path / f"IMG_{number}_Mask.PNG",
        )
    assert len(_open(tmp_path).traits) == 6


def test_a_channel_that_lies_elsewhere_is_named(tmp_path):
    for number in range(6):
        _picture(
            tmp_path / f"imagesTr/{number}_0000.nii.gz",
            number,
            mask=tmp_path / f"labelsTr/{number}.nii.gz",
            size=(6, 7, 5),
        )
        _picture(
            tmp_path / f"imagesTr/{number}_0001.nii.gz", 50 + number, size=(6, 7, 5)
        )
    moved = AFFINE.copy()
    moved[2, 3] += 50
    file = tmp_path / "imagesTr/3_0001.nii.gz"
    nibabel.save(
        nibabel.Nifti1Image(np.asarray(nibabel.load(file).dataobj), moved), file
    )
    (line,) = _faults(tmp_path)
    assert line.startswith(f"{file}: its affine differs from 3_0000.nii.gz's")
    assert "up to 50 mm apart" in line


def test_a_group_expression_that_does_not_match(tmp_path):
    _set(tmp_path)
    lines = _faults(tmp_path, group_regex=r"^p(\d+)")
    assert len(lines) == 6
    assert "data.group_regex '^p(\\\\d+)' is not in its id '0'" in lines[0]
    assert "data.group_regex: '('" in _faults(tmp_path, group_regex="(")[0]


# ---- what is kept --------------------------------------------------------------------


def test_files_are_read_once_and_again_when_they_change(tmp_path, monkeypatch):
    folder, cache = _set(tmp_path / "set"), tmp_path / "run" / "dataset.json"
    first = _open(folder, cache)
    read = []
    from unet_jax.data.sources import folder_scan

    examine = folder_scan.examine
    monkeypatch.setattr(
        folder_scan,
        "examine",
        lambda pair, options: read.append(pair.id) or examine(pair, options),
    )
    again = _open(folder, cache)
    assert read == []
    assert again.traits == first.traits
    assert again.fingerprint == first.fingerprint
    _picture(folder / "images/3.png", 33)
    changed = _open(folder, cache)
    assert read == ["3"]
    assert changed.fingerprint != first.fingerprint
    cache.write_text("{")
    _open(folder, cache)
    assert len(read) == 7


def test_a_file_that_changes_under_the_run_is_named(tmp_path):
    source = _open(_set(tmp_path)).source("train")
    case = source[0]
    _picture(tmp_path / f"images/{case.id}.png", 1, size=(5, 5))
    with pytest.raises(InputError, match="changed while the run went on"):
        source[0]
    with pytest.raises(IndexError):
        source[99]
