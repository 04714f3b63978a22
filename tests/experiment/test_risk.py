"""`eval.risk`: its part of validation, its threshold in the workdir, its refusals."""

import dataclasses
import json
from types import SimpleNamespace

import numpy as np
import pytest

from tests.experiment.noisy import noisy_squares
from unet_jax.configs import base
from unet_jax.data.case import Case
from unet_jax.errors import InputError
from unet_jax.experiment import risk as module
from unet_jax.experiment.check import check_config
from unet_jax.experiment.finished import _read_threshold
from unet_jax.experiment.record import check_same_run
from unet_jax.experiment.risk import sources_of, with_risk_threshold
from unet_jax.inference.risk import Threshold


def _config(risk, fraction=0.5):
    config = base.get_config()
    config.eval.risk, config.data.calibration_fraction = risk, fraction
    check_config(config)
    return config


def _groups(count, without=0):
    """Two cases of each group; the last groups have no pixel of the class."""
    label = np.ones((2, 2), int)
    cases = []
    for number in range(count):
        group = f"p{number}"
        one = label * (number < count - without)
        for case in "ab":
            image = np.zeros((2, 2, 1))
            cases.append(Case(f"{group}{case}", image, one, None, group))
    return SimpleNamespace(
        source=lambda split: {"validation": cases}.get(split, ["other"])
    )


def test_groups_choose_the_checkpoint_or_the_threshold_but_not_both():
    config = _config(("foreground", 0.2))
    parts = sources_of(config, _groups(11))
    groups = {
        split: {case.group for case in parts[split]}
        for split in ("validation", "calibration")
    }
    assert not groups["validation"] & groups["calibration"]
    assert len(parts["validation"]) + len(parts["calibration"]) == 22
    assert len(groups["calibration"]) == 6  # half of 11
    assert parts["train"] == ["other"]
    again = sources_of(config, _groups(11))
    assert again["calibration"].indices == parts["calibration"].indices
    config.data.split_seed = 1
    other = sources_of(config, _groups(11))
    assert other["calibration"].indices != parts["calibration"].indices
    assert "calibration" not in sources_of(_config(None), _groups(11))
    assert "calibration" not in sources_of(config, _groups(11), risk=False)


@pytest.mark.parametrize(
    ("groups", "without", "alpha", "found"), [(16, 0, 0.1, 8), (18, 18, 0.1, 0)]
)
def test_too_few_groups_are_refused_with_the_number_that_is_needed(
    groups, without, alpha, found
):
    config = _config(("foreground", alpha))
    with pytest.raises(InputError) as refusal:
        sources_of(config, _groups(groups, without))
    message = str(refusal.value)
    assert f"found {found} validation groups with the class 'foreground'" in message
    assert f"expected at least 9 for a limit of {alpha}" in message
    proposed = "--config.eval.risk='(\"foreground\", 0.112)'"
    assert (proposed in message) == bool(found)
    sources_of(_config(("foreground", 0.112)), _groups(18))


def _labelled(count):
    return [
        dataclasses.replace(case, group=f"p{number // 2}")
        for number, case in enumerate(noisy_squares(2 * count))
    ]


def test_the_threshold_is_chosen_written_applied_and_read(
    tmp_path,
    segmenter,
    capsys,
):
    config, cases = _config((1, 0.25)), _labelled(4)
    chosen, found = with_risk_threshold(tmp_path, segmenter, cases, config, step=7)
    assert json.loads((tmp_path / "risk.json").read_text()) == found
    assert found["checkpoint_step"] == 7
    assert found["groups"] == 4
    assert found["missed"] <= (5 * 0.25 - 1) / 4 < found["missed_without"]
    assert chosen.threshold == Threshold(1, found["threshold"])
    assert "4 groups limit the missed fraction of 'foreground' to 0.25" in (
        capsys.readouterr().out
    )
    beside = 0
    for case in cases:
        probabilities = np.zeros((*case.label.shape, 2), np.float32)
        labels = chosen(case.image, None, probabilities=probabilities)
        expected = probabilities[..., 1] >= found["threshold"]
        np.testing.assert_array_equal(labels == 1, expected)
        beside += (expected & (case.label == 0)).sum()
        # Postprocessing cannot remove what must not be missed.
        strict = dataclasses.replace(chosen, steps=(("min_size", 1, 10**6),))
        np.testing.assert_array_equal(strict(case.image, None), labels)
        # The temperature changes neither the pixels nor the threshold.
        soft = dataclasses.replace(chosen, temperature=3.0)
        np.testing.assert_array_equal(soft(case.image, None), labels)
    assert found["beside"] == beside
    assert _read_threshold(tmp_path, config, 7) == chosen.threshold
    assert _read_threshold(tmp_path, _config(None), 7) is None
    for other, step in ((config, 9), (_config((1, 0.3)), 7), (_config((0, 0.25)), 7)):
        with pytest.raises(InputError, match=r"risk\.json: found no threshold"):
            _read_threshold(tmp_path, other, step)


def test_two_processes_choose_the_threshold_of_one(tmp_path, segmenter, monkeypatch):
    config, cases, parts = _config((1, 0.3)), _labelled(3), {}
    alone = with_risk_threshold(tmp_path, segmenter, cases, config, step=1)[1]

    def gather(number, mine):
        parts[number] = json.loads(json.dumps(mine))
        return [entry for part in parts.values() for entry in part]

    for number in (0, 1, 0):  # the last one knows what the other sends
        fake = SimpleNamespace(
            indices_here=lambda count, number=number: range(number, count, 2),
            gather_items=lambda mine, number=number: gather(number, mine),
        )
        monkeypatch.setattr(module, "agree", fake)
        both = with_risk_threshold(tmp_path, segmenter, cases, config, step=1)[1]
    assert both == alone


@pytest.mark.parametrize(
    "value",
    ["lesion", ("lesion", 0.1), (2, 0.1), (True, 0.1), (1, 1.5), (1, 0), (1, 0.1, 2)],
)
def test_values_that_mean_nothing_are_refused(value):
    config = base.get_config()
    config.eval.risk = value
    with pytest.raises(InputError, match=r"eval\.risk: found .*write --config\.eval"):
        check_config(config)


def test_a_run_cannot_get_or_lose_its_calibration_part(tmp_path):
    def check(before, after):
        config = json.loads(json.dumps(_config(before).to_dict()))
        record = {"config": config, "dataset": {}}
        check_same_run(tmp_path, record, _config(after).to_dict(), {})

    check((1, 0.1), ("foreground", 0.2))
    check(None, None)
    for before, after in ((None, (1, 0.1)), ((1, 0.1), None)):
        with pytest.raises(InputError, match=r"its run has eval\.risk="):
            check(before, after)
