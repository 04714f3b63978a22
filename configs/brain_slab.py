"""Segments the embedded brain MRI by a network that sees its real slices alone.

    python -m unet_jax.main --config=configs/brain_slab.py

It has the settings that configs/brain.py had in version 0.1: better on the test slab,
and of little use on scans of other people (docs/unseen.md).
"""

from ml_collections import ConfigDict

from unet_jax.configs import base


def get_config() -> ConfigDict:
    """Return the config."""
    config = base.get_config()
    config.name = "brain_slab"
    config.data.mean_key = "volume_mean"
    config.data.std_key = "volume_deviation"
    config.data.class_names = (
        "background",
        "CSF and other",
        "grey matter",
        "white matter",
    )
    config.data.class_colors = (
        (0, 0, 0),
        (64, 156, 255),
        (255, 179, 64),
        (80, 220, 120),
    )
    # Absolute intensity tells tissues apart; instance norm would remove it. There is
    # little augmentation: in short trials more of it did not help on new slices.
    config.model.options.norm = "batch"
    config.augment.rotation_probability = 0.1
    config.augment.scaling_probability = 0.1
    config.augment.elastic_probability = 0.0
    config.augment.gamma_probability = 0.0
    config.augment.gamma_inverted_probability = 0.0
    config.augment.brightness_probability = 0.0
    config.augment.contrast_probability = 0.0
    config.augment.low_resolution_probability = 0.0
    config.augment.blur_probability = 0.0
    config.train.steps = 1000
    config.eval.every_steps = 250
    return config
