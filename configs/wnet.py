"""A W-Net: the tissue of the embedded brain MRI from its images alone.

python -m unet_jax.main --config=configs/wnet.py

"""

from ml_collections import ConfigDict

from configs import brain


def get_config() -> ConfigDict:
    """Return the config."""
    config = brain.get_config()
    config.name = "wnet"
    config.model.name = "wnet"
    config.loss = (
        ("soft_ncut", 1.0, {"intensity_sigma": 0.3}),
        ("reconstruction", 1.0, {}),
    )
    # No label is read before the end, so no crop is centred on a class either.
    config.data.foreground_oversampling = 0.0
    config.augment.enabled = False
    config.train.steps = 400
    config.eval.every_steps = 100
    return config
