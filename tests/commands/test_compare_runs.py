"""Finished runs are compared by their means, and seeds of one method averaged."""

import json
import re

import numpy as np
import pytest

from unet_jax.commands.compare_runs import compare_runs
from unet_jax.configs.base import KEYS
from unet_jax.errors import InputError


def _run(
    folder, name, dice, *, seed=0, rate=0.1, test="abc", groups=None, other=(), train=""
):
    """Write the files of a finished run that are read, from ``dice[case][class]``.

    Keys of the config that ``other`` names have a value that no default has.
    """
    workdir = folder / name
    workdir.mkdir()
    record = {
        "config": {
            "name": name,
            "seed": seed,
            "optimizer": {"learning_rate": rate},
            "log": {"every_steps": seed + 1},
            **{key: "other" for key in other},
        },
        "preprocessing": {},
        "dataset": {"train": train, "test": test},
        "versions": {},
    }
    (workdir / "config.json").write_text(json.dumps(record))
    rows = [
        {
            "id": case,
            "group": (groups or {}).get(case, case),
            "class": index,
            "dice": value,
            "iou": None if value is None else value / 2,
        }
        for case, values in dice.items()
        for index, value in enumerate(values)
    ]
    (workdir / "test_metrics.json").write_text(json.dumps({"per_case": rows}))
    return workdir


def _cases(offset=0.0, count=8):
    rng = np.random.default_rng(0)
    base = rng.uniform(0.5, 0.7, (count, 2))
    step = rng.uniform(0.05, 0.15, (count, 1))
    values = base + offset * step
    return {f"c{i}": list(map(float, row)) for i, row in enumerate(values)}


def test_the_difference_is_that_of_the_means_in_the_table(tmp_path):
    one, two, three = (_cases(offset, count=18) for offset in (0.0, 1.0, 0.37))
    groups = {f"c{i}": f"g{i % 6}" for i in range(18)}
    runs = [
        _run(tmp_path, "one", one, groups=groups),
        _run(tmp_path, "two", two, rate=0.2, groups=groups),
        _run(tmp_path, "three", three | {"c0": [None, 0.1]}, rate=0.3, groups=groups),
    ]
    results = compare_runs(runs, output=tmp_path / "out")
    assert results == json.loads((tmp_path / "out" / "comparison.json").read_text())
    means = {row["name"]: row["dice"]["mean"] for row in results["methods"]}
    text = (tmp_path / "out" / "comparison.md").read_text()
    printed = dict(re.findall(r"^\| (\S+) \| (\d\.\d{4})", text, flags=re.MULTILINE))
    for pair in results["pairs"]:
        names = pair["method"], pair["minus"]
        one, two = (means[name] for name in names)
        assert pair["dice"]["difference"] == one - two
        assert pair["iou"]["difference"] == pytest.approx((one - two) / 2)
        low, high = pair["dice"]["ci95"]
        assert low < one - two < high
        one, two = (float(printed[name]) for name in names)
        assert f"| {names[0]} - {names[1]} | {one - two:+.4f} ({low:+.4f} to" in text


def test_false_alarms_on_healthy_cases_are_in_the_difference(tmp_path):
    # Six patients with the structure, and fourteen healthy ones whom "many" marks.
    few = {f"c{i:02}": [0.8 if i < 6 else None] for i in range(20)}
    many = {f"c{i:02}": [0.8 if i < 6 else 0.0] for i in range(20)}
    runs = [_run(tmp_path, "few", few), _run(tmp_path, "many", many, rate=0.2)]
    results = compare_runs(runs, output=tmp_path / "out")
    assert [row["dice"]["mean"] for row in results["methods"]] == pytest.approx(
        [0.8, 0.24]
    )
    (pair,) = results["pairs"]
    assert pair["dice"]["difference"] <= -0.56 + 1e-12
    low, high = pair["dice"]["ci95"]
    assert low < -0.56 < high < 0
    assert pair["dice"]["p"] < 0.01


def test_runs_that_differ_only_in_their_seed_are_one_method(tmp_path):
    runs = [
        _run(tmp_path, "a0", _cases(0.0), seed=0),
        _run(tmp_path, "a1", _cases(0.4), seed=1),
        _run(tmp_path, "b0", _cases(1.0), seed=0, rate=0.2),
        _run(tmp_path, "a2", _cases(0.2), seed=2),
    ]
    results = compare_runs(runs, output=tmp_path / "out")
    first, second = results["methods"]
    assert first["runs"] == [str(runs[i]) for i in (0, 1, 3)]
    assert first["seeds"] == [0, 1, 2]
    means = [np.mean(list(_cases(x).values())) for x in (0.0, 0.4, 0.2)]
    assert first["dice"]["mean"] == pytest.approx(np.mean(means))
    assert first["dice"]["std"] == pytest.approx(np.std(means, ddof=1))
    assert second["dice"]["std"] is None
    assert "±" in (tmp_path / "out" / "comparison.md").read_text()
    (pair,) = results["pairs"]
    b = np.mean(list(_cases(1.0).values()))
    assert pair["dice"]["difference"] == pytest.approx(b - np.mean(means))


