"""Finished runs are compared case by case."""

import json

import numpy as np
import pytest
from scipy import stats

from unet_jax.commands.compare_runs import compare_runs
from unet_jax.errors import InputError


def _run(folder, name, dice, *, seed=0, rate=0.1, test="abc", groups=None, steps=5):
    """Write the files of a finished run that are read, from ``dice[case][class]``."""
    workdir = folder / name
    workdir.mkdir()
    record = {
        "config": {
            "name": name,
            "seed": seed,
            "optimizer": {"learning_rate": rate},
            "train": {"steps": steps},
            "log": {"every_steps": seed + 1},
        },
        "preprocessing": {},
        "dataset": {"test": test},
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


def test_differences_are_by_case_with_interval_and_wilcoxon(tmp_path):
    one = _run(tmp_path, "one", _cases())
    two = _run(tmp_path, "two", _cases(1.0), rate=0.2)
    results = compare_runs([one, two], output=tmp_path / "out")
    assert results == json.loads((tmp_path / "out" / "comparison.json").read_text())
    (pair,) = results["pairs"]
    assert (pair["method"], pair["minus"]) == (str(two), str(one))
    means = [
        np.array([np.mean(v) for v in dice.values()])
        for dice in (_cases(), _cases(1.0))
    ]
    difference = means[1] - means[0]
    assert pair["dice"]["difference"] == pytest.approx(difference.mean())
    assert pair["iou"]["difference"] == pytest.approx(difference.mean() / 2)
    assert pair["dice"]["p"] == pytest.approx(stats.wilcoxon(difference).pvalue)
    low, high = pair["dice"]["ci95"]
    expected = stats.bootstrap(
        (difference,), np.mean, method="percentile", rng=0, n_resamples=4000
    ).confidence_interval
    np.testing.assert_allclose((low, high), expected, atol=0.004)
    assert low < difference.mean() < high
    text = (tmp_path / "out" / "comparison.md").read_text()
    assert f"| {two} - {one} | {difference.mean():+.4f} ({low:+.4f} to" in text


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


def test_another_number_of_steps_is_another_method(tmp_path):
    runs = [
        _run(tmp_path, "short", _cases(), steps=5),
        _run(tmp_path, "long", _cases(0.5), steps=9),
    ]
    assert len(compare_runs(runs, output=tmp_path / "out")["methods"]) == 2


def test_intervals_draw_groups_and_need_five_of_them(tmp_path):
    groups = {f"c{i}": f"g{i // 2}" for i in range(8)}
    runs = [
        _run(tmp_path, "one", _cases(), groups=groups),
        _run(tmp_path, "two", _cases(1.0), rate=0.2, groups=groups),
    ]
    results = compare_runs(runs, output=tmp_path / "out")
    assert (results["n_cases"], results["n_groups"]) == (8, 4)
    assert results["pairs"][0]["dice"]["ci95"] is None


def test_a_case_without_a_score_in_one_run_is_in_no_pair(tmp_path):
    gone = _cases(1.0)
    gone["c0"] = [None, None]
    runs = [
        _run(tmp_path, "one", _cases()),
        _run(tmp_path, "two", gone, rate=0.2),
    ]
    results = compare_runs(runs, output=tmp_path / "out")
    assert results["pairs"][0]["dice"]["n"] == 7


def test_equal_runs_have_no_difference(tmp_path):
    runs = [
        _run(tmp_path, "one", _cases()),
        _run(tmp_path, "two", _cases(), rate=0.2),
    ]
    (pair,) = compare_runs(runs, output=tmp_path / "out")["pairs"]
    assert pair["dice"] == {"difference": 0.0, "ci95": [0.0, 0.0], "p": None, "n": 8}


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
