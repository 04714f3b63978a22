"""Checks the config of a run that has label maps and no images."""

from ml_collections import ConfigDict

from unet_jax.data.sub_labels import SubLabels
from unet_jax.errors import InputError, setting
from unet_jax.losses.terms import reads_labels

DRAWN_SCORES = "scores: of images drawn from label maps, not of scans"
"""Line beside every table of scores of such a run."""


def labels_only(config: ConfigDict) -> bool:
    """Tell whether a run has no images; a record of an earlier version has no key."""
    return bool(config.data.get("labels_only", False))


def check_labels_only(config: ConfigDict) -> None:
    """Refuse settings that need images where there are none.

    Raises:
        InputError: a setting does not fit ``data.labels_only``, or ``data.sub_labels``
            has another form.
    """
    data, augment = config.data, config.augment
    SubLabels(data.get("sub_labels", ()))
    if not labels_only(config):
        return
    needed = {
        "data.source": (data.source, "folder"),
        "data.intensity": (data.intensity or "zscore", "zscore"),
        "data.images": (data.images, ""),
        "data.channels": (data.channels, ()),
        "data.join_masks": (data.join_masks, False),
        "augment.enabled": (augment.enabled, reads_labels(config.loss)),
    }
    if not augment.enabled:
        del needed["augment.enabled"]  # each label map keeps one drawn image
    elif reads_labels(config.loss):
        needed |= {
            "augment.synthesis": (augment.synthesis, True),
            "augment.synthesis_probability": (augment.synthesis_probability, 1.0),
            "augment.synthesis_like_real_probability": (
                augment.synthesis_like_real_probability,
                0.0,
            ),
        }
    wrong = {key: pair for key, pair in needed.items() if pair[0] != pair[1]}
    if wrong:
        found = ", ".join(f"{key}={pair[0]!r}" for key, pair in wrong.items())
        settings = " ".join(setting(key, pair[1]) for key, pair in wrong.items())
        raise InputError(
            f"data.labels_only=True: found {found}; expected images that are drawn "
            f"from label maps alone; set {settings}"
        )
