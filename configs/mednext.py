"""Tissue of the embedded brain MRI with MedNeXt-S (Roy et al. 2023).

    python -m unet_jax.main --config=configs/mednext.py

It has not been trained to the end here.
"""

from ml_collections import ConfigDict

from unet_jax.configs import brain_slab


def get_config() -> ConfigDict:
    """Return the config."""
    config = brain_slab.get_config()
    config.name = "mednext"
    config.model.name = "mednext_s"
    config.model.options = ConfigDict({"deep_supervision": 4})
    config.optimizer.learning_rate = 1e-3
    return config
