"""Segments parts of a vertebra in CT, in 3-D; the vertebra stands in for a femur.

    pip install --no-deps tptbox  # 9 MB; or the extra: pip install -e '.[bone]'
    python -m unet_jax.main --config=configs/bone.py

2 minutes on two CPU cores. Dice on the test slab, seed 0: 0.87 (posterior parts 0.89,
body shell 0.80, body core 0.90); the best of sixteen classical methods reaches 0.67.
The data is one scan of one person, cut into slabs along axis 1 of its array, so the
scores say nothing about new people.
"""

from ml_collections import ConfigDict

from unet_jax.configs import base


def get_config() -> ConfigDict:
    """Return the config."""
    config = base.get_config()
    config.name = "bone"
    config.data.name = "vertebra_ct"
    config.data.class_names = (
        "background",
        "posterior parts",
        "body shell",
        "body core",
    )
    config.data.class_colors = ((0, 0, 0), (255, 0, 0), (0, 255, 0), (0, 0, 255))
    config.data.intensity = "percentile"
    config.data.crop_nonzero = False
    config.data.foreground_oversampling = 0.5
    # Slabs are thin: a crop has few slices, and the network few stages.
    config.train.patch_size = (48, 48, 8)
    config.train.batch_size = 4
    config.model.name = "unet_tiny"
    config.model.options.norm = "batch"
    # Only left and right look alike; up and down, front and back do not.
    config.augment.flip_axes = (0,)
    config.train.steps = 600
    config.optimizer.warmup_steps = 30
    config.eval.every_steps = 100
    config.eval.train_images = 2
    return config