HARMLESS = {
    *("name", "data.data_dir", "data.path", "compilation_cache_dir"),
    *(
        "data.cache_gib",
        "data.prepared_dir",
        "data.num_threads",
        "data.prefetch_batches",
    ),
    *("log.every_steps", "log.overlays", "train.step_timeout"),
    *("compare.methods", "compare.w_net_steps", "compare.parameters"),
    "eval.distance",
}
"""Paths, threads, caches, logs, warnings: no value of these changes a score."""

LABELS = {"data.class_names", "data.label_map", "data.palette"}
"""Keys that give a score its meaning: runs that differ in one are not compared."""


def test_runs_that_differ_in_a_key_are_seeds_only_where_it_cannot_change_a_score(
    tmp_path,
):
    # A run with another value of each key: every one that may change a score is alone.
    keys = sorted(KEYS.keys() - LABELS - {"seed"} | {"model.options.norm"})
    cases = {"c": [0.5]}
    runs = [_run(tmp_path, "none", cases)]
    runs += [_run(tmp_path, key, cases, other=[key]) for key in keys]
    rows = compare_runs(runs, output=tmp_path / "out")["methods"]
    together, *alone = (row["runs"] for row in rows)
    assert together == [str(runs[0])] + [
        str(tmp_path / key) for key in sorted(HARMLESS)
    ]
    assert alone == [[str(tmp_path / key)] for key in keys if key not in HARMLESS]


def test_the_settings_of_the_scores_count_not_those_set_afterwards(tmp_path):
    runs = [_run(tmp_path, "a", _cases()), _run(tmp_path, "b", _cases(0.5), seed=1)]
    path = runs[1] / "test_metrics.json"
    path.write_text(
        json.dumps({**json.loads(path.read_text()), "eval": {"mirror": True}})
    )
    assert len(compare_runs(runs, output=tmp_path / "out")["methods"]) == 2


def test_runs_of_other_training_cases_are_no_seeds(tmp_path):
    runs = [
        _run(tmp_path, "one", _cases(), train="x"),
        _run(tmp_path, "two", _cases(0.5), seed=1, train="y"),
    ]
    assert len(compare_runs(runs, output=tmp_path / "out")["methods"]) == 2


@pytest.mark.parametrize("version", ["draws_version", "labels_version"])
def test_runs_of_other_draws_or_labels_are_no_seeds(tmp_path, version):
    runs = [_run(tmp_path, "a", _cases()), _run(tmp_path, "b", _cases(0.5), seed=1)]
    path = runs[1] / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {version: 2}))
    assert len(compare_runs(runs, output=tmp_path / "out")["methods"]) == 2


def test_a_key_that_was_added_later_is_no_difference(tmp_path):
    runs = [_run(tmp_path, "a", _cases()), _run(tmp_path, "b", _cases(0.5), seed=1)]
    path = runs[1] / "config.json"
    record = json.loads(path.read_text())
    record["config"] |= {"deterministic": True, "data": {"channels": []}}
    path.write_text(json.dumps(record))
    assert len(compare_runs(runs, output=tmp_path / "out")["methods"]) == 1


def test_intervals_draw_groups_and_need_five_of_them(tmp_path):
    groups = {f"c{i}": f"g{i // 2}" for i in range(8)}
    runs = [
        _run(tmp_path, "one", _cases(), groups=groups),
        _run(tmp_path, "two", _cases(1.0), rate=0.2, groups=groups),
    ]
    results = compare_runs(runs, output=tmp_path / "out")
    assert (results["n_cases"], results["n_groups"]) == (8, 4)
    assert results["pairs"][0]["dice"]["ci95"] is None
    assert results["pairs"][0]["dice"]["p"] is None
    text = (tmp_path / "out" / "comparison.md").read_text()
    assert "need at least 5 groups that have a score of each class" in text


def test_other_classes_are_refused(tmp_path):
    one = _run(tmp_path, "one", _cases())
    three = {case: [*values, 0.1] for case, values in _cases().items()}
    others = [_run(tmp_path, key, _cases(), other=[key]) for key in sorted(LABELS)]
    for other in (_run(tmp_path, "three", three), *others):
        with pytest.raises(
            InputError, match=r"classes or label map of .* differs from"
        ):
            compare_runs([one, other], output=tmp_path / "out")


def test_other_test_sets_are_refused(tmp_path):
    one = _run(tmp_path, "one", _cases())
    for index, other in enumerate(
        (
            _run(tmp_path, "data", _cases(), test="xyz"),
            _run(tmp_path, "cases", _cases(count=7)),
        )
    ):
        with pytest.raises(InputError, match=r"test set of .* differs from that"):
            compare_runs([one, other], output=tmp_path / str(index))
        assert not (tmp_path / str(index)).exists()


def test_one_run_or_an_unfinished_one_is_refused(tmp_path):
    one = _run(tmp_path, "one", _cases())
    with pytest.raises(InputError, match="found one folder, expected at least two"):
        compare_runs([one], output=tmp_path / "out")
    two = _run(tmp_path, "two", _cases())
    (two / "test_metrics.json").unlink()
    with pytest.raises(InputError, match=r"two.test_metrics.json: .*--mode=evaluate"):
        compare_runs([one, two], output=tmp_path / "out")
