"""The mean over folds, and the table of a cross-validation."""

import numpy as np

from unet_jax.data.case import Case
from unet_jax.evaluation.folds import folds_table, summarise_folds
from unet_jax.evaluation.scorer import evaluate

NAMES = ("background", "cell", "nucleus")


def _scores(numbers):
    """Score pictures whose first class is found up to one row; the second is absent."""
    label = np.zeros((8, 8), int)
    label[2:6, 2:6] = 1
    cases = [
        Case(str(n), np.roll(label, n, 0)[..., None], label, None, str(n))
        for n in numbers
    ]
    options = {"class_names": NAMES, "metrics": (), "surface": False}
    return evaluate(lambda image, spacing: image[..., 0], cases, **options)


def _results(**changes):
    folds = [
        {"fold": number, "checkpoint_step": 40, **_scores(numbers)}
        for number, numbers in enumerate([(0, 1), (2,)])
    ]
    pooled = _scores((0, 1, 2))
    post = {"steps": [], "chosen": True, "mean": pooled["mean"]}
    results = {
        "class_names": NAMES,
        "folds": folds,
        "pooled": pooled,
        "postprocess": post,
        "test": None,
    }
    return results | summarise_folds(folds) | {"eval": {"choose": "last"}} | changes


def test_each_fold_counts_as_one_and_a_class_that_is_nowhere_has_no_value():
    found = summarise_folds(_results()["folds"])
    assert found["mean"]["dice"] == np.mean([(1 + 0.75) / 2, 0.5])
    assert found["std"]["dice"] == np.std([(1 + 0.75) / 2, 0.5], ddof=1)
    assert found["per_class"]["cell"]["mean"]["dice"] == found["mean"]["dice"]
    assert found["per_class"]["nucleus"]["mean"]["dice"] is None
    assert found["per_class"]["nucleus"]["std"]["dice"] is None
    assert "n_absent" not in found["per_class"]["cell"]["mean"]


def test_the_table_of_folds_as_a_whole():
    lines = folds_table(_results()).splitlines()
    assert lines[:9] == [
        "fold           cases  step    Dice     IoU  Dice cell  Dice nucleus",
        "-------------------------------------------------------------------",
        "0                  2    40  0.8750  0.8000     0.8750             -",
        "1                  1    40  0.5000  0.3333     0.5000             -",
        "-------------------------------------------------------------------",
        "mean of folds               0.6875  0.5667     0.6875             -",
        "std of folds                0.2652  0.3300     0.2652             -",
        "all cases          3        0.7500  0.6444     0.7500             -",
        "",
    ]
    text = " ".join(lines[9:])
    assert "3 cases in 3 groups" in text
    assert "no step raises the Dice" in text
    assert "no test split beside the folds" in text
    assert "eval.choose" not in text


def test_the_notes_say_what_chose_and_was_chosen():
    results = _results(eval={"choose": "best"}, test=_scores((1,)))
    results["postprocess"] |= {"steps": [["min_size", 1, 8]], "mean": {"dice": 0.8}}
    text = " ".join(folds_table(results).splitlines())
    assert "also chose its checkpoint (eval.choose='best')" in text
    assert (
        "min_size of cell (8); it changes the Dice of all cases from 0.7500 to" in text
    )
    assert "Test split (1 case), mean of the networks" in text
    assert "also in training" not in text
    results["test"] |= {"duplicates": 1}
    text = " ".join(folds_table(results).splitlines())
    assert "the images of 1 case are also in training or validation" in text
    given = {"steps": [["fill_holes", [1, 2], None]], "chosen": False}
    text = " ".join(folds_table(_results(postprocess=given)).splitlines())
    assert "Postprocessing, as given: fill_holes of cell and nucleus." in text
