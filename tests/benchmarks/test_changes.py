import numpy as np
import pytest

from benchmarks import masks
from benchmarks.changes import crop_statistics, describe


def test_mirrored_draws_are_no_changes():
    image = np.arange(12.0).reshape(3, 4)
    label = (image > 5).astype(int)
    drawn = [
        (image, label),
        (image[::-1], label),
        (image[::-1, ::-1], label),
        (image + np.eye(3, 4), np.zeros((3, 4))),
    ]
    found = describe(image, drawn)
    assert found["changed"] == 0.25
    assert found["mean"] == pytest.approx(5.5 + 0.25 * 3 / 12)
    assert found["labelled"] == pytest.approx(0.5 * 3 / 4)
    assert found["std"] == pytest.approx(
        (3 * image.std() + (image + np.eye(3, 4)).std()) / 4
    )


def test_statistics_of_crops():
    batches = [
        (np.array([[0.0, 2.0]]), np.array([[0, 3]])),
        (np.array([[4.0, 4.0]]), np.array([[-1, 0]])),  # -1 is no label
    ]
    found = crop_statistics(batches)
    assert found == {"mean": 2.5, "std": 0.5, "labelled": 0.25}


def test_masks_are_what_their_names_say(monkeypatch):
    monkeypatch.setattr(masks, "SIZE", 48)
    label = masks.organ(seed=0)
    volumes = {name: masks.prediction(name).sum() for name in masks.PREDICTIONS}
    assert label.sum() < volumes["close"] < volumes["3_mm_off"] < 1.2 * label.sum()
    assert not np.array_equal(masks.prediction("another_shape"), label)
    assert 0.008 < volumes["noise"] / label.size < 0.012
    with pytest.raises(ValueError, match="expected one of"):
        masks.prediction("good")
