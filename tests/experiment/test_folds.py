"""The folds of a cross-validation: which there are, and which are refused."""

import json

import pytest

from tests.data.folder.folders import write_set
from tests.data.folder.test_nnunet import raw_set
from unet_jax.configs import folder
from unet_jax.errors import InputError
from unet_jax.experiment.checkpoint_choice import keep_last
from unet_jax.experiment.folds import check_folds, divide_into_folds, fold_config


def _config(path, **changes):
    config = folder.get_config()
    config.data.path = str(path)
    config.update_from_flattened_dict(changes)
    return config.lock()


def _validated(folds):
    return sorted(one for fold in folds for one in fold["val"])


def test_without_a_test_split_no_case_is_left_over(tmp_path):
    write_set(tmp_path / "set", count=4)
    config = _config(tmp_path / "set", **{"data.test_fraction": 0.0})
    folds = divide_into_folds(config, tmp_path / "cv")
    assert len(folds) == 4
    assert _validated(folds) == ["0", "1", "2", "3"]
    assert not any("test" in fold for fold in folds)
    # The facts of the cases are there for each fold, which reads no file again.
    facts = (tmp_path / "cv/dataset.json").read_bytes()
    assert (tmp_path / "cv/fold_3/dataset.json").read_bytes() == facts


def test_a_test_split_is_held_out_of_all_folds(tmp_path):
    write_set(tmp_path / "set", count=8)
    folds = divide_into_folds(_config(tmp_path / "set"), tmp_path / "cv")
    (test,) = {tuple(fold["test"]) for fold in folds}
    assert len(folds) == 5
    assert sorted([*_validated(folds), *test]) == list("01234567")


def test_the_folds_of_nnunet_are_taken_and_those_kept_can_be_given(tmp_path):
    raw_set(tmp_path / "set")
    ids = [f"case_{n:03d}" for n in range(5)]
    parts = (ids[:2], ids[2:3], ids[3:])
    content = [
        {"train": [one for one in ids if one not in part], "val": part}
        for part in parts
    ]
    (tmp_path / "set/splits_final.json").write_text(json.dumps(content))
    config = _config(tmp_path / "set")
    assert divide_into_folds(config, tmp_path / "cv") == content
    (tmp_path / "set/splits_final.json").unlink()
    given = _config(tmp_path / "set", **{"data.splits": str(tmp_path / "cv")})
    assert divide_into_folds(given, tmp_path / "again") == content
    changed = _config(tmp_path / "set", **{"data.splits": str(tmp_path / "cv")})
    with changed.unlocked():
        changed.data.folds = 2
    with pytest.raises(InputError, match=r"found 3 folds in the file, expected 2 "):
        divide_into_folds(changed, tmp_path / "third")


@pytest.mark.parametrize(
    ("count", "changes", "message"),
    [
        (1, {}, r"no folds can be drawn: found 1 group\(s\), expected 3"),
        (2, {}, r"found 2 group\(s\), expected 3 or more, or 2 with"),
        (6, {"data.folds": 6}, "data.folds: found 6, expected at most 5"),
    ],
)
def test_too_few_groups_for_folds(tmp_path, count, changes, message):
    write_set(tmp_path / "set", count=count)
    config = _config(tmp_path / "set")
    with config.unlocked():
        config.update_from_flattened_dict(changes)
    with pytest.raises(InputError, match=message):
        divide_into_folds(config, tmp_path / "cv")


@pytest.mark.parametrize(
    ("folds", "message"),
    [
        ([("a", "b"), ("c", "b")], "b: validates in several folds; expected every"),
        ([("ac", "b"), ("cb", "a")], "c: validates in no fold; expected every case"),
    ],
)
def test_every_case_validates_once(folds, message):
    with pytest.raises(InputError, match=message):
        check_folds([{"train": list(one), "val": list(two)} for one, two in folds])


def test_the_test_split_of_all_folds_is_one():
    one = {"train": ["a"], "val": ["b"], "test": ["c"]}
    two = {"train": ["b"], "val": ["a"]}
    check_folds([one, {**two, "test": ["c"]}])
    with pytest.raises(InputError, match="fold 1 has another test split than fold 0"):
        check_folds([one, two])


def test_other_folds_than_those_that_it_began_with_are_refused(tmp_path):
    write_set(tmp_path / "set", count=5)
    config = _config(tmp_path / "set", **{"data.test_fraction": 0.0})
    workdir = tmp_path / "cv"
    divide_into_folds(config, workdir)
    three = fold_config(config, -1)
    with three.unlocked():
        three.data.folds = 3
    divide_into_folds(three, workdir)  # no fold has begun: nothing is lost
    (workdir / "fold_0/checkpoints/1").mkdir(parents=True)
    begun = fold_config(three, 0).to_dict()
    record = {"config": begun, "preprocessing": {}, "dataset": {}}
    (workdir / "fold_0/config.json").write_text(json.dumps(record))
    divide_into_folds(three, workdir)
    with pytest.raises(InputError, match=r"data.folds=3, this config 5; give --config"):
        divide_into_folds(config, workdir)
    write_set(tmp_path / "set", count=1, first=9)
    for changed in (three, config):
        with pytest.raises(InputError, match=r"no longer those of splits_final\.json"):
            divide_into_folds(changed, workdir)
    (workdir / "splits_final.json").write_text("[")
    with pytest.raises(InputError, match=r"splits_final\.json: cannot be read"):
        divide_into_folds(three, workdir)


def test_a_fold_keeps_its_last_checkpoint_unless_the_best_is_asked_for():
    config = folder.get_config()
    assert not keep_last(config, given=["eval.choose"])
    assert "--config.eval.choose=best" in keep_last(config, given=[])
    assert config.eval.choose == "last"
    config = folder.get_config()
    config.train.early_stopping_patience = 3
    assert not keep_last(config, given=[])
    assert config.eval.choose == "best"


def test_steps_that_all_folds_choose_are_left_out_of_each():
    for wanted, expected in (("auto", None), (None, None), ((), ())):
        config = folder.get_config()
        config.eval.postprocess = wanted
        found = fold_config(config, 2)
        assert (found.data.fold, found.eval.postprocess) == (2, expected)
