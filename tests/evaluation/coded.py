"""Cases whose images hold a prediction, and a method that reads it."""

import numpy as np

from unet_jax.data.case import Case

NAMES = ("background", "a", "b")
TWO = ("background", "a")
FOUR = ("dice", "iou", "hd95", "nsd")


def labelled(label, *, id="one", group=None, spacing=None, image=None):
    """A case with a blank image, where none is given."""
    label = None if label is None else np.asarray(label)
    if image is None:
        image = np.zeros((*label.shape, 1), np.float32)
    return Case(id=id, image=image, label=label, spacing=spacing, group=group or id)


def coded(label, prediction, **options):
    """A case whose image holds the prediction that `read` returns."""
    prediction = np.asarray(prediction)
    return labelled(label, image=prediction[..., None].astype(np.float32), **options)


def read(image, spacing):
    """Return the prediction that the image holds."""
    return image[..., 0].astype(np.int32)
