import json
from pathlib import Path

import pytest

from unet_jax.configs.base import KEYS
from unet_jax.errors import InputError
from unet_jax.experiment.data import recorded_splits
from unet_jax.experiment.record import (
    DRAWS_VERSION,
    LABELS_VERSION,
    check_same_draws,
    check_same_labels,
    check_same_run,
    defaults_of_added_keys,
    make_record,
    read_finished_record,
    read_record,
    write_record,
)

KEYS_OF_0_1 = (Path(__file__).parent / "keys_of_0_1.txt").read_text().split()
"""Keys of configs/base.py in version 0.1.0, by their present names; never extended."""

CONFIG = {"seed": 1, "train": {"steps": 5, "patch_size": [8, 8]}}


def _record():
    return make_record(CONFIG, preprocessing={"a": 1}, dataset={"b": 2})


def test_a_record_comes_back(tmp_path):
    write_record(tmp_path / "new", _record())
    record = read_record(tmp_path / "new")
    assert record["preprocessing"] == {"a": 1}
    assert record["dataset"] == {"b": 2}
    # What JSON made lists of is no difference.
    check_same_run(tmp_path, record, CONFIG, {"b": 2})


def test_the_record_names_versions_and_revision():
    record = _record()
    assert record["versions"]["jax"].count(".") >= 2
    assert record["git_revision"] is None or len(record["git_revision"]) >= 40


def test_the_version_of_the_draws_is_recorded_and_was_1_before(tmp_path):
    write_record(tmp_path, _record())
    assert read_record(tmp_path)["draws_version"] == DRAWS_VERSION
    old = _record()
    del old["draws_version"]
    (tmp_path / "config.json").write_text(json.dumps(old))
    assert read_record(tmp_path)["draws_version"] == 1


@pytest.mark.parametrize(
    ("name", "of_version_1"),
    [("residual_encoder", "residual_encoder_v0"), ("unet_small", "unet_small")],
)
def test_a_network_is_the_one_that_its_name_was_when_the_run_began(
    tmp_path, name, of_version_1
):
    record = make_record({"model": {"name": name}}, preprocessing={}, dataset={})
    write_record(tmp_path, record)
    assert read_record(tmp_path)["config"]["model"]["name"] == name
    del record["networks_version"]  # as in version 0.1
    write_record(tmp_path, record)
    assert read_record(tmp_path)["config"]["model"]["name"] == of_version_1


def test_other_draws_are_refused_with_the_version_to_use(tmp_path):
    on, off = ({"augment": {"enabled": enabled}} for enabled in (True, False))
    check_same_draws(tmp_path, on, DRAWS_VERSION)
    check_same_draws(tmp_path, off, 1)
    for version, program in ((1, r"unet_jax 0\.1\.0"), (99, "a newer unet_jax")):
        message = f"begun by {program}, .* differ; finish it with {program}, or name an"
        with pytest.raises(InputError, match=message):
            check_same_draws(tmp_path, on, version)


def test_labels_of_another_grid_are_refused_where_they_matter(tmp_path):
    write_record(tmp_path, _record())
    assert read_record(tmp_path)["labels_version"] == LABELS_VERSION
    old = _record()
    del old["labels_version"]
    (tmp_path / "config.json").write_text(json.dumps(old))
    assert read_record(tmp_path)["labels_version"] == 1
    plain, deep = ({"model": {"options": o}} for o in ({}, {"deep_supervision": 2}))
    check_same_labels(tmp_path, deep, LABELS_VERSION, resampled=True)
    check_same_labels(tmp_path, plain, 1, resampled=False)
    for config, resampled in ((plain, True), (deep, False)):
        message = r"begun by unet_jax 0\.1\.0, .* labels .* Finish it with unet_jax 0"
        with pytest.raises(InputError, match=message):
            check_same_labels(tmp_path, config, 1, resampled=resampled)


def test_no_run_is_none_or_an_error(tmp_path):
    assert read_record(tmp_path) is None
    with pytest.raises(InputError, match=r"found no config\.json, expected the folder"):
        read_finished_record(tmp_path)


@pytest.mark.parametrize("text", ["", "{", "[]", '{"config": {}}', "null"])
def test_a_damaged_record_is_named(tmp_path, text):
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(InputError, match=r"config.json: not the record of a run"):
        read_record(tmp_path)


def test_a_file_in_the_place_of_the_folder(tmp_path):
    path = tmp_path / "file"
    path.write_text("")
    with pytest.raises(InputError, match="found a file, expected a folder"):
        read_record(path)
    with pytest.raises(InputError, match="cannot be written"):
        write_record(path, _record())


def test_keys_that_may_change_may_differ(tmp_path):
    other = {"seed": 1, "train": {"steps": 9, "patch_size": (8, 8)}}
    check_same_run(tmp_path, _record(), other, {"b": 2})


def test_other_differences_are_refused_with_both_values(tmp_path):
    other = {"seed": 2, "train": {"steps": 5, "patch_size": (8, 8)}}
    with pytest.raises(InputError, match="its run has seed=1, this config 2"):
        check_same_run(tmp_path, _record(), other, {"b": 2})
    grown = {**CONFIG, "extra": 1}
    with pytest.raises(InputError, match="its run has extra=None, this config 1"):
        check_same_run(tmp_path, _record(), grown, {"b": 2})


def test_a_key_that_an_old_run_did_not_have_counts_as_its_default(tmp_path):
    for options in ({"split_seed": 0}, {"regions": None}, {}):
        check_same_run(tmp_path, _record(), {**CONFIG, "data": options}, {"b": 2})
    message = r"its run has data.split_seed=0, this config 7; give --config"
    with pytest.raises(InputError, match=message):
        check_same_run(
            tmp_path, _record(), {**CONFIG, "data": {"split_seed": 7}}, {"b": 2}
        )


def test_other_data_are_refused(tmp_path):
    with pytest.raises(InputError, match=r"data changed .*\(b was 2, is 3\); restore"):
        check_same_run(tmp_path, _record(), CONFIG, {"b": 3})


def test_splits_of_a_folder_are_recorded_and_those_of_0_1_are_of_version_1():
    config = {"data": {"source": "folder"}}
    ids = {"train": ["a"], "validation": ["b"], "test": ["c"]}
    dataset = {split: {"ids": found} for split, found in ids.items()}
    splits = {"version": 2, "bounds": {}, "groups": {"a": "p"}}
    record = {"config": config, "dataset": dataset, "splits": splits}
    found = recorded_splits(record)
    assert (found.ids, found.version, found.groups) == (ids, 2, {"a": "p"})
    old = recorded_splits({**record, "splits": None})
    assert (old.version, old.groups, old.has_unknown_slabs) == (1, None, False)
    assert recorded_splits(None) is None
    assert recorded_splits({**record, "config": {"data": {"source": "tfds"}}}) is None
    for damaged in ({"splits": {"rule": 2}}, {"dataset": {"train": {}}}):
        with pytest.raises(InputError, match="does not describe the splits of a run"):
            recorded_splits(record | damaged)


def test_a_run_of_0_1_has_a_value_for_every_key_that_came_later():
    # Without it a run that has no such key would not resume.
    later = {key for key in KEYS if not KEYS[key].may_change} - set(KEYS_OF_0_1)
    assert "data.regions" in later
    assert sorted(later - defaults_of_added_keys().keys()) == []
    assert sorted(set(KEYS_OF_0_1) - KEYS.keys()) == []
