"""Tests the splits of a folder: drawn, from a file, from folders, as slabs."""

import itertools
import json

import numpy as np
import pytest

from tests.data.folder.folders import (
    ids_of,
    open_set,
    problems_of,
    write_picture,
    write_pixels,
    write_set,
)
from unet_jax.errors import InputError

# ---- splits --------------------------------------------------------------------------


def _patients(folder):
    """Write two slices of each of ten patients."""
    for patient in range(10):
        for index in range(2):
            name = f"p{patient:02d}_{index}.png"
            write_picture(
                folder / "images" / name,
                2 * patient + index,
                mask=folder / "masks" / name,
            )
    return folder


def test_splits_are_drawn_by_group_and_seed(tmp_path):
    _patients(tmp_path)
    splits = {}
    for seed in (0, 0, 1):
        dataset = open_set(tmp_path, seed=seed, group_regex=r"^(p\d+)_")
        found = {
            name: ids_of(dataset, name) for name in ("train", "validation", "test")
        }
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
    parts = [open_set(tmp_path, fold=fold, **options) for fold in range(4)]
    tests = [ids_of(part, "test") for part in parts]
    assert all(test == tests[0] for test in tests)
    validated = [one for part in parts for one in ids_of(part, "validation")]
    assert len(validated) == len(set(validated)) == 16
    assert not set(validated) & set(tests[0])
    for part in parts:
        assert set(ids_of(part, "train")) == set(validated) - set(
            ids_of(part, "validation")
        )
    with pytest.raises(InputError, match=r"data.fold: found 4, expected 0 to 3"):
        open_set(tmp_path, fold=4, **options)
    with pytest.raises(InputError, match=r"data.folds: found 9, expected at most 8"):
        open_set(tmp_path, fold=0, group_regex=r"^(p\d+)_", folds=9)


@pytest.mark.parametrize(
    ("cases", "test_fraction", "folds"), [(3, 0.2, 2), (6, 0.2, 5), (2, 0.0, 2)]
)
def test_there_are_as_many_folds_as_groups_and_at_most_five(
    tmp_path, cases, test_fraction, folds
):
    write_set(tmp_path, count=cases)
    options = {"test_fraction": test_fraction}
    parts = [open_set(tmp_path, fold=fold, **options) for fold in range(folds)]
    assert {part.folds for part in parts} == {folds}
    assert open_set(tmp_path, fold=-1, **options).folds == 0
    validated = sorted(one for part in parts for one in ids_of(part, "validation"))
    assert validated == sorted(
        {str(number) for number in range(cases)}
        - ({*ids_of(parts[0], "test")} if test_fraction else set())
    )
    with pytest.raises(InputError, match=f"found {folds}, expected 0 to {folds - 1}"):
        open_set(tmp_path, fold=folds, **options)


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
    dataset = open_set(folder, splits=str(path), group_regex=r"^(p\d+)_")
    assert ids_of(dataset, "test") == ["p07_0"]
    assert ids_of(dataset, "validation") == ["p06_0", "p06_1"]
    assert len(ids_of(dataset, "train")) == 12
    assert any("5 images that the splits do not name" in note for note in dataset.notes)
    del content["val"]
    path.write_text(json.dumps(content))
    drawn = open_set(folder, splits=str(path), group_regex=r"^(p\d+)_")
    validation = {one[:3] for one in ids_of(drawn, "validation")}
    assert len(validation) == 1
    assert not validation & {one[:3] for one in ids_of(drawn, "train")}


def test_splits_of_a_csv_file_with_groups(tmp_path):
    folder = write_set(tmp_path / "set", count=4)
    path = tmp_path / "splits.csv"
    path.write_text("id,split,group\n0,train,a\n1,train,b\n2,validation,c\n3,test,d\n")
    dataset = open_set(folder, splits=str(path))
    assert ids_of(dataset, "train") == ["0", "1"]
    assert dataset.source("test")[0].group == "d"
    path.write_text("id,split,group\n0,train,a\n1,train,b\n2,test,a\n")
    (line,) = problems_of(folder, splits=str(path))
    assert "group 'a' is in train (0) and in test (2)" in line
    path.write_text("name,split\n0,train\n")
    assert "expected id, and split or group" in problems_of(folder, splits=str(path))[0]


def test_one_image_is_cut_into_slabs_with_a_gap(tmp_path):
    pixels = write_picture(
        tmp_path / "images/wide.png", 0, mask=tmp_path / "masks/wide.png", size=(9, 200)
    )
    dataset = open_set(tmp_path)
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
    assert any("says nothing about new images" in note for note in dataset.notes)


