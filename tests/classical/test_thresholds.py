import itertools

import numpy as np
import pytest
from skimage import filters

from unet_jax.classical.levels import fit_levels, levels_of
from unet_jax.classical.methods import fit_method
from unet_jax.classical.samples import Sample
from unet_jax.classical.thresholds import (
    adaptive_field,
    niblack_field,
    otsu_thresholds,
    sauvola_field,
)
from unet_jax.data.case import Case
from unet_jax.datasets.mni152_tissue import mni152_tissue_dataset_builder as brain
from unet_jax.evaluation.scorer import evaluate

SHAPES = [(31, 26), (12, 15, 11)]


def _noise(shape, seed=0):
    return np.random.default_rng(seed).uniform(0, 255, shape)


def test_a_value_equal_to_the_threshold_falls_below():
    image = np.array([[59, 60, 61, 255]], np.uint8)[..., None]
    label = np.array([[0, 0, 1, 1]])
    fitted = fit_method(
        "manual_threshold",
        [Sample(image, label)],
        num_classes=2,
        parameters={"thresholds": (60,)},
    )
    np.testing.assert_array_equal(fitted.predict_fn(image, None), label)
    # As OpenCV's THRESH_BINARY and scikit-image's convention ``image > threshold``.
    np.testing.assert_array_equal(fitted.predict_fn(image, None), image[..., 0] > 60)


def test_several_thresholds_give_several_classes_also_where_the_dark_one_is_last():
    image = np.array([[10, 100, 101, 180, 181]], np.uint8)[..., None]
    label = np.array([[2, 2, 1, 1, 0]])
    fitted = fit_method(
        "manual_threshold",
        [Sample(image, label)],
        num_classes=3,
        parameters={"thresholds": (180, 100)},
    )
    assert fitted.chosen["thresholds"] == [100.0, 180.0]
    np.testing.assert_array_equal(fitted.predict_fn(image, None), label)


def test_fitted_thresholds_are_the_best_ones_by_exhaustive_search():
    rng = np.random.default_rng(3)
    label = rng.integers(0, 3, 600)
    values = (np.array([10, 16, 24])[label] + rng.normal(0, 3, 600)).round().astype(int)
    cuts, names = fit_levels([values], [label], 3)

    def dice(cuts, names):
        guess = np.asarray(names)[levels_of(values, cuts)]
        scores = [
            2 * ((guess == c) & (label == c)).sum()
            / ((guess == c).sum() + (label == c).sum())
            for c in (1, 2)
        ]  # fmt: skip
        return np.mean(scores)

    best = max(dice((a, b), (0, 1, 2)) for a in range(0, 35) for b in range(a + 1, 36))
    assert dice(cuts, names) >= best - 1e-12


def test_a_class_on_both_sides_of_another_gets_two_levels():
    values = np.arange(100)
    label = ((values > 30) & (values <= 60)).astype(int)
    cuts, names = fit_levels([values], [label], 2)
    assert (cuts, names) == ((30.0, 60.0), (0, 1, 0))


def test_levels_of_one_class_alone_need_no_threshold():
    assert fit_levels([np.arange(9)], [np.ones(9, int)], 3) == ((), (1,))
    assert fit_levels([np.full(9, 4)], [np.arange(9) % 2], 2)[0] == ()


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.int16, np.float32])
def test_otsu_is_that_of_scikit_image(dtype):
    rng = np.random.default_rng(0)
    values = rng.normal(rng.choice([40, 110, 190], 4000), 9).round().astype(dtype)
    whole = values.astype(np.int64)  # scikit-image gives floats the centres of bins
    (two,) = otsu_thresholds(values, 2)
    assert two == filters.threshold_otsu(whole)
    np.testing.assert_array_equal(
        otsu_thresholds(values, 3), filters.threshold_multiotsu(whole, 3)
    )


@pytest.mark.parametrize("levels", [2, 3])
@pytest.mark.parametrize(
    ("parts", "above"),
    [
        # A bin's centre would lie below the values in the middle: 70 % above.
        ({0.2: 30, 0.399: 40, 1.0: 30}, 0.3),
        ({-1000.0: 20, -999.6: 45, -997.0: 35}, 0.35),
        ({0.1: 25, 0.30000001: 60, 0.9: 15}, 0.15),
    ],
)
def test_otsu_cuts_floats_at_a_value_that_occurs(parts, above, levels):
    values = np.repeat(list(parts), list(parts.values())).astype(np.float32)
    cuts = otsu_thresholds(values, levels)
    assert np.isin(cuts, values.astype(np.float64)).all()
    assert (levels_of(values, cuts) == levels - 1).mean() == above


