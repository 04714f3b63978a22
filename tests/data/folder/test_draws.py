"""Tests how splits are drawn: fractions of classes, and no guess at patients."""

import collections
import json

import numpy as np
import pytest

from tests.data.folder.folders import (
    open_set,
    write_picture,
    write_pixels,
    write_set,
)
from unet_jax.data.folder.division import RecordedSplits, divide
from unet_jax.data.folder.groups import cut_groups, describe_groups, find_groups
from unet_jax.data.folder.options import FolderOptions
from unet_jax.data.folder.pairing import Layout, Pair
from unet_jax.data.folder.splits import SPLITS, draw_splits
from unet_jax.errors import InputError, setting


def _layout(*ids):
    pairs = [Pair(one, one.rpartition("/")[0], (one,), (one,)) for one in ids]
    return Layout(tuple(pairs), (), "")


def _ids(**sizes):
    """Ids of some cases in folders."""
    return [f"{name}/i{n}" for name, size in sizes.items() for n in range(size)]


def _split(ids, features=None, seed=0, **options):
    """Divide cases; return the ids of each split."""
    options = FolderOptions(path="set", **options)
    splits = divide(_layout(*ids), options, None).splits(
        features or {}, options, seed=seed
    )
    assert all(part.is_whole for parts in splits.parts.values() for part in parts)
    return {split: [part.id for part in splits.parts[split]] for split in SPLITS}


# ---- classes -------------------------------------------------------------------------


def _holders(splits, features, wanted):
    return [
        sum(wanted in features.get(one, ()) for one in splits[split])
        for split in SPLITS
    ]


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize(
    ("count", "expected"),
    [(1, [1, 0, 0]), (2, [1, 0, 1]), (3, [1, 1, 1]), (10, [6, 2, 2])],
)
def test_splits_keep_a_fraction_of_the_cases_of_a_class(seed, count, expected):
    ids = [f"c{number:02d}" for number in range(30)]
    features = {one: {1} for one in ids[:count]}
    splits = _split(ids, features, seed)
    assert _holders(splits, features, 1) == expected
    assert [len(splits[split]) for split in SPLITS] == [19, 5, 6]


def test_several_rare_classes_of_groups_are_all_spread():
    ids = [f"p{group:02d}_{n}" for group in range(20) for n in range(2)]
    features = {f"p{4 * c + n:02d}_0": {c} for c in range(3) for n in range(3)}
    splits = _split(ids, features, group_regex=r"^p\d+")
    for index in range(3):
        assert _holders(splits, features, index) == [1, 1, 1]
    groups = [{one[:3] for one in splits[split]} for split in SPLITS]
    assert sum(map(len, groups)) == len(set.union(*groups)) == 20


def test_folds_spread_a_rare_class_and_have_one_test_split():
    ids = [f"c{number:02d}" for number in range(30)]
    features = {one: {1} for one in ids[:8]}
    folds = [_split(ids, features, fold=fold, folds=3) for fold in range(3)]
    assert all(one["test"] == folds[0]["test"] for one in folds)
    assert folds[0]["test"] == _split(ids, features)["test"]
    assert [_holders(one, features, 1)[1] for one in folds] == [2, 2, 2]
    validated = [one for fold in folds for one in fold["validation"]]
    assert sorted([*validated, *folds[0]["test"]]) == ids


def test_classes_that_all_cases_have_change_no_draw():
    groups = {f"c{number:02d}": f"c{number:02d}" for number in range(15)}
    options = {"seed": 3, "test_fraction": 0.2, "validation_fraction": 0.25}
    options |= {"fold": -1, "folds": 5}
    plain = draw_splits(groups, features={}, **options)
    same = draw_splits(groups, features={one: {0, 1} for one in groups}, **options)
    assert plain == same


def test_a_group_of_most_cases_trains():
    ids = [*(f"big_{n}" for n in range(20)), *(f"s{n}_0" for n in range(8))]
    for seed in range(5):
        train = _split(ids, seed=seed, group_regex="^[^_]+")["train"]
        assert sum(one.startswith("big") for one in train) == 20


# ---- folders -------------------------------------------------------------------------


@pytest.mark.parametrize(
    "sizes",
    [
        {"benign": 14, "malignant": 10, "normal": 6},
        {"tumor": 8, "no_tumor": 8},
        {"healthy": 12, "glioma": 9},
    ],
)
def test_folders_of_findings_are_no_patients_and_every_split_has_some_of_each(sizes):
    splits = _split(_ids(**sizes))
    for split in SPLITS:
        found = collections.Counter(one.partition("/")[0] for one in splits[split])
        assert found.keys() == sizes.keys(), split


