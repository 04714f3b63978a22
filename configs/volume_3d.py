"""Segments large volumes in 3-D with a residual encoder, for TPU and GPU.

    python -m unet_jax.main --config=configs/volume_3d.py --config.data.path=FOLDER

FOLDER is described in configs/folder.py. Patch, network and optimiser are those of
nnU-Net's residual encoder (arXiv:2404.09556), which trains for days on one device. This
config has not been trained here. docs/scaling.md has the cost of a step on TPU, from

    python -m unet_jax.main --mode=plan --config=configs/volume_3d.py --topology=v5e:4x4

with --config.data.class_names="('background','organ','lesion')", as no data is read.
"""

from ml_collections import ConfigDict, config_dict

from unet_jax.configs import base


def get_config() -> ConfigDict:
    """Return the config."""
    config = base.get_config()
    config.name = "volume_3d"
    config.data.source = "folder"
    config.data.dims = 3
    with config.ignore_type():
        config.data.class_names = config_dict.placeholder(tuple)
        config.data.class_colors = config_dict.placeholder(tuple)
        config.data.slice_axis = config_dict.placeholder(int)
        config.data.crop_nonzero = config_dict.placeholder(bool)
        config.data.intensity = config_dict.placeholder(object)
        config.data.zero_outside = config_dict.placeholder(bool)
    config.model.name = "residual_encoder"
    # nnU-Net gives the coarsest of its outputs no weight.
    config.model.options.deep_supervision = 3
    config.model.dtype = "bfloat16"
    config.loss = (("dice", 1.0, {"batch_dice": True}), ("cross_entropy", 1.0, {}))
    config.train.patch_size = (128, 128, 128)
    config.train.batch_size = 16
    config.train.steps = 250_000
    config.optimizer.name = "sgd"
    config.optimizer.learning_rate = 1e-2
    config.optimizer.schedule = "polynomial"
    config.optimizer.weight_decay = 3e-5
    config.optimizer.gradient_clip = 12.0
    config.eval.every_steps = 5000
    config.eval.window_batch = 2
    config.eval.mirror = True
    return config
