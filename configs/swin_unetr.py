"""Tissue of the embedded brain MRI with Swin UNETR (Hatamizadeh et al. 2022).

    python -m unet_jax.main --config=configs/swin_unetr.py

It has not been trained to the end here.
"""

from ml_collections import ConfigDict

from unet_jax.configs import brain_slab


def get_config() -> ConfigDict:
    """Return the config."""
    config = brain_slab.get_config()
    config.name = "swin_unetr"
    config.model.name = "swin_unetr"
    config.model.options = ConfigDict({"features": 24})  # of the paper: 48
    config.optimizer.learning_rate = 1e-3
    return config
