"""Every method on drawings whose answer is known, in all shapes and dtypes."""

import json
import warnings

import numpy as np
import pytest

from unet_jax.classical.given import plan_search
from unet_jax.classical.methods import METHODS, fit_method
from unet_jax.classical.samples import Sample
from unet_jax.errors import InputError
from unet_jax.labels import IGNORE


def _drawing(seed, shape, num_classes, channels, dtype):
    """Balls of one to two classes on a background, each class with its own values."""
    rng = np.random.default_rng(seed)
    label = np.zeros(shape, np.int64)
    grid = np.indices(shape)
    for index in range(1, num_classes):
        place = (index - 0.5) / (num_classes - 1)
        center = [place * shape[0], *(n / 2 + rng.integers(-2, 3) for n in shape[1:])]
        radius = 0.36 * min(shape[0] / (num_classes - 1), *shape[1:])
        far = sum((g - c) ** 2 for g, c in zip(grid, center, strict=True))
        label[far <= radius**2] = index
    levels = 40 + 150 * np.arange(num_classes) / (num_classes - 1)
    values = levels[label][..., None] + rng.normal(0, 2, (*shape, channels))
    if channels > 1:  # the second channel falls where the others rise
        values[..., 1] = 230 - values[..., 1]
    if dtype == np.float32:
        return Sample((values / 255).astype(dtype), label)
    scale = {np.uint8: 1, np.uint16: 200, np.int16: 8}[dtype]
    shift = -1000 if dtype == np.int16 else 0
    return Sample((values * scale + shift).round().astype(dtype), label)


CASES = {
    "2d_grey": ((48, 40), 2, 1, np.uint8),
    "2d_color": ((60, 40), 3, 3, np.uint8),
    "3d_int16": ((16, 18, 14), 2, 1, np.int16),
    "3d_channels": ((32, 18, 14), 3, 2, np.float32),
    "2d_uint16": ((60, 40), 3, 1, np.uint16),
}


def _dice(prediction, label, index):
    hits = ((prediction == index) & (label == index)).sum()
    return 2 * hits / ((prediction == index).sum() + (label == index).sum())


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize(
    "case",
    [pytest.param(c, marks=pytest.mark.slow) if c[0] == "3" else c for c in CASES],
)
def test_every_method_finds_the_balls_of_an_unseen_drawing(name, case):
    shape, num_classes, *rest = CASES[case]
    samples = [_drawing(seed, shape, num_classes, *rest) for seed in (0, 1)]
    fitted = fit_method(name, samples, num_classes=num_classes, seed=0)
    new = _drawing(7, shape, num_classes, *rest)
    labels = fitted.predict_fn(new.image, None)
    assert labels.shape == shape
    assert labels.dtype == np.uint8
    for index in range(1, num_classes):
        # Laplacian contours lie where a blurred border bends, a pixel off on balls
        # of a few pixels.
        least = 0.75 if name in ("log", "canny") else 0.9
        assert _dice(labels, new.label, index) >= least, fitted.chosen
    json.dumps(fitted.chosen)
    if case == "2d_grey":
        again = fit_method(name, samples, num_classes=num_classes, seed=0)
        assert again.chosen == fitted.chosen
        np.testing.assert_array_equal(again.predict_fn(new.image, None), labels)


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize(
    ("shape", "channels", "dtype"),
    [((6, 7, 5), 1, np.float32), ((12, 10), 3, np.uint8)],
)
def test_constant_images_are_fitted_and_segmented_without_a_warning(
    name, shape, channels, dtype
):
    image = np.full((*shape, channels), 7, dtype)
    label = np.zeros(shape, np.int64)
    label[0, 0] = 1
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        fitted = fit_method(name, [Sample(image, label)], num_classes=2)
        for value in (0, 7, 200):
            labels = fitted.predict_fn(np.full_like(image, value), None)
            assert labels.shape == shape
            assert len(np.unique(labels)) == 1


@pytest.mark.parametrize("name", METHODS)
def test_ignored_pixels_count_for_nothing(name):
    sample = _drawing(0, *CASES["2d_grey"])
    # What is wrongly drawn is ignored: an annotator's scribble over half of the ball.
    masked = np.where(np.arange(40) < 20, IGNORE, sample.label)
    fitted = fit_method(name, [Sample(sample.image, masked)], num_classes=2)
    labels = fitted.predict_fn(sample.image, None)
    assert _dice(labels, sample.label, 1) > 0.85


@pytest.mark.parametrize("name", METHODS)
def test_a_prediction_does_not_write_into_the_image(name):
    shape, num_classes, *rest = CASES["2d_grey"]
    sample = _drawing(0, shape, num_classes, *rest)
    sample.image.setflags(write=False)
    sample.label.setflags(write=False)
    fitted = fit_method(name, [sample], num_classes=num_classes)
    # A write into either array raises.
    labels = fitted.predict_fn(sample.image, (1.0, 2.0))
    assert labels.shape == sample.label.shape


