"""Channels with schemes of their own, and nnU-Net's resampling."""

import numpy as np
import pytest

from unet_jax.data.files.canonical import as_case_image
from unet_jax.data.files.stored import StoredImage
from unet_jax.data.preprocess import Preprocessing
from unet_jax.data.schemes import (
    check_intensity,
    coarse_axis,
    nearest_planes,
    resample_cubic,
)
from unet_jax.errors import InputError


def _preprocessing(schemes, **changes):
    return Preprocessing(
        **{
            "network_dims": 3,
            "slice_axis": 2,
            "spacing": None,
            "size": None,
            "crop_nonzero": True,
            "intensity": schemes,
            "channels": len(schemes),
            "statistics": (),
        }
        | changes
    )


@pytest.fixture
def image():
    """A hollow box in an empty border, in two channels."""
    random = np.random.default_rng(0)
    image = np.zeros((9, 8, 7, 2), np.float32)
    image[1:8, 1:7, 1:6] = random.uniform(10, 20, (7, 6, 5, 2))
    image[1, 1, 1] = 0  # outside
    image[4, 4, 3] = 0  # a hole
    return image


@pytest.mark.parametrize(
    ("scheme", "expected"),
    [
        ("zscore_whole", lambda x, filled: (x - x.mean()) / x.std()),
        (
            "zscore_filled",
            lambda x, filled: np.where(
                filled, (x - x[filled].mean()) / x[filled].std(), 0
            ),
        ),
        ("zscore", lambda x, filled: (x - x[x != 0].mean()) / x[x != 0].std()),
        ("unit_range", lambda x, filled: (x - x.min()) / (x.max() - x.min())),
        ("rgb", lambda x, filled: x / 255),
        ("none", lambda x, filled: x),
    ],
)
def test_each_channel_is_scaled_by_its_own_scheme(image, scheme, expected):
    made, inverse = _preprocessing((scheme, "none")).apply(image, None)
    assert inverse.box == ((1, 8), (1, 7), (1, 6))
    cropped = image[1:8, 1:7, 1:6]
    filled = np.ones(cropped.shape[:-1], bool)
    filled[0, 0, 0] = False
    np.testing.assert_allclose(
        made[..., 0], expected(cropped[..., 0], filled), atol=1e-5
    )
    np.testing.assert_array_equal(made[..., 1], cropped[..., 1])


def test_a_scheme_that_is_unknown_or_missing_is_refused():
    with pytest.raises(InputError, match="found 'minmax', expected one of"):
        check_intensity("minmax")
    with pytest.raises(InputError, match=r"data\.intensity: found"):
        check_intensity(("zscore", "minmax"))
    with pytest.raises(InputError, match="has 1 schemes; expected 2"):
        _preprocessing(("none",), channels=2)


@pytest.mark.parametrize(
    ("spacing", "other", "expected"),
    [
        ((1, 1, 3.5), (1, 1, 1), 2),
        ((1, 1, 1), (4, 1, 1), 0),
        ((1, 1, 3), (1, 1, 1), None),  # not more than three times
        ((4, 4, 1), (1, 1, 1), None),  # two axes are as coarse
        (None, None, None),
    ],
)
def test_planes_that_lie_far_apart_are_not_mixed(spacing, other, expected):
    assert coarse_axis(spacing, other) == expected


def test_along_a_coarse_axis_the_nearest_plane_is_taken():
    assert nearest_planes(3, 6).tolist() == [0, 0, 1, 1, 2, 2]
    assert nearest_planes(6, 3).tolist() == [1, 3, 5]
    values = np.random.default_rng(0).normal(size=(4, 5, 3)).astype(np.float32)
    made = resample_cubic(values, (4, 5, 6), coarse=2)
    np.testing.assert_array_equal(made, values.repeat(2, axis=2))
    smooth = resample_cubic(values, (8, 5, 6), coarse=None)
    assert smooth.min() >= values.min()
    assert smooth.max() <= values.max()


def test_scores_come_back_from_the_nearest_plane_too():
    preprocessing = _preprocessing(("none",), spacing=(1, 1, 2.5), resampling="nnunet")
    image = np.random.default_rng(0).uniform(1, 2, (6, 5, 3, 1)).astype(np.float32)
    made, inverse = preprocessing.apply(image, (1.0, 1.0, 5.0))
    np.testing.assert_array_equal(made, image.repeat(2, axis=2))
    for axis in range(3):
        scores = np.moveaxis(made, axis, 0)
        planes = inverse.planes(iter([(0, scores)]), axis=axis, num_classes=1)
        back = np.stack([plane.copy() for plane in planes], axis=axis)
        np.testing.assert_array_equal(back, made[:, :, 1::2])


def test_volumes_may_stay_as_stored():
    image = np.arange(24.0).reshape(2, 3, 4, 1)
    affine = np.array([[0, -2, 0, 0], [-1, 0, 0, 0], [0, 0, 3, 0], [0, 0, 0, 1.0]])
    stored = StoredImage(None, image, affine, (1.0, 2.0, 3.0), "volume")
    turned, spacing, _ = as_case_image(stored, 2)
    assert turned.shape[:-1] == (3, 2, 4)
    assert spacing == (2.0, 1.0, 3.0)
    kept, spacing, restore = as_case_image(stored, 2, turned=False)
    np.testing.assert_array_equal(kept, image)
    assert spacing == (1.0, 2.0, 3.0)
    np.testing.assert_array_equal(restore(kept[..., 0]), image[..., 0])