@pytest.mark.parametrize(("levels", "count"), [(2, 3000), (3, 200), (4, 40)])
def test_otsu_of_floats_is_the_best_of_all_cuts(levels, count):
    rng = np.random.default_rng(levels)
    values = rng.gamma(2, size=count).astype(np.float32)
    different = np.unique(values)[:-1]
    if levels > 2:
        different = different[:: 1 + len(different) // 30]
        values = values[np.isin(values, different)]

    def within(cuts):
        level = levels_of(values, cuts)
        parts = [values[level == i].astype(np.float64) for i in range(levels)]
        return sum(part.var() * part.size for part in parts if part.size)

    best = min(within(cuts) for cuts in itertools.combinations(different, levels - 1))
    assert within(otsu_thresholds(values, levels)) == pytest.approx(best, rel=1e-9)


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
@pytest.mark.parametrize("cut", [0.1, 0.7, -0.3, 1e5 + 0.1])
def test_a_decimal_that_equals_a_cut_falls_below_it(dtype, cut):
    with np.errstate(over="ignore"):
        values = np.array([cut, np.nextafter(dtype(cut), dtype(np.inf))], dtype)
    assert levels_of(values, (cut,))[0] == 0
    assert levels_of(values, (cut,))[1] == (1 if np.isfinite(values[0]) else 0)


def test_more_levels_are_the_optimum_that_scikit_image_finds():
    rng = np.random.default_rng(0)
    values = rng.normal(rng.choice([30, 90, 150, 220], 4000), 12)
    values = values.clip(0, 255).round().astype(np.uint8)

    def within(cuts):
        level = levels_of(values, cuts)
        return sum(values[level == i].var() * (level == i).sum() for i in range(4))

    theirs = within(filters.threshold_multiotsu(values, 4))
    assert within(otsu_thresholds(values, 4)) == pytest.approx(theirs, rel=1e-9)


def test_otsu_of_fewer_values_than_levels_parts_them_all():
    np.testing.assert_array_equal(otsu_thresholds(np.array([3, 3, 8]), 4), [3])
    assert otsu_thresholds(np.full(5, 2.0), 2).size == 0
    assert otsu_thresholds(np.empty(0), 2).size == 0


def test_otsu_of_16_bits_does_not_take_a_bin_for_each_value():
    values = np.array([100, 120, 30000, 30100, 65000, 65010], np.uint16)
    low, high = otsu_thresholds(values, 3)
    assert 120 <= low < 30000
    assert 30100 <= high < 65000


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("method", ["mean", "gaussian"])
@pytest.mark.parametrize("offset", [-4.0, 0.0, 9.0])
def test_the_adaptive_field_is_threshold_local(shape, method, offset):
    image = _noise(shape)
    expected = image > filters.threshold_local(image, 7, method, offset=offset)
    found = adaptive_field(image, window=7, method=method) > -offset
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("k", [-0.3, 0.2, 0.8])
def test_the_niblack_and_sauvola_fields_are_those_of_scikit_image(shape, k):
    image = _noise(shape)
    niblack = image > filters.threshold_niblack(image, 9, k)
    np.testing.assert_array_equal(niblack_field(image, window=9) > -k, niblack)
    sauvola = image > filters.threshold_sauvola(image, 9, k, r=128)
    found = sauvola_field(image, window=9, r=128) > -k
    np.testing.assert_array_equal(found, sauvola)


def test_what_is_outside_is_no_neighbour():
    inside = np.zeros((20, 20), bool)
    inside[5:15, 5:15] = True
    image = np.where(inside, 100.0, 0.0)
    for method in ("mean", "gaussian"):
        field = adaptive_field(image, inside, window=11, method=method)
        np.testing.assert_allclose(field, 0, atol=1e-4)
        assert adaptive_field(image, window=11, method=method)[5, 5] > 10
    np.testing.assert_array_equal(niblack_field(image, inside, window=11), 0)
    np.testing.assert_allclose(
        sauvola_field(image, inside, window=11, r=50), 0, atol=1e-6
    )


def test_adaptive_thresholds_see_through_a_shadow():
    rows, columns = np.indices((64, 64))
    label = ((rows % 16 < 4) & (columns % 16 < 4)).astype(int)
    image = (40.0 + 2.5 * columns + 30 * label)[..., None].astype(np.float32)
    scores = {}
    for name in ("manual_threshold", "adaptive_gaussian", "adaptive_mean", "niblack"):
        fitted = fit_method(name, [Sample(image, label)], num_classes=2)
        scores[name] = fitted.chosen["training_dice"]
    assert scores["manual_threshold"] < 0.5
    assert min(scores["adaptive_gaussian"], scores["adaptive_mean"]) > 0.95
    assert scores["niblack"] > 0.8


@pytest.mark.slow
def test_multi_otsu_over_all_slices_of_the_embedded_brain():
    """Thresholds of all slices, scored as everything is: by case, then averaged."""
    image = brain.load_template("t1")
    label = brain.tissue_labels(
        t1=image, grey=brain.load_template("gm"), white=brain.load_template("wm")
    )
    origin = brain._ORIGIN_MM[brain.SLICE_AXIS]
    cases = [
        Case(f"{split} {first}", image[..., z, None], label[..., z], None, split)
        for split, slabs in brain.SLABS_MM.items()
        for first, last in slabs
        for z in [slice(first - origin, last + 1 - origin)]
    ]
    fitted = fit_method(
        "otsu",
        [Sample(case.image, case.label) for case in cases],
        num_classes=4,
        parameters={"levels": 3, "mask": "nonzero", "scope": "training"},
    )
    assert fitted.chosen["thresholds"] == [139, 189]
    assert fitted.chosen["classes"] == [1, 2, 3]
    results = evaluate(
        fitted.predict_fn, cases, class_names=brain.CLASS_NAMES, surface=False
    )
    dice = [results["per_class"][name]["dice"] for name in brain.CLASS_NAMES[1:]]
    np.testing.assert_allclose(dice, (0.742, 0.894, 0.918), atol=0.01)
