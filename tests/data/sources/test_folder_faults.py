"""What is wrong with a folder: all of it at once, with its file and the mend."""

import ast
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


# ---- every fault at once, and each with its file -------------------------------------


def _named(folder, values, *, count=8, size=(8, 10)):
    """Write pictures whose masks have 0, 1 and 2, and other values in some of them."""
    _set(folder, count=count, size=size)
    for number, added in values.items():
        mask = (np.arange(np.prod(size)).reshape(size) % 3).astype(np.uint8)
        mask.ravel()[: 2 * len(added)] = np.repeat(added, 2)
        _write(folder / f"masks/{number}.png", mask)
    return folder


def test_all_faults_of_one_case_are_collected(tmp_path):
    _named(tmp_path, {0: [9], 1: [8]})
    pixels = _rng(0).random((8, 10)).astype(np.float32)
    pixels[3, 3] = np.nan
    (tmp_path / "images/0.png").unlink()
    _write(tmp_path / "images/0.tif", pixels)
    _picture(tmp_path / "images/1.png", 1, size=(8, 12))
    lines = _faults(tmp_path, class_names=("a", "b", "c"))
    assert len(lines) == 3
    assert "images/0.tif: 1 of 80 values are NaN" in lines[0]
    assert "masks/1.png: size (8, 10); expected (8, 12)" in lines[1]
    assert "masks/0.png, " in lines[2]
    assert "masks/1.png: the label has the values 0, 1, 2, 8, 9" in lines[2]
    assert lines[2].endswith("((0, 0), (1, 1), (2, 2), (8, -1), (9, -1))")


def test_values_splits_and_classes_are_looked_at_together(tmp_path):
    folder = _named(tmp_path / "set", {5: [9]})
    (folder / "images/7.png").write_bytes((folder / "images/0.png").read_bytes())
    path = tmp_path / "splits.json"
    splits = {"train": ["0", "1", "5"], "validation": ["3"], "test": ["7", "4"]}
    path.write_text(json.dumps(splits))
    options = {"class_names": ("a", "b", "c", "d"), "splits": str(path)}
    lines = _faults(folder, **options)
    assert len(lines) == 3
    assert "masks/5.png: the label has the values 0, 1, 2, 9" in lines[0]
    assert "images/7.png: the same image as" in lines[1]
    assert lines[2].startswith("class 3 (d): no training case has it")


@pytest.mark.parametrize("beside", [False, True])
def test_files_that_are_there_twice_are_faults_among_others(tmp_path, beside):
    image, mask = ("{}.png", "{}_mask.png") if beside else ("images/{}", "masks/{}")
    image, mask = (name.removesuffix(".png") + ".png" for name in (image, mask))
    for number in range(8):
        path = tmp_path / image.format(number)
        _picture(path, number, mask=tmp_path / mask.format(number))
    first = tmp_path / image.format(2)
    _picture(first.with_suffix(".bmp"), 2)
    second = tmp_path / mask.format(3)
    _write(second.with_suffix(".bmp"), np.zeros((8, 10), np.uint8))
    (tmp_path / mask.format(4)).write_bytes(b"\x89PNG\r\n\x1a\n1")
    (tmp_path / mask.format(5)).unlink()
    lines = _faults(tmp_path)
    assert len(lines) == 4
    assert (
        "2.bmp and 2.png have the same name; which one is the image"
        in lines[0] + (lines[1])
    )
    assert "are masks of one image; expected one; remove one" in lines[0] + lines[1]
    assert any(f"{tmp_path / mask.format(4)}: cannot be read" in line for line in lines)
    assert any("5.png: has no mask" in line for line in lines)