@pytest.mark.parametrize(
    ("sizes", "regex"),
    [
        ({"cat": 12, "dog": 9, "fish": 10}, ""),
        ({"left": 8, "right": 8}, ""),
        ({"2019": 12, "2020": 12, "2021": 12}, ""),
        ({f"batch{letter}": 3 for letter in "abc"} | {"rest": 30}, ""),
    ],
)
def test_few_large_folders_are_asked_about(sizes, regex):
    ids = _ids(**sizes)
    with pytest.raises(InputError) as error:
        _split(ids)
    line = str(error.value)
    name, size = min(sizes.items())
    assert f"the folders {name} ({size} cases), " in line
    for regex, count in ((".+", len(ids)), ("^[^/]+", len(sizes))):
        assert setting("data.group_regex", regex) in line
        found = find_groups(_layout(*ids), regex, version=2)
        assert len(set(found.of.values())) == count
    own = _split(ids, group_regex=".+")
    for split in SPLITS:
        assert {one.partition("/")[0] for one in own[split]} == sizes.keys()


@pytest.mark.parametrize(
    "sizes",
    [
        {f"p{n}": 30 for n in range(4)},
        {f"sub-{n:02d}": 6 for n in range(5)},
        {f"0{n}17": 12 for n in range(3)},
        {name: 2 for name in ("ann", "ben", "cleo", "dan")},
        {f"TCGA_{n}_x": 20 for n in range(12)},
    ],
)
def test_folders_of_patients_stay_together(sizes):
    splits = _split(_ids(**sizes))
    groups = [{one.partition("/")[0] for one in splits[split]} for split in SPLITS]
    assert sum(map(len, groups)) == len(set.union(*groups)) == len(sizes)


def test_folders_of_findings_in_the_folders_of_splits_are_no_patients():
    """Else benign/ would be one patient in two splits, and be refused."""
    ids = [
        f"{split}/{kind}/i{number}"
        for split in ("train", "val", "test")
        for kind in ("benign", "normal")
        for number in range(2)
    ]
    assert _split(ids)["test"] == [one for one in ids if one.startswith("test")]


def test_a_folder_for_all_cases_is_no_patient():
    splits = _split(_ids(all=6))
    assert sorted(one for split in SPLITS for one in splits[split]) == _ids(all=6)


@pytest.mark.parametrize(
    ("ids", "options", "found"),
    [
        (_ids(p1=12), {}, "12 cases are in 1 group;"),
        (_ids(p1=20, p2=10), {}, "30 cases are in 2 groups;"),
        ([f"a_{n}" for n in range(15)], {"group_regex": "^a"}, "15 cases are in 1"),
    ],
)
def test_dozens_of_cases_are_never_cut_into_slabs(ids, options, found):
    with pytest.raises(InputError, match=found) as error:
        _split(ids, **options)
    assert setting("data.group_regex", ".+") in str(error.value)


def test_what_was_taken_for_a_group_is_said():
    for ids, regex, line in (
        (["a", "b", "c"], "", "each of the 3 cases is a group of its own"),
        (
            _ids(benign=3, normal=2),
            "",
            "each of the 5 cases is a group of its own; each split gets its part of "
            "the folders benign, normal",
        ),
        (_ids(p1=2, p2=3, p3=2), "", "3, from folders (p1, p2, p3), with 2 to 3 cases"),
        (["x1a", "x1b", "y2"], r"\d", "2, from data.group_regex (1, 2), with 1 to 2"),
    ):
        found = find_groups(_layout(*ids), regex, version=2)
        assert describe_groups(found).startswith(line)


# ---- ids that look like groups -------------------------------------------------------


@pytest.mark.parametrize(
    ("pattern", "groups"),
    [
        ("p{}_{:02d}", "123"),
        ("patient{}-slice{:03d}", "123"),
        ("{}_{}", ("anna", "ben", "cleo")),
        ("TCGA_{}_19960909_{}", ("CS_4941", "DU_5849", "DU_5851")),
        ("p{}s{}", "123"),
    ],
)
def test_ids_that_look_like_groups_are_told_with_the_expression(pattern, groups):
    ids = [pattern.format(group, n) for group in groups for n in range(6)]
    found = find_groups(_layout(*ids), "", version=2)
    line = cut_groups(found, _split(ids))
    assert line.startswith("WARNING: ids look like groups (")
    regex = line.partition("--config.data.group_regex='")[2].rstrip("'")
    again = find_groups(_layout(*ids), regex, version=2)
    assert len(set(again.of.values())) == len(groups)
    assert not again.problems
    # Nothing is said once the groups are given, or where no split cuts one.
    assert not cut_groups(again, _split(ids, group_regex=regex))
    whole = {"train": ids[:6], "validation": ids[6:12], "test": ids[12:]}
    assert not cut_groups(found, whole)


def test_ids_that_end_with_the_place_of_a_tile_are_groups_of_a_slide():
    slides = ("TCGA-A7-0001", "TCGA-B6-A0WZ")
    ids = [f"{one}_{x}_y{y}" for one in slides for x in (0, 512) for y in (0, 256, 512)]
    line = cut_groups(find_groups(_layout(*ids), "", version=2), _split(ids))
    assert line.startswith("WARNING: ids look like groups (TCGA-A7-0001, TCGA-B6-A0W")