def test_images_of_unlike_scanners_are_brought_to_one_scale():
    shape, num_classes, *_ = CASES["2d_grey"]
    samples = []
    for seed, gain in ((0, 1.0), (1, 3.0), (2, 0.4)):
        drawn = _drawing(seed, shape, num_classes, 1, np.float32)
        samples.append(Sample(gain * drawn.image, drawn.label))
    fitted = fit_method("kmeans", samples, num_classes=num_classes)
    assert "image" in (fitted.chosen["scale"], fitted.chosen["scope"])
    new = _drawing(9, shape, num_classes, 1, np.float32)
    labels = fitted.predict_fn(2 * new.image, None)
    assert _dice(labels, new.label, 1) > 0.95


def test_the_reference_of_a_scan_stands_for_that_of_its_slab():
    scan = np.array([[10, 20, 30, 110, 120, 130]], np.float32)[..., None]
    label = (scan[..., 0] > 60).astype(int)
    moments = ((float(scan.mean()), float(scan.std())),)
    samples = [
        Sample(scan, label, None, moments),
        Sample(9 * scan, label, None, ((9 * moments[0][0], 9 * moments[0][1]),)),
    ]
    given = {"scale": "image", "scope": "training", "k": 2, "space": "rgb"}
    fitted = fit_method("kmeans", samples, num_classes=2, parameters=given)
    slab, reference = 4 * scan[:, 3:], ((4 * moments[0][0], 4 * moments[0][1]),)
    np.testing.assert_array_equal(
        fitted.predict_fn(slab, None, reference=reference), [[1, 1, 1]]
    )


@pytest.mark.parametrize(
    ("name", "parameters", "message"),
    [
        ("otsoo", {}, "unknown method 'otsoo'; expected one of manual_threshold, otsu"),
        ("otsu", {"bins": 3}, "otsu has no parameter 'bins'; expected any of channel"),
        ("otsu", {"levels": 1}, "otsu: levels: found 1, expected 2 to 32"),
        ("otsu", {"levels": 2.5}, "found 2.5, expected a whole number from 2 to 32"),
        ("otsu", {"mask": "some"}, "found 'some', expected one of 'all', 'nonzero'"),
        ("niblack", {"window": 4}, "window: found 4, expected an odd number"),
        ("sobel", {"sigma": float("nan")}, "sigma: found nan, expected a number from"),
        ("sobel", {"fill": 1}, "fill: found 1, expected one of False, True"),
        ("split_and_merge", {"min_size": 3}, "found 3, expected a power of 2"),
        ("manual_threshold", {"thresholds": "60"}, "found '60', expected numbers"),
        ("manual_threshold", {"thresholds": ()}, r"found \(\), expected numbers"),
        ("region_growing", {"seeds": ((2, (1, 1)),)}, "a class below 2 and a pixel"),
        ("region_growing", {"seeds": ((1, (1,)),)}, r"such as \(\(1, \(12, 40\)\),\)"),
    ],
)
def test_what_is_given_is_checked(name, parameters, message):
    sample = Sample(np.zeros((4, 4, 1)), np.zeros((4, 4), int))
    with pytest.raises(InputError, match=message):
        fit_method(name, [sample], num_classes=2, parameters=parameters)


def test_given_parameters_are_not_fitted():
    sample = _drawing(0, *CASES["2d_grey"])
    given = {"window": 11, "offsets": (-5.0,)}
    fitted = fit_method("adaptive_mean", [sample], num_classes=2, parameters=given)
    assert (fitted.chosen["window"], fitted.chosen["offsets"]) == (11, [-5.0])
    grown = fit_method(
        "region_growing",
        [sample],
        num_classes=2,
        parameters={"seeds": ((0, (0, 0)), (1, (24, 20))), "tolerance": 20.0},
    )
    assert grown.chosen["seeds"] == [[0, [0, 0]], [1, [24, 20]]]
    assert _dice(grown.predict_fn(sample.image, None), sample.label, 1) > 0.98


@pytest.mark.parametrize(
    ("name", "old", "new"),
    [
        ("region_growing", {"share": 0.5}, {"fraction": 0.5}),
        ("discontinuity", {"feature": "deviation"}, {"feature": "std"}),
    ],
)
def test_former_names_are_read_with_one_line_of_advice(name, old, new, capsys):
    sample = Sample(np.zeros((4, 4, 1)), np.zeros((4, 4), int))
    grid, *_ = plan_search(name, [sample], num_classes=2, parameters=old)
    expected, *_ = plan_search(name, [sample], num_classes=2, parameters=new)
    assert grid == expected
    (line,) = capsys.readouterr().out.splitlines()
    assert line.startswith(f"compare.parameters: {name}: ")
    assert line.endswith("; the old name works until version 0.3")


def test_no_training_case_is_said_to_be_missing():
    with pytest.raises(InputError, match="otsu: found no labelled training case"):
        fit_method("otsu", [], num_classes=2)
