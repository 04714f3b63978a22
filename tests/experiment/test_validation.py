"""What a run scores while it trains."""

import numpy as np
import pytest

from unet_jax.data.case import Case
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
