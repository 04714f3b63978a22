"""Segments parts of faces in photographs: FASSEG or CelebAMask-HQ as published.

    python -m unet_jax.main --config=configs/face.py --config.data.path=FASSEG/V2
    python -m unet_jax.main --config=configs/face.py --config.data.path=CelebAMask-HQ

The path is one of FASSEG's versions V1, V2, V3, or the folder with CelebA-HQ-img and
CelebAMask-HQ-mask-anno. Neither set comes with the project, so there is no score on
photographs here. On faces that the tests draw in these layouts, 70 and 190 steps at
64x64 reach Dice 0.98 and 0.97, and above 0.9 for each part. The pictures of a person of
V3 stay in one split. The other sets do not name persons: each picture is its own group.
"""

from ml_collections import ConfigDict

from unet_jax.configs import folder


def get_config() -> ConfigDict:
    """Return the config."""
    config = folder.get_config()
    config.name = "face"
    # The background is a class like the others: it is scored, and drawn in light grey.
    config.data.include_background = True
    # An editor may round half of 255 up or down; FASSEG's colours are 127 apart.
    config.data.palette_tolerance = 1.0
    config.data.size = (128, 128)
    config.data.crop_nonzero = False
    config.data.intensity = "full_range"
    config.train.patch_size = (128, 128)
    config.train.batch_size = 8
    config.model.name = "unet_small"
    config.model.options.norm = "batch"
    # The left eye and the right eye are different classes.
    config.augment.flip_axes = ()
    config.augment.rotation_degrees_2d = (-30.0, 30.0)
    config.eval.mirror = False
    config.eval.train_images = 8
    config.train.steps = 1000
    return config
