import numpy as np
import pytest

from unet_jax.labels import IGNORE
from unet_jax.metrics.overlap import confusion_counts
from unet_jax.metrics.volume_counts import slice_counts


@pytest.mark.parametrize("axis", [None, 0, 2])
def test_slices_have_the_counts_of_the_jitted_counter(axis):
    rng = np.random.default_rng(0)
    prediction = rng.integers(0, 3, (4, 5, 6)).astype(np.uint8)
    label = rng.integers(IGNORE, 3, (4, 5, 6)).astype(np.int8)
    counts = slice_counts(prediction, label, axis=axis, num_classes=3)
    predictions, labels = (
        each[None] if axis is None else np.moveaxis(each, axis, 0)
        for each in (prediction, label)
    )
    expected = confusion_counts(predictions=predictions, labels=labels, num_classes=3)
    for found, wanted in zip(counts, expected, strict=True):
        assert found.dtype == np.int64
        np.testing.assert_array_equal(found, wanted)
