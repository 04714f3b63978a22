"""Segments cats and dogs in photographs: any TFDS segmentation set by its name.

    tfds build oxford_iiit_pet --file_format=array_record  # once: network, TensorFlow
    python -m unet_jax.main --config=configs/pets.py

The trimap's values 1, 2, 3 are pet, background and the border between them.
"""

from ml_collections import ConfigDict

from unet_jax.configs import base


def get_config() -> ConfigDict:
    """Return the config."""
    config = base.get_config()
    config.name = "pets"
    config.data.name = "oxford_iiit_pet"
    config.data.train_split = "train[:90%]"
    config.data.validation_split = "train[90%:]"
    config.data.label_key = "segmentation_mask"
    config.data.volume_key = ""
    config.data.slice_index_key = ""
    config.data.spacing_key = ""
    config.data.label_map = ((1, 1), (2, 0), (3, 2))
    config.data.class_names = ("background", "pet", "border")
    config.data.class_colors = ((0, 0, 0), (230, 57, 70), (255, 209, 102))
    config.data.size = (160, 160)
    config.data.crop_nonzero = False
    config.data.intensity = "full_range"
    config.model.name = "unet_base"
    config.train.steps = 20_000
    config.train.batch_size = 32
    config.train.patch_size = (128, 128)
    config.eval.every_steps = 1000
    config.eval.train_images = 64
    return config
