"""Against DeepMind, MONAI 1.6.1 and scikit-learn; `benchmarks/golden_metrics.py` made
the numbers."""

import json
import pathlib

import numpy as np
import pytest

from unet_jax.evaluation.metric_table import metric_named
from unet_jax.metrics import calibration, clustering
from unet_jax.metrics.overlap import confusion_counts
from unet_jax.metrics.surface import (
    average_symmetric_surface_distance,
    hausdorff,
    hausdorff_95,
    normalized_surface_dice,
    surface_scores,
)

GOLDEN = json.loads((pathlib.Path(__file__).parent / "golden.json").read_text())


def _array(digits, shape=(-1,)):
    return np.array([int(digit) for digit in digits]).reshape(shape)


@pytest.mark.parametrize("surface", ["area", "voxel"])
@pytest.mark.parametrize("row", GOLDEN["surfaces"], ids=lambda r: str(r["spacing"]))
def test_surfaces_are_those_of_deepmind_and_monai(row, surface):
    masks = {
        name: _array(row[name], row["shape"]) == 1 for name in ("prediction", "label")
    }
    found = surface_scores(
        **masks,
        spacing=row["spacing"],
        tolerance=row["tolerance"],
        surface=surface,
    )
    for name, value in row[surface].items():
        assert getattr(found, name) == pytest.approx(value, rel=1e-6), name
    # The function of each single score gives the same value.
    options = {**masks, "spacing": row["spacing"], "surface": surface}
    assert hausdorff(**options) == found.hausdorff
    assert hausdorff_95(**options) == found.hd95
    assert average_symmetric_surface_distance(**options) == found.assd
    assert normalized_surface_dice(**options, tolerance=row["tolerance"]) == found.nsd


def _golden_counts():
    row = GOLDEN["counts"]
    counts = confusion_counts(
        predictions=_array(row["predictions"], row["shape"]),
        labels=_array(row["labels"], row["shape"]),
        num_classes=4,
    )
    return type(counts)(*(np.asarray(count) for count in counts))


@pytest.mark.parametrize("name", GOLDEN["counts"]["monai"])
def test_counts_are_divided_as_in_monai(name):
    values = metric_named(name).compute(_golden_counts())
    expected = GOLDEN["counts"]["monai"][name]
    # MONAI computes in float32.
    np.testing.assert_allclose(values, expected, atol=1e-6)


@pytest.mark.parametrize("name", GOLDEN["counts"]["sklearn"][0])
def test_counts_are_divided_as_in_scikit_learn(name):
    values = metric_named(name).compute(_golden_counts())
    expected = [sample[name] for sample in GOLDEN["counts"]["sklearn"]]
    np.testing.assert_allclose(values, expected, rtol=1e-12)


def test_partitions_are_compared_as_in_scikit_learn():
    row = GOLDEN["partitions"]
    table = clustering.contingency_table(
        clusters=_array(row["clusters"]), labels=_array(row["labels"])
    )
    assert clustering.adjusted_rand_index(table) == pytest.approx(
        row["adjusted_rand"], rel=1e-12
    )
    assert clustering.variation_of_information(table) == pytest.approx(
        row["variation_of_information"], rel=1e-12
    )


def test_calibration_is_that_of_scikit_learn():
    row = GOLDEN["calibration"]
    given = {
        "probabilities": np.array(row["probabilities"]),
        "labels": _array(row["labels"]),
    }
    assert calibration.brier_score(**given) == pytest.approx(row["brier"], rel=1e-12)
    sums = calibration.class_reliability(**given)
    curve = calibration.reliability_curve(
        calibration.Reliability(*(values[1] for values in sums))
    )
    # scikit-learn leaves out empty bins.
    for key in ("accuracy", "confidence"):
        values = [entry[key] for entry in curve if entry["pixels"]]
        np.testing.assert_allclose(values, row[f"{key}_of_1"], rtol=1e-12)
