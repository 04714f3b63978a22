"""A lesion in brain MRI, drawn red: SYNTHETIC ones by default, your own by one flag.

    python -m unet_jax.main --config=configs/lesion.py
    python -m unet_jax.main --config=configs/lesion.py --config.data.path=kaggle_3m

MINUTES
"""

from ml_collections import ConfigDict

from configs import base


def get_config() -> ConfigDict:
    """Return the config."""
    config = base.get_config()
    config.name = "lesion"
    config.data.source = "path_or_tfds"
    config.data.name = "mni152_lesion"
    config.data.stack = True
    config.data.class_names = ("background", "lesion")
    config.data.class_colors = ((0, 0, 0), (255, 0, 0))
    config.data.foreground_oversampling = 0.5
    config.model.norm = "batch"
    config.loss = (("dice", 1.0, {"batch_dice": True}), ("cross_entropy", 1.0, {}))
    config.augment.spatial_axes_flip = (0, 1)
    config.augment.elastic_probability = 0.0
    config.augment.low_resolution_probability = 0.0
    config.augment.blur_probability = 0.0
    config.augment.gamma_inverted_probability = 0.0
    config.train.steps = 800
    config.eval.every_steps = 200
    config.eval.metrics = (
        "dice",
        "iou",
        "lesion_f1",
        "lesion_dice",
        "precision",
        "recall",
        "hd95",
        "nsd",
    )
    config.eval.train_images = 16
    return config
