import dataclasses
from types import SimpleNamespace

import numpy as np
import pytest

from unet_jax.data.fingerprint import Fingerprint, fingerprint, suggest
from unet_jax.experiment.memory_class import (
    CLASSES_GIB,
    USABLE_FRACTION,
    activation_bytes,
)


def _case(shape, spacing=None, channels=1, dtype="uint8", lowest=0.0, nonzero=1.0):
    return SimpleNamespace(
        shape=shape,
        spacing=spacing,
        channels=channels,
        dtype=dtype,
        lowest=lowest,
        nonzero_fraction=nonzero,
    )


def _found(shape, spacing=None, **options):
    return fingerprint([_case(shape, spacing, **options)])


def _suggest(found, **options):
    options = {
        "dims": None,
        "slice_axis": None,
        "base_features": 16,
        "max_features": 256,
        "batch_size": None,
        "patch_size": None,
        "max_patch": 256,
        "memory_bytes": 2**28,
        "accelerated": True,
        "devices": 1,
        **options,
    }
    return suggest(found, **options)


def test_medians_are_taken_on_the_median_grid():
    cases = [
        _case((100, 100, 20), (1.0, 1.0, 5.0)),
        _case((100, 100, 40), (1.0, 1.0, 2.5), dtype="int16", lowest=-9.0),
        _case((200, 200, 20), (0.5, 0.5, 5.0)),
    ]
    found = fingerprint(cases)
    assert found.spacing == (1.0, 1.0, 5.0)
    assert found.shape == (100, 100, 20)
    assert (found.cases, found.axes, found.lowest) == (3, 3, -9.0)
    assert found.dtypes == ("int16", "uint8")


def test_thick_slices_are_seen_and_segmented_in_2d():
    thick = _found((30, 300, 320), (6.0, 0.8, 0.8))
    assert thick.thick_axis == 0
    settings = _suggest(thick)
    assert (settings.dims, settings.slice_axis) == (2, 0)
    thin = _found((200, 300, 320), (1.5, 0.8, 0.8))
    assert thin.thick_axis is None
    assert _suggest(thin).dims == 3
    assert _suggest(thin, dims=2).slice_axis == 2
    assert _suggest(thin, accelerated=False).dims == 2
    assert _suggest(thin, accelerated=False, dims=3).dims == 3
    assert _suggest(_found((30, 40))).dims == 2


def test_a_fine_stage_keeps_thick_slices_apart():
    found = _found((300, 320, 30), (0.8, 0.8, 5.0))
    settings = _suggest(found, dims=3, memory_bytes=2**30)
    assert settings.kernel_sizes[0] == (3, 3, 1)
    assert settings.strides[0] == (2, 2, 1)
    assert settings.kernel_sizes[-1] == (3, 3, 3)
    assert settings.strides[-1][2] == 2


@pytest.mark.parametrize(
    "shape", [(512, 512), (1000, 1500), (60, 70), (3000, 20), (9, 9), (90, 80, 70)]
)
@pytest.mark.parametrize("memory", [2**26, 2**28, 2**31])
def test_patches_fit_the_image_the_network_and_the_budget(shape, memory):
    settings = _suggest(_found(shape), memory_bytes=memory)
    strides = np.prod(settings.strides, axis=0) if settings.strides else [1, 1]
    assert len(settings.features) == len(settings.kernel_sizes)
    assert len(settings.features) == len(settings.strides) + 1
    for size, patch, total in zip(shape, settings.patch_size, strides, strict=True):
        assert patch % total == 0
        assert patch <= max(1.5 * size, total)
        assert patch // total >= 2 or len(settings.features) == 1
    assert settings.batch_size % 2 == 0
    assert 2 <= settings.batch_size <= 16
    if memory == 2**31:
        assert max(settings.patch_size) >= min(max(shape), 96) * 0.8


def test_more_memory_gives_more_pixels_an_update():
    pixels = [
        np.prod(s.patch_size) * s.batch_size
        for s in (
            _suggest(_found((700, 700)), memory_bytes=2**power)
            for power in (26, 28, 30)
        )
    ]
    assert pixels[0] < pixels[1] < pixels[2]


@pytest.mark.parametrize("shape", [(300, 340), (70, 80, 60)])
@pytest.mark.parametrize("accelerated", [False, True])
def test_a_given_batch_changes_neither_patch_nor_network(shape, accelerated):
    options = {"dims": len(shape), "accelerated": accelerated}
    free = _suggest(_found(shape), **options)
    for batch_size in (1, 5, 32, 300):
        given = _suggest(_found(shape), batch_size=batch_size, **options)
        assert given == dataclasses.replace(free, batch_size=batch_size)


@pytest.mark.parametrize("gib", CLASSES_GIB)
def test_a_step_fits_into_what_an_accelerator_of_each_class_gives(gib):
    memory = activation_bytes(gib, accelerated=True)
    settings = _suggest(_found((300, 300, 300)), memory_bytes=memory)
    count, size = 0, np.array(settings.patch_size)
    for width, stride in zip(settings.features, ((1,), *settings.strides), strict=True):
        size = size // stride
        count += 2 * np.prod(size) * width
    # Six copies in float32; a compiled step was measured to need 1.7 times as much.
    needed = 1.7 * 24 * count * settings.batch_size
    assert needed < USABLE_FRACTION * gib * 2**30
    assert min(settings.patch_size) >= 96


def test_the_batch_divides_among_the_devices():
    assert _suggest(_found((300, 300)), devices=8).batch_size == 8
    assert _suggest(_found((300, 300)), devices=3).batch_size % 3 == 0


def test_what_is_given_stays():
    settings = _suggest(_found((300, 300)), batch_size=6, patch_size=(80, 48))
    assert (settings.batch_size, settings.patch_size) == (6, (80, 48))


@pytest.mark.parametrize(
    ("found", "intensity"),
    [
        (_found((50, 50, 50), dtype="int16", lowest=-1000.0), "percentile"),
        (_found((50, 50, 50), dtype="int16"), "zscore"),
        (_found((50, 50), channels=3), "full_range"),
        (_found((50, 50), channels=3, dtype="uint16"), "zscore"),
        (_found((50, 50)), "zscore"),
    ],
)
def test_intensity_by_what_the_numbers_mean(found, intensity):
    assert isinstance(found, Fingerprint)
    assert _suggest(found).intensity == intensity


def test_photographs_keep_their_up_and_down():
    assert _suggest(_found((90, 90), channels=3)).flip_axes == (1,)
    microscope = _suggest(_found((90, 90)))
    assert microscope.flip_axes == (0, 1)
    assert microscope.rotation_degrees == (-180.0, 180.0)


@pytest.mark.parametrize(("fraction", "expected"), [(0.74, True), (0.76, False)])
def test_the_empty_part_stays_zero_where_it_is_more_than_a_quarter(fraction, expected):
    cases = [_case((9, 9, 9), nonzero=one) for one in (0.2, fraction, 1.0)]
    assert _suggest(fingerprint(cases)).zero_outside is expected
