"""Small sets that several tests of TFDS write and open."""

import numpy as np
import tensorflow_datasets as tfds

from unet_jax.data.tfds.source import TfdsSource

_PLANE = tfds.features.Tensor(
    shape=(None, None, 1), dtype=np.uint8, encoding=tfds.features.Encoding.BYTES
)
SQUARE = {"image": _PLANE, "label": _PLANE}
"""Features of an example that `square` makes."""


def square(value, label=1):
    """An example of 4 x 5 pixels, each with the same value and label."""
    return {
        "image": np.full((4, 5, 1), value, np.uint8),
        "label": np.full((4, 5, 1), label, np.uint8),
    }


def brain_slices(data_dir, **options):
    """Open the test split of the embedded brain MRI."""
    return TfdsSource(
        name="mni152_tissue", split="test", data_dir=data_dir, num_classes=4, **options
    )
