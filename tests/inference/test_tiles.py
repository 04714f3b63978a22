import dataclasses
import math
import tracemalloc

import numpy as np
import pytest

from unet_jax.data.case import Case
from unet_jax.data.preprocess import Preprocessing
from unet_jax.experiment.label_choices import _segmented
from unet_jax.experiment.risk import levels_of_case
from unet_jax.inference import segmenter as segmenters
from unet_jax.inference.member import Member
from unet_jax.inference.segmenter import Segmenter
from unet_jax.inference.tiles import choose_tiles

CLASSES = 20


def _forward(variables, windows, wanted=None):
    """Give each pixel its class, and something of the whole window to blend."""
    near = np.abs(windows - np.linspace(-2, 2, CLASSES, dtype=np.float32))
    mean = windows.mean(axis=tuple(range(1, windows.ndim)), keepdims=True)
    scores = np.exp(-near - np.abs(mean))
    return scores / scores.sum(-1, keepdims=True)


def _member(dims=3, **changes):
    preprocessing = Preprocessing(
        network_dims=dims,
        slice_axis=2,
        spacing=None,
        size=None,
        crop_nonzero=True,
        intensity="zscore",
        channels=1,
    )
    values = {
        "forward": _forward,
        "variables": {},
        "num_classes": CLASSES,
        "window": (8,) * dims,
        "margin": (0,) * dims,
        "multiple": (1,) * dims,
        "overlap": 0.5,
        "window_batch": 3,
    }
    preprocessing = dataclasses.replace(
        preprocessing,
        spacing=changes.pop("spacing", None),
        resampling=changes.pop("resampling", "linear"),
    )
    return Member(preprocessing=preprocessing, **{**values, **changes})


def _image(*shape):
    image = np.random.default_rng(0).normal(10, 1, (*shape, 1)).astype(np.float32)
    image[:2], image[:, -3:] = 0, 0  # cropped away
    return image


def _predicted(members, image, spacing, tiles, monkeypatch):
    """Labels, probabilities and entropy of an image, by tiles of a few bytes."""
    found = []

    def chosen(windows):
        found.extend(choose_tiles(windows, 0) if tiles else choose_tiles(windows))
        return found

    monkeypatch.setattr(segmenters, "choose_tiles", chosen)
    probabilities = np.zeros((*image.shape[:-1], CLASSES), np.float32)
    uncertainty = np.zeros((*image.shape[:-1], 1), np.float32)
    labels = Segmenter(tuple(members))(
        image, spacing, probabilities=probabilities, uncertainty=uncertainty
    )
    assert (len(found) > 1) == tiles
    return labels, probabilities, uncertainty


@pytest.mark.parametrize(
    ("shape", "changes"),
    [
        ((40, 33, 26), {}),
        ((40, 33, 26), {"spacing": (1.3, 0.7, 1.0)}),
        ((40, 33, 26), {"spacing": (1.0, 3.5, 1.1), "resampling": "nnunet"}),
        ((40, 33, 26), {"logits_head": "softmax"}),
        ((50, 40, 6), {"dims": 2, "spacing": (1.3, 0.7, 1.0)}),
        ((40, 90), {"dims": 2, "spacing": (1.3, 0.7)}),
        ((40, 33, 26), {"overlap": 0.0, "margin": (2, 2, 2), "multiple": (4, 4, 4)}),
    ],
)
def test_tiles_give_what_whole_planes_give(shape, changes, monkeypatch):
    members = [_member(**changes)]
    if changes.get("margin"):
        members = [dataclasses.replace(members[0], forward=_inner)]
    spacing = (1.0,) * len(shape)
    whole = _predicted(members, _image(*shape), spacing, False, monkeypatch)
    tiled = _predicted(members, _image(*shape), spacing, True, monkeypatch)
    for one, other in zip(whole, tiled, strict=True):
        # The softmax of XLA rounds otherwise at the end of an array.
        rtol = 1e-6 if changes.get("logits_head") else 0
        np.testing.assert_allclose(one, other, rtol=rtol)


def _inner(variables, windows, wanted=None):
    return _forward(variables, windows)[:, 2:-2, 2:-2, 2:-2]


def test_networks_of_other_windows_have_tiles_together(monkeypatch):
    members = [_member(), _member(window=(6, 7, 8), spacing=(0.9, 1.2, 1.4))]
    whole, tiled = (
        _predicted(members, _image(30, 24, 25), (1.0,) * 3, tiles, monkeypatch)
        for tiles in (False, True)
    )
    for one, other in zip(whole, tiled, strict=True):
        np.testing.assert_array_equal(one, other)


def _windows(shape, classes, window, target=(1.0, 1.0, 1.0)):
    """Windows of a volume, of which nothing is computed."""
    image = np.broadcast_to(np.float32(1), (*shape, 1))
    member = _member(window=window, num_classes=classes)
    axis = member.band_axis(shape)
    scores = member.scores(image, target, axis=axis)
    return scores.windows


def test_tiles_are_few_and_fit():
    small = _windows((64, 48, 40), 3, (16, 16, 16))
    assert choose_tiles([small]) == [small.inverse.whole(small.axis)]
    large = _windows((200, 150, 120), 100, (32, 32, 32))
    tiles = choose_tiles([large], 2**27)
    covered = np.zeros((150, 120), int)
    for tile in tiles:
        (top, bottom), (left, right) = large.inverse.needed(large.axis, tile)
        covered[top:bottom, left:right] += 1
        pixels = (bottom - top) * (right - left)
        assert large.tile_bytes(pixels, pixels) <= 2**27
    assert (covered == 1).all()
    # A whole plane needs 1.9 times as much: two tiles, cut where a window starts.
    assert len(tiles) == 2
    assert tiles[0][0][1] in large.starts[1]
    # Where two windows need more than the limit, tiles of a few pixels do not help.
    assert choose_tiles([large], 0) == choose_tiles([large], 2 * large.window_bytes())


def test_temperature_and_risk_are_fitted_to_tiles_as_to_whole_planes(monkeypatch):
    image = _image(30, 24, 25)
    label = np.random.default_rng(1).integers(-1, CLASSES, image.shape[:-1])
    case = Case("a", image, label.astype(np.int16), (1.0,) * 3, "g")
    network, found = Segmenter((_member(spacing=(1.3, 0.7, 1.0)),)), []
    for limit in (2**30, 0):
        monkeypatch.setattr(
            segmenters,
            "choose_tiles",
            lambda one, limit=limit: choose_tiles(one, limit),
        )
        labels, (probabilities, classes) = _segmented(network, case, 0, 1)
        order = np.lexsort((classes, *probabilities.T))  # tiles have others
        levels = levels_of_case(network, case, 4)
        found.append((labels, probabilities[order], classes[order], levels.packed()))
    for one, other in zip(*found, strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("dims", [2, 3])
def test_memory_does_not_grow_with_classes_times_area(dims, monkeypatch):
    monkeypatch.setattr(
        segmenters, "choose_tiles", lambda windows: choose_tiles(windows, 2**20)
    )
    member = _member(dims, window=(8,) * dims, spacing=(1.1,) * 3, window_batch=1)
    peaks = []
    for size in (24, 72):
        image = _image(size, size, 8)
        tracemalloc.start()
        Segmenter((member,))(image, (1.0,) * 3)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
        pixels = math.prod(image.shape)
    # A pixel's image, normalised copies and label, but not its 20 scores.
    assert peaks[1] - peaks[0] < 40 * pixels + 2**20 < 4 * CLASSES * pixels