def test_two_volumes_give_a_test_split_and_slabs(tmp_path):
    for number in range(2):
        write_picture(
            tmp_path / f"images/{number}.nii.gz",
            number,
            mask=tmp_path / f"labels/{number}.nii.gz",
            size=(6, 7, 50),
        )
    dataset = open_set(tmp_path)
    sizes = {
        name: dataset.source(name)[0].image.shape[2]
        for name in ("train", "validation", "test")
    }
    assert sizes == {"train": 39, "validation": 10, "test": 50}
    assert dataset.source("validation").thinnest_slab() == (2, 10)
    assert dataset.source("test").thinnest_slab() is None


def test_slabs_of_a_scan_cover_what_is_labelled(tmp_path):
    image = np.random.default_rng(0).normal(size=(7, 8, 100)).astype(np.float32)
    label = np.zeros((7, 8, 100), np.uint8)
    label[2:4, 3:6, 10:60] = 1
    for name, array in (("images", image), ("labels", label)):
        (tmp_path / name).mkdir()
        write_pixels(tmp_path / name / "scan.nii.gz", array)
    dataset = open_set(tmp_path)
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
        write_pixels(tmp_path / name / "scan.nii.gz", array)
    dataset = open_set(tmp_path)
    sizes = [dataset.source(name)[0].image.shape[2] for name in dataset.fingerprint]
    assert sizes == [60, 18, 18]


# ---- folders that are splits, and patients in folders --------------------------------


def test_folders_called_train_val_and_test_are_the_splits(tmp_path):
    for place, split in enumerate(("train", "val", "test")):
        write_set(tmp_path / split, count=3, first=3 * place)
    data = open_set(tmp_path)
    assert ids_of(data, "train") == ["train/0", "train/1", "train/2"]
    assert ids_of(data, "validation") == ["val/3", "val/4", "val/5"]
    assert ids_of(data, "test") == ["test/6", "test/7", "test/8"]
    assert data.source("train")[0].group == "train/0"


@pytest.mark.parametrize("stray", ["", "extra/"])
def test_a_case_outside_of_the_split_folders_is_refused(tmp_path, stray):
    """Drawing splits of all would train on the folder called test."""
    for number, place in enumerate([*["train/"] * 3, *["test/"] * 3, stray]):
        name = f"{place}{number}.png"
        mask = tmp_path / "masks" / name
        write_picture(tmp_path / "images" / name, number, mask=mask)
    (line,) = problems_of(tmp_path)
    assert (
        f"{stray}6: in no folder of a split, but other cases are in test, train" in line
    )
    assert "data.splits" in line


def test_a_folder_called_dev_is_the_validation_split(tmp_path):
    for place, split in enumerate(("train", "dev", "test")):
        write_set(tmp_path / split, count=3, first=3 * place)
    assert ids_of(open_set(tmp_path), "validation") == ["dev/3", "dev/4", "dev/5"]


@pytest.mark.parametrize("above", ["", "site/"])
def test_the_visits_of_a_patient_stay_together(tmp_path, above):
    for patient in range(5):
        for visit in range(3):
            number = 3 * patient + visit
            write_set(tmp_path / f"{above}p{patient}/v{visit}", count=1, first=number)
    data = open_set(tmp_path)
    groups = [
        {data.source(split)[at].group for at in range(len(data.source(split)))}
        for split in ("train", "validation", "test")
    ]
    assert sum(map(len, groups)) == len(set.union(*groups)) == 5
    assert set.union(*groups) == {f"{above}p{patient}" for patient in range(5)}


def test_visits_of_one_patient_in_two_folders_of_splits_are_refused(tmp_path):
    for number, split in enumerate(("train", "train", "val", "test")):
        patient = 0 if number in (0, 3) else number
        write_set(tmp_path / f"{split}/p{patient}/v{number}", count=1, first=number)
    (line,) = problems_of(tmp_path)
    assert "group 'p0' is in test (test/p0/v3/3) and in train (train/p0/v0/0)" in line


def test_a_folder_that_is_no_patient_may_be_cut_by_an_expression(tmp_path):
    for number in range(6):
        write_set(tmp_path / f"set/site{number % 3}/p{number}", count=1, first=number)
    ids = [f"site{number % 3}/p{number}/{number}" for number in range(6)]
    path = tmp_path / "splits.json"
    path.write_text(json.dumps({"train": ids[:3], "val": ids[3:5], "test": ids[5:]}))
    lines = problems_of(tmp_path / "set", splits=str(path))
    assert "group 'site0' is in train" in lines[0]
    assert "set data.group_regex if a folder is no patient" in lines[0]
    data = open_set(tmp_path / "set", splits=str(path), group_regex=r"p\d+")
    assert ids_of(data, "test") == ids[5:]


