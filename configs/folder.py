"""Segments your own images, from a folder of images and masks.

    python -m unet_jax.main --config=configs/folder.py --config.data.path=FOLDER

Classes, channels, sizes, spacings, 2-D or 3-D and the normalisation are found from the
data and printed. Useful flags: --config.data.class_names="('background','cell')",
--config.train.max_minutes=10, --config.data.splits=FILE, --config.data.fold=0.
"""

from ml_collections import ConfigDict, config_dict

from unet_jax.configs import base


def get_config() -> ConfigDict:
    """Return the config."""
    config = base.get_config()
    config.name = "folder"
    config.data.source = "folder"
    with config.ignore_type():
        config.data.class_names = config_dict.placeholder(tuple)
        config.data.class_colors = config_dict.placeholder(tuple)
        config.data.slice_axis = config_dict.placeholder(int)
        config.data.crop_nonzero = config_dict.placeholder(bool)
        config.data.intensity = config_dict.placeholder(object)
        config.data.zero_outside = config_dict.placeholder(bool)
        config.augment.flip_axes = config_dict.placeholder(tuple)
        config.augment.rotation_degrees_2d = config_dict.placeholder(tuple)
        config.augment.rotation_degrees_3d = config_dict.placeholder(tuple)
        config.train.patch_size = config_dict.placeholder(tuple)
        config.train.batch_size = config_dict.placeholder(int)
    config.model.name = "unet"
    # In a few minutes each image is seen a few times: little augmentation suffices.
    config.augment.elastic_probability = 0.0
    config.augment.low_resolution_probability = 0.0
    config.augment.blur_probability = 0.0
    config.augment.gamma_inverted_probability = 0.0
    config.loss = (("dice", 1.0, {"batch_dice": True}), ("cross_entropy", 1.0, {}))
    # Validation must not take much of the time.
    config.eval.train_images = 2
    config.eval.mirror = True
    config.train.steps = 2000
    config.optimizer.warmup_steps = 100
    return config
