import numpy as np
import pytest
from skimage import morphology

from unet_jax.data.previous_changes import PreviousChanges, dilated

OFF = {"classes": 2, "operator_probability": 0.0, "removal_probability": 0.0}


def _crop():
    """An image channel and two classes of two components each."""
    crop = np.zeros((24, 22, 3), np.float32)
    crop[..., 0] = np.random.default_rng(0).normal(size=crop.shape[:2])
    crop[2:6, 3:7, 1] = crop[14:18, 3:6, 1] = 1
    crop[2:6, 10:14, 2] = crop[15:20, 15:20, 2] = 1
    return crop


@pytest.mark.parametrize("radius", [1, 3])
def test_a_ball_dilates_as_in_scikit_image(radius):
    mask = np.random.default_rng(1).random((9, 10, 8)) < 0.02
    expected = morphology.dilation(mask, morphology.ball(radius))
    np.testing.assert_array_equal(dilated(mask, radius), expected)
    assert not dilated(np.zeros((4, 4), bool), radius).any()


def test_removal_takes_whole_components_of_some_classes():
    change = PreviousChanges(**OFF | {"removal_probability": 1.0})
    removed = set()
    for seed in range(20):
        crop, before = _crop(), _crop()
        change(crop, np.random.default_rng(seed))
        np.testing.assert_array_equal(crop[..., 0], before[..., 0])
        gone = (before - crop)[..., 1:]
        assert gone.min() == 0
        for place, size in (((3, 4, 0), 16), ((15, 4, 0), 12), ((3, 11, 1), 16)):
            if gone[place]:
                removed.add(place)
                assert size <= gone[..., place[2]].sum() == size
    assert len(removed) == 3  # each of them in some crop
    large = np.ones((8, 8, 3), np.float32)
    change(large, np.random.default_rng(0))
    assert large.all()  # what covers more than 15 % stays


def test_operators_change_classes_and_keep_them_exclusive():
    change = PreviousChanges(**OFF | {"operator_probability": 1.0})
    grown = shrunk = 0
    for seed in range(30):
        crop, before = _crop(), _crop()
        change(crop, np.random.default_rng(seed))
        np.testing.assert_array_equal(crop[..., 0], before[..., 0])
        assert set(np.unique(crop[..., 1:])) <= {0.0, 1.0}
        assert crop[..., 1:].sum(-1).max() <= 1
        grown += (crop > before)[..., 1:].any()
        shrunk += (crop < before)[..., 1:].any()
    assert grown > 3
    assert shrunk > 3


def test_without_probability_nothing_is_changed():
    crop = _crop()
    PreviousChanges(**OFF)(crop, np.random.default_rng(0))
    np.testing.assert_array_equal(crop, _crop())
