"""What a run scores while it trains."""

import dataclasses
import math

import numpy as np
import pytest
from ml_collections import ConfigDict

from unet_jax.data.case import Case
from unet_jax.data.class_fractions import has_class
from unet_jax.data.preprocess import Preprocessing
from unet_jax.experiment import validation


@pytest.mark.parametrize(
    ("labelled", "count", "expected"),
    [
        (range(3, 9), 2, [4, 7]),  # not the empty ends
        (range(3, 9), 3, [4, 6, 8]),
        (range(5, 6), 4, [5]),  # no more than there are
        (range(0), 2, [3, 9]),  # nothing is labelled: anywhere
    ],
)
def test_slices_of_training_are_scored_where_something_is_labelled(
    labelled, count, expected
):
    image = np.broadcast_to(np.arange(12.0), (4, 5, 12))[..., None]
    label = np.zeros((4, 5, 12), np.int16)
    label[1, 2, list(labelled)] = 1
    slices = Preprocessing(
        network_dims=2,
        slice_axis=2,
        spacing=None,
        size=None,
        crop_nonzero=False,
        intensity="zscore",
        channels=1,
    )
    source = [Case("volume", image, label, (1.0, 1.0, 1.0), "volume")]
    (sample,) = validation._sample(source, count, slices)
    assert sample.image[0, 0, :, 0].tolist() == expected
    np.testing.assert_array_equal(sample.label, label[:, :, expected])
    # A network that sees the slices beside gets those that are beside.
    beside = dataclasses.replace(slices, adjacent_slices=1)
    (sample,) = validation._sample(source, count, beside)
    places = sample.image[0, 0, :, 0]
    assert len(places) == len(expected)
    assert np.all(np.diff(places) == 1)
    assert not labelled or set(places) & set(labelled)


NEW = {"score": None, "step": None, "evaluations_since": 0, "stopped": False}


@pytest.mark.parametrize(
    ("scores", "patience", "best", "stopped_at"),
    [
        ([0.0, 0.0, 0.0], 0, 3, None),  # nothing is found: not the untrained network
        ([0.2, 0.5, 0.4, 0.5], 0, 4, None),
        ([0.2, 0.5, 0.5, 0.5], 2, 4, 4),  # an equal score is no better one
        ([math.nan, math.nan, math.nan], 1, None, None),  # no class is defined
        ([0.3, math.nan, 0.2], 2, 1, None),
    ],
)
def test_the_best_step_is_the_last_of_the_highest_score(
    scores, patience, best, stopped_at
):
    config = ConfigDict({"train": {"early_stopping_patience": patience}})
    record = NEW
    for step, score in enumerate(scores, start=1):
        record = validation.updated_best(record, step, score, config)
        assert record["stopped"] == (step == stopped_at)
    assert record["step"] == best


def test_a_validation_without_any_class_says_that_the_last_step_is_kept():
    rows = {"train": {"dice": 0.5}, "val": {"dice": math.nan, "dice/a": math.nan}}
    line = validation.validation_line(7, rows, NEW)
    assert "Dice train 0.5000, validation -; " in line
    assert line.endswith("[a -]")
    assert "no validation case has a class: the last step is kept" in line
    rows["val"]["dice"] = 0.0
    assert "kept" not in validation.validation_line(7, rows, NEW)


@pytest.mark.parametrize(("value", "first", "expected"), [(1, 1, True), (0, 1, False)])
def test_a_class_of_any_case_defines_the_score(value, first, expected):
    labels = [np.zeros((2, 3), np.int16), np.full((2, 3), -1, np.int16)]
    labels[1][0, 0] = value
    cases = [
        Case(f"{i}", np.zeros((2, 3, 1)), label, None, f"{i}")
        for i, label in enumerate(labels)
    ]
    assert has_class(cases, 2, first=first) == expected
    assert has_class(cases, 2, first=0)