@pytest.mark.parametrize(
    ("values", "options", "proposal"),
    [
        ({5: [9]}, {}, ((0, 0), (1, 1), (2, 2), (9, -1))),
        ({5: [77]}, {"class_names": tuple("abcd")}, ((0, 0), (1, 1), (2, 2), (77, -1))),
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
    lines = _faults(folder, **options)
    found = ast.literal_eval(lines[0].split("label_map")[1].lstrip(" ="))
    assert found == proposal
    if len(values) == 1:
        assert "masks/5.png" in lines[0]
    names = options.get("class_names")
    if names is None or len(names) == 1 + max(index for _, index in proposal):
        assert _open(folder, class_names=names, label_map=proposal)


def test_0_and_1_in_some_masks_and_255_in_others_are_one_class(tmp_path):
    _set(tmp_path, classes=2)
    label = np.zeros((8, 10), np.uint8)
    label[:4] = 255
    for number in range(3):
        _write(tmp_path / f"masks/{number}.png", label)
    (line,) = _faults(tmp_path)
    assert line.endswith("data.label_map=((0, 0), (1, 1), (255, 1))")


def test_a_class_outside_of_the_training_slab_is_missing(tmp_path):
    size = (100, 12)
    _picture(tmp_path / "images/a.png", 0, size=size)
    label = np.zeros(size, np.uint8)
    label[10:20], label[95:99] = 1, 2
    (tmp_path / "masks").mkdir()
    _write(tmp_path / "masks/a.png", label)
    (line,) = _faults(tmp_path)
    assert line.startswith("class 2 (class_2): no training case has it")
    label[30:40] = 2
    _write(tmp_path / "masks/a.png", label)
    assert _open(tmp_path)


# ---- where files lie -----------------------------------------------------------------


def _volumes(folder, write_mask):
    """Write volumes of the axes of a scanner, and their masks in another way."""
    for number in range(4):
        pixels = _rng(number).integers(0, 3, (6, 7, 12)).astype(np.uint8)
        path = folder / f"p{number}/image.nii.gz"
        path.parent.mkdir(parents=True)
        _write(path, pixels)
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
    source = _open(tmp_path).source("train")
    np.testing.assert_array_equal(source[0].image[..., 0], source[0].label)


@pytest.mark.parametrize("turned", [False, True])
def test_one_file_with_a_place_and_one_without_is_a_fault(tmp_path, turned):
    def write(folder, pixels):
        pages = pixels if turned else pixels.transpose(2, 0, 1)
        tifffile.imwrite(folder / "label.tif", pages, photometric="minisblack")

    _volumes(tmp_path, write)
    lines = _faults(tmp_path)
    assert len(lines) == 4
    assert (
        "label.tif: image.nii.gz says how its voxels lie (NIfTI), label.tif"
        in (lines[0])
    )
    assert "save label.tif as NIfTI with the header of the other" in lines[0]


def test_a_spacing_that_some_files_lack_can_be_given(tmp_path):
    for number in range(5):
        known = {"resolution": (100, 100), "resolutionunit": "CENTIMETER"}
        path = tmp_path / f"images/{number}.tif"
        _picture(path, number, mask=tmp_path / f"masks/{number}.png")
        pixels = tifffile.imread(path)
        tifffile.imwrite(path, pixels, **(known if number else {}))
    (line,) = _faults(tmp_path)
    assert "0.tif: a known spacing: False in 1 cases" in line
    assert "set data.known_spacing to the mm" in line
    assert _open(tmp_path, known_spacing=(0.1, 0.1))


# ---- files of splits -----------------------------------------------------------------


def test_rows_of_groups_that_fit_no_case_are_faults(tmp_path):
    folder = _set(tmp_path / "set", count=10)
    path = tmp_path / "groups.csv"
    rows = [f"{number},p{number // 2}" for number in range(10)]

    def lines(rows):
        path.write_text("\n".join(["id,group", *rows]))
        return _faults(folder, splits=str(path))

    wrong = lines([row.replace(",", "x,") for row in rows])
    assert len(wrong) == 11
    assert "'0x' under group is in no file's name" in wrong[0]
    assert "no group for 0, 1, 2 and 7 more cases" in wrong[10]
    (line,) = lines([*rows, "0,p4"])
    assert "case '0' has the groups 'p0' and 'p4'; expected one" in line
    (line,) = lines(rows[1:])
    assert "no group for 0; expected a row" in line
    path.write_text("\n".join(["id,group", *rows, rows[0]]))
    assert _open(folder, splits=str(path)).source("train")[0].group.startswith("p")


def test_a_case_twice_in_a_split_is_a_fault(tmp_path):
    folder = _set(tmp_path / "set")
    path = tmp_path / "splits.json"
    path.write_text(json.dumps({"train": ["0", "1", "0.png"], "test": ["2"]}))
    (line,) = _faults(folder, splits=str(path))
    assert "'0.png' under train is there again; expected a case once" in line


def test_a_fold_that_would_change_nothing_is_refused(tmp_path):
    folder = _set(tmp_path / "set")
    path = tmp_path / "splits.json"
    splits = {"train": ["0", "1", "2"], "validation": ["3"], "test": ["4"]}
    path.write_text(json.dumps(splits))
    (line,) = _faults(folder, splits=str(path), fold=2)
    assert line.startswith("data.fold: found 2, expected -1: there are cases under")
    path.write_text(json.dumps([splits, splits]))
    assert _ids(_open(folder, splits=str(path), fold=1), "validation") == ["3"]
    path.write_text(json.dumps({"train": ["0"], "test": ["4"]}))
    (line,) = _faults(folder, splits=str(path), fold=0)
    assert "there are training cases of one group alone" in line
    for count in (1, 2):
        _set(tmp_path / str(count), count=count)
        (line,) = _faults(tmp_path / str(count), fold=3)
        assert f"there are too few groups ({count}) to draw folds of" in line


def test_a_group_that_an_expression_leaves_out_is_a_fault(tmp_path):
    _set(tmp_path)
    lines = _faults(tmp_path, group_regex=r"(x)?\d")
    assert len(lines) == 6
    assert "group 1 of data.group_regex '(x)?" in lines[0]