@pytest.mark.parametrize(
    "ids",
    [
        [f"img_{n:03d}" for n in range(9)],
        [f"a{n:02d}" for n in range(9)],
        [f"{2007 + n % 3}_{n:06d}" for n in range(9)],
        [f"{kind} ({n})" for kind in ("benign", "normal") for n in range(5)],
        [f"{kind}/{kind}_{n}" for kind in ("benign", "normal") for n in range(5)],
        [f"p{n}_{n % 2}" for n in range(9)],
        [f"{kind}/{kind}_{n}" for kind in ("covid", "healthy") for n in range(5)],
    ],
)
def test_other_ids_are_no_groups(ids):
    found = find_groups(_layout(*ids), "", version=2)
    assert not cut_groups(found, _split(ids))


# ---- splits of a workdir -------------------------------------------------------------


def test_recorded_splits_are_taken_as_they_are():
    ids = _ids(cat=12, dog=9)  # a new run would ask
    named = {"train": ids[:15], "validation": ids[15:18], "test": ids[18:]}
    bounds, groups = {"validation": [[0.0, 0.5]] * 3}, {ids[0]: "x"}
    options = FolderOptions(path="set")
    for recorded in (
        RecordedSplits(named, 2, bounds, groups),
        RecordedSplits(named),  # of version 0.1
    ):
        division = divide(_layout(*ids, "new"), options, recorded)
        splits = division.splits({}, options, seed=1)
        for split in SPLITS:
            assert [part.id for part in splits.parts[split]] == named[split]
        assert splits.version == recorded.version
        assert "new" not in division.used_ids
    assert division.groups.of[ids[0]] == "cat"  # as 0.1 took the folders
    division = divide(_layout(*ids), options, RecordedSplits(named, 2, bounds, groups))
    assert division.groups.of[ids[0]] == "x"
    assert division.groups.of[ids[1]] == ids[1]
    splits = division.splits({}, options, seed=1)
    assert {part.stop for part in splits.parts["validation"]} == {0.5}


@pytest.mark.parametrize(
    ("count", "stop"),
    [(1, 0.6), (15, 0.6)],  # today 15 pictures of one patient are refused
)
def test_slabs_of_a_workdir_of_version_0_1_are_made_again(count, stop):
    ids = _ids(p1=count)
    recorded = RecordedSplits(dict.fromkeys(SPLITS, ids))
    options = FolderOptions(path="set")
    splits = divide(_layout(*ids), options, recorded).splits({}, options, seed=0)
    assert {part.stop for part in splits.parts["train"]} == {stop}
    assert splits.version == 1
    assert not splits.placed


def test_a_recorded_case_that_is_gone_is_named():
    named = {"train": ["a", "b"], "validation": ["c"], "test": ["d"]}
    recorded = RecordedSplits(named, 2, {}, {})
    division = divide(_layout("a", "c"), FolderOptions(path="set"), recorded)
    (line,) = division.problems
    assert "case b, d of the run is gone" in line


def test_a_folder_keeps_its_splits_when_cases_come(tmp_path):
    folder = write_set(tmp_path, count=9, classes=2)
    for number in range(3):
        labels = np.arange(80).reshape(8, 10) % 3
        write_pixels(folder / f"masks/{number}.png", labels.astype(np.uint8))
    dataset = open_set(folder)
    for split in SPLITS:  # the class of three cases is in each split
        source = dataset.source(split)
        assert sum(source.class_counts(i)[2] > 0 for i in range(len(source))) == 1
    record = json.loads(json.dumps([dataset.fingerprint, dataset.splits_record]))
    assert record[1] == {"version": 2, "bounds": {}, "groups": {}}
    ids = {split: entry["ids"] for split, entry in record[0].items()}
    write_set(folder, count=5, first=9, classes=2)
    assert open_set(folder).fingerprint != record[0]
    for kept in (RecordedSplits(ids, **record[1]), RecordedSplits(ids)):
        again = open_set(folder, seed=5, recorded=kept)
        assert again.fingerprint == record[0]
        assert again.splits_record["version"] == kept.version
        assert "5 images that the splits do not name are left out" in again.notes[0]


def test_slabs_are_kept_with_their_bounds(tmp_path):
    image, mask = tmp_path / "images/a.png", tmp_path / "masks/a.png"
    write_picture(image, 0, mask=mask, size=(100, 9))
    dataset = open_set(tmp_path)
    record = json.loads(json.dumps([dataset.fingerprint, dataset.splits_record]))
    assert record[1]["bounds"]["train"] == [[0.0, 0.6]]
    ids = {split: entry["ids"] for split, entry in record[0].items()}
    for kept in (RecordedSplits(ids, **record[1]), RecordedSplits(ids)):
        assert open_set(tmp_path, recorded=kept).fingerprint == record[0]
