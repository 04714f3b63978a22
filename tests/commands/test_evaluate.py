"""Which runs can be scored as an ensemble, and how its labels are postprocessed."""

import json
import re
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from unet_jax.commands.evaluate import _file_stem, read_scores
from unet_jax.commands.evaluate_ensemble import (
    _check_one_test,
    _common_steps,
    _has_one_validation,
)
from unet_jax.configs import base, folder
from unet_jax.errors import InputError
from unet_jax.experiment.data import open_dataset

LARGEST, SMALL = ("largest_component", 1, None), ("min_size", 1, 20)


def _runs(tmp_path, *changes, tests=("a", "a")):
    """Two runs that differ in some keys, or in the hash of the test split."""
    workdirs, runs = [], []
    for index, values in enumerate(changes):
        workdirs.append(tmp_path / str(index))
        workdirs[-1].mkdir()
        config = base.get_config()
        config.update_from_flattened_dict(values)
        record = {"config": {}, "preprocessing": {}, "dataset": {"test": tests[index]}}
        (workdirs[-1] / "config.json").write_text(json.dumps(record))
        predict_fn = SimpleNamespace(regions=None)
        runs.append(SimpleNamespace(config=config, predict_fn=predict_fn))
    return workdirs, runs


@pytest.mark.parametrize(
    ("key", "values"),
    [
        ("data.class_names", (("back", "cell"), ("back", "nucleus"))),
        ("data.label_map", (((0, 0), (1, 1)), ((0, 0), (2, 1)))),
        ("data.palette", (((0, 0, 0), (9, 9, 9)), ((9, 9, 9), (0, 0, 0)))),
    ],
)
def test_runs_whose_classes_mean_different_things_have_no_mean(tmp_path, key, values):
    workdirs, runs = _runs(tmp_path, {key: values[0]}, {key: values[1]})
    with pytest.raises(InputError, match=f"{key} of .*1 differs from that of .*0"):
        _check_one_test(workdirs, runs)


def test_seeds_and_folds_have_a_mean_and_other_splits_are_refused_with_a_fix(tmp_path):
    changes = {"seed": 1, "data.fold": 0}, {"seed": 2, "data.fold": 1}
    _check_one_test(*_runs(tmp_path, *changes))
    (tmp_path / "more").mkdir()
    workdirs, runs = _runs(tmp_path / "more", *changes, tests=("a", "b"))
    with pytest.raises(InputError, match=r"the test split of .*same data\.split_seed"):
        _check_one_test(workdirs, runs)


def test_only_the_postprocessing_of_all_runs_is_done(capsys):
    def runs(*steps):
        return [SimpleNamespace(predict_fn=SimpleNamespace(steps=s)) for s in steps]

    assert _common_steps(runs((LARGEST, SMALL), (SMALL, LARGEST))) == (LARGEST, SMALL)
    capsys.readouterr()
    assert _common_steps(runs((LARGEST,), (LARGEST,))) == (LARGEST,)
    assert not capsys.readouterr().out
    assert _common_steps(runs((LARGEST, SMALL), (SMALL,))) == (SMALL,)
    assert "the runs differ" in capsys.readouterr().out
    assert _common_steps(runs((LARGEST,), ())) == ()


def test_runs_that_validated_on_the_same_cases_get_one_temperature(tmp_path, capsys):
    workdirs, runs = _runs(tmp_path, {}, {"seed": 1})
    for workdir, split in zip(workdirs, ("a", "a"), strict=True):
        dataset = {"test": "t", "validation": split}
        record = {"config": {}, "preprocessing": {}, "dataset": dataset}
        (workdir / "config.json").write_text(json.dumps(record))
    assert _has_one_validation(workdirs, runs)
    assert not capsys.readouterr().out
    record["dataset"]["validation"] = "b"  # a fold
    (workdirs[1] / "config.json").write_text(json.dumps(record))
    assert not _has_one_validation(workdirs, runs)
    assert "validated on different cases" in capsys.readouterr().out
    runs[1].config.eval.temperature = None
    assert not _has_one_validation(workdirs, runs)


def test_the_seed_of_a_run_leaves_its_splits_as_they_are(tmp_path):
    rng = np.random.default_rng(0)
    for number in range(12):
        for name, most in (("images", 255), ("masks", 1)):
            (tmp_path / name).mkdir(exist_ok=True)
            pixels = rng.integers(0, most, (8, 8), endpoint=True).astype(np.uint8)
            Image.fromarray(pixels).save(tmp_path / name / f"{number}.png")
    found = {}
    for seed, split_seed in ((0, 0), (5, 0), (0, 1)):
        config = folder.get_config()
        config.data.path = str(tmp_path)
        config.seed, config.data.split_seed = seed, split_seed
        found[seed, split_seed] = open_dataset(config, tmp_path / "run").fingerprint
    assert found[5, 0] == found[0, 0] != found[0, 1]


def test_every_case_has_its_own_file_name():
    ids = [
        "p1:a",
        "p1--a",
        "p1/a",
        "p1_a",
        "p1__a",
        "p1",
        "p1 a",
        "p1-a",
        "p1[z 0-60]",
        "p1_z_0-60",
    ]
    stems = [_file_stem(one) for one in ids]
    assert len({stem.lower() for stem in stems}) == len(ids)
    assert all(re.fullmatch(r"[\w.-]+", stem) for stem in stems)
    assert stems[0] == "p1--a"
    assert stems[2:4] == ["p1__a", "p1_a"]
    assert stems[5] == "p1"


def test_scores_of_other_settings_or_of_another_checkpoint_are_made_again(tmp_path):
    config = base.get_config()
    assert read_scores(tmp_path, config, 4) is None
    path = tmp_path / "test_metrics.json"
    results = {"checkpoint_step": 4, "eval": config.eval.to_dict()}
    path.write_text(json.dumps(results))
    assert read_scores(tmp_path, config, 4) == json.loads(path.read_text())
    assert read_scores(tmp_path, config, 6) is None
    config.eval.mirror = True
    assert read_scores(tmp_path, config, 4) is None
    path.write_text(json.dumps({"checkpoint_step": 4}))  # of version 0.1
    assert read_scores(tmp_path, config, 4) == {"checkpoint_step": 4}
    path.write_text("[")
    assert read_scores(tmp_path, config, 4) is None
