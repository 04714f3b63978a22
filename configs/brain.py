"""Tissue of the embedded brain MRI: the main job, and the default.

python -m unet_jax.main --config=configs/brain.py

MEASURED
"""

from ml_collections import ConfigDict

from configs import base


def get_config() -> ConfigDict:
    """Return the config."""
    config = base.get_config()
    config.name = "brain"
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
    config.train.steps = 1500
    config.eval.every_steps = 300
    return config
