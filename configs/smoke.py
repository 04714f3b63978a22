"""Runs the whole chain on the embedded brain MRI in under a minute, as a test.

python -m unet_jax.main --config=configs/smoke.py
"""

from ml_collections import ConfigDict

from unet_jax.configs import brain_slab


def get_config() -> ConfigDict:
    """Return the config."""
    config = brain_slab.get_config()
    config.name = "smoke"
    config.model.name = "unet_tiny"
    config.train.steps = 40
    config.train.batch_size = 4
    config.train.patch_size = (64, 64)
    config.optimizer.warmup_steps = 5
    config.eval.every_steps = 20
    config.eval.train_images = 4
    config.eval.overlap = 0.25
    config.log.every_steps = 5
    return config