def test_a_group_expression_that_does_not_match(tmp_path):
    write_set(tmp_path)
    lines = problems_of(tmp_path, group_regex=r"^p(\d+)")
    assert len(lines) == 6
    assert "data.group_regex '^p(\\\\d+)' does not match its id '0'" in lines[0]
    assert (
        "data.group_regex: '(' is no regular"
        in problems_of(tmp_path, group_regex="(")[0]
    )


# ---- what is wrong with a file of splits ---------------------------------------------


def test_wrong_files_of_splits(tmp_path):
    folder = write_set(tmp_path / "set", count=4)
    path = tmp_path / "splits.json"
    for content, message in (
        ("{", "is not JSON"),
        ("{}", "has no ids under 'train'"),
        ('{"train": ["0"], "holdout": []}', "has 'holdout'; expected lists"),
        ('[{"train": ["0"]}]', "data.fold: found -1, expected 0 to 0"),
        ('{"train": ["0"], "train": ["1"]}', "has the split 'train' twice"),
        ('{"train": ["0"], "val": ["1"], "validation": ["2"]}', "'validation' twice"),
    ):
        path.write_text(content)
        assert message in problems_of(folder, splits=str(path))[0]
    path.write_text('{"train": ["0", "9"], "test": ["0", "8"]}')
    lines = problems_of(folder, splits=str(path))
    assert len(lines) == 3
    assert "'9' under train matches no file" in lines[0]
    assert "case '0' is in train (0) and in test (0)" in lines[2]
    assert "No such file" in problems_of(folder, splits=str(tmp_path / "none.json"))[0]


def test_a_broken_file_of_splits_hides_no_other_problem(tmp_path):
    folder = write_set(tmp_path / "set")
    (folder / "images/3.png").write_bytes(b"")
    path = tmp_path / "splits.json"
    path.write_text("{")
    lines = problems_of(folder, splits=str(path), group_regex="(")
    assert [
        name
        for line in lines
        for name in ("3.png", "regex", "not JSON")
        if name in line
    ] == ["3.png", "regex", "not JSON"]


def test_rows_of_groups_that_fit_no_case_are_problems(tmp_path):
    folder = write_set(tmp_path / "set", count=10)
    path = tmp_path / "groups.csv"
    rows = [f"{number},p{number // 2}" for number in range(10)]

    def lines(rows):
        path.write_text("\n".join(["id,group", *rows]))
        return problems_of(folder, splits=str(path))

    wrong = lines([row.replace(",", "x,") for row in rows])
    assert len(wrong) == 11
    assert "'0x' under group matches no file" in wrong[0]
    assert "no group for 0, 1, 2 and 7 more cases" in wrong[10]
    (line,) = lines([*rows, "0,p4"])
    assert "case '0' has the groups 'p0' and 'p4'; expected one" in line
    (line,) = lines(rows[1:])
    assert "no group for 0; expected a row" in line
    path.write_text("\n".join(["id,group", *rows, rows[0]]))
    assert open_set(folder, splits=str(path)).source("train")[0].group.startswith("p")


def test_a_case_twice_in_a_split_is_a_problem(tmp_path):
    folder = write_set(tmp_path / "set")
    path = tmp_path / "splits.json"
    path.write_text(json.dumps({"train": ["0", "1", "0.png"], "test": ["2"]}))
    (line,) = problems_of(folder, splits=str(path))
    assert "'0.png' under train is listed twice; expected each case once" in line


def test_a_fold_that_would_change_nothing_is_refused(tmp_path):
    folder = write_set(tmp_path / "set")
    path = tmp_path / "splits.json"
    splits = {"train": ["0", "1", "2"], "validation": ["3"], "test": ["4"]}
    path.write_text(json.dumps(splits))
    (line,) = problems_of(folder, splits=str(path), fold=2)
    assert line.startswith("data.fold: no folds can be drawn: there are cases under")
    path.write_text(json.dumps([splits, splits]))
    assert ids_of(open_set(folder, splits=str(path), fold=1), "validation") == ["3"]
    path.write_text(json.dumps({"train": ["0"], "test": ["4"]}))
    (line,) = problems_of(folder, splits=str(path), fold=0)
    assert "there are training cases of one group only" in line
    for count in (1, 2):
        write_set(tmp_path / str(count), count=count)
        (line,) = problems_of(tmp_path / str(count), fold=3)
        assert f"found {count} group(s), expected 3 or more, or 2 with data" in line


def test_a_group_that_an_expression_leaves_out_is_a_problem(tmp_path):
    write_set(tmp_path)
    lines = problems_of(tmp_path, group_regex=r"(x)?\d")
    assert len(lines) == 6
    assert "group 1 of data.group_regex '(x)?" in lines[0]
