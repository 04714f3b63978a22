"""Checks the config of a run whose cases have not all classes labelled."""

from ml_collections import ConfigDict

from unet_jax.errors import InputError, setting
from unet_jax.losses.terms import reads_labels


def check_labelled_classes(config: ConfigDict) -> None:
    """Refuse settings that do not go with ``data.labelled_classes``.

    Raises:
        InputError: a setting does not.
    """
    data = config.data
    # A record of an earlier version has no such key.
    if not data.get("labelled_classes", ""):
        return
    smoothed = [
        name for name, _, given in config.loss if dict(given).get("label_smoothing")
    ]
    for wrong, why in (
        (data.source == "tfds", "data.source='tfds': expected a folder of files"),
        (data.get("labels_only"), "data.labels_only=True: expected images"),
        (not reads_labels(config.loss), "losses of images alone: they read no label"),
        (
            smoothed and config.model.head == "softmax",
            "label_smoothing, which spreads the target over classes that a case does "
            "not have; expected 0",
        ),
    ):
        if wrong:
            raise InputError(
                f"data.labelled_classes: found it with {why}. Change that, or give "
                f"{setting('data.labelled_classes', '')}"
            )
