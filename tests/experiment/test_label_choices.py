"""The temperature of a run: fitted on validation, and read back with the run."""

import json
from types import SimpleNamespace

import numpy as np
import pytest

from tests.experiment.noisy import noisy_squares
from unet_jax.configs import base
from unet_jax.errors import InputError
from unet_jax.experiment import label_choices
from unet_jax.experiment.check import check_config
from unet_jax.experiment.finished import _read_temperature


def _fit(folder, segmenter, cases, *, steps=False):
    chosen = label_choices.with_validation_choices(
        folder, segmenter, cases, step=7, steps=steps, temperature=True
    )
    return chosen, (folder / "temperature.json").read_bytes()


def test_two_processes_fit_the_temperature_of_one(tmp_path, segmenter, monkeypatch):
    cases = noisy_squares(5)
    chosen, alone = _fit(tmp_path, segmenter, cases)
    record = json.loads(alone)
    assert record["checkpoint_step"] == 7
    assert record["cases"] == 5
    assert record["pixels"] == 5 * 14 * 12  # none of the ignored ones
    assert record["temperature"] == chosen.temperature > 2
    assert record["nll"] < record["nll_uncalibrated"]
    # In one pass with the postprocessing every process sees every case.
    assert _fit(tmp_path, segmenter, cases, steps=True)[1] == alone

    parts = {}

    def gather(number, mine):
        parts[number] = json.loads(json.dumps(mine))
        both = [parts[one] for one in sorted(parts)]
        return [part[place] for place in range(3) for part in both if place < len(part)]

    for number in (0, 1, 0):  # the last one knows what the other sends
        fake = SimpleNamespace(
            indices_here=lambda count, number=number: range(number, count, 2),
            gather_items=lambda mine, number=number: gather(number, mine),
        )
        monkeypatch.setattr(label_choices, "agree", fake)
        _, together = _fit(tmp_path, segmenter, cases)
    assert together == alone


def test_each_case_has_the_same_number_of_pixels_where_they_are_many(
    tmp_path, segmenter, monkeypatch
):
    monkeypatch.setattr(label_choices, "_SAMPLED", 2 * 3 * 20)
    record = json.loads(_fit(tmp_path, segmenter, noisy_squares(3))[1])
    assert record["pixels"] == 3 * 20


def test_a_temperature_changes_no_label(tmp_path, segmenter):
    cases = noisy_squares(2)
    chosen, _ = _fit(tmp_path, segmenter, cases)
    for case in cases:
        raw, told = np.zeros((2, *case.label.shape, 2), np.float32)
        labels = segmenter(case.image, None, probabilities=raw)
        np.testing.assert_array_equal(
            chosen(case.image, None, probabilities=told), labels
        )
        assert told.max(-1).mean() < raw.max(-1).mean() - 0.05


def test_what_a_run_is_loaded_with(tmp_path):
    assert _read_temperature(tmp_path, None, 7) is None  # version 0.1, or off
    assert _read_temperature(tmp_path, 1.5, 7) == 1.5
    assert _read_temperature(tmp_path, "fit", 7) is None  # stopped before the end
    path = tmp_path / "temperature.json"
    path.write_text(json.dumps({"checkpoint_step": 7, "temperature": 2.5}))
    assert _read_temperature(tmp_path, "fit", 7) == 2.5
    assert _read_temperature(tmp_path, "fit", 9) is None  # of another checkpoint
    path.write_text("{")
    with pytest.raises(InputError, match=r"temperature\.json: cannot be read"):
        _read_temperature(tmp_path, "fit", 7)


@pytest.mark.parametrize("value", [0, True, "auto", float("nan"), 100.0])
def test_temperatures_that_mean_nothing_are_refused(value):
    config = base.get_config()
    check_config(config)
    config.eval.temperature = value
    with pytest.raises(InputError, match=r"eval\.temperature: found .* expected 'fit'"):
        check_config(config)


def test_a_run_that_learnt_without_labels_gets_no_temperature():
    config = base.get_config()
    assert label_choices.fits_temperature(config)
    config.loss = (("soft_ncut", 1.0, {}), ("reconstruction", 1.0, {}))
    assert not label_choices.fits_temperature(config)
    config = base.get_config()
    del config.eval["temperature"]  # of version 0.1
    assert not label_choices.fits_temperature(config)
