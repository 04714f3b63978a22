"""Segments your own images by nnU-Net's recipe: its plan, its network, its training.

    python -m unet_jax.main --config=configs/nnunet.py --config.data.path=FOLDER

trains 250,000 steps, which nnU-Net counts as 1,000 epochs of 250. Set the length by one
key: --config.train.steps=25000, or --config.train.max_minutes=10. The plan follows the
rules of nnU-Net 2.8.1: --config.model.plan=resenc_m (or resenc_l, resenc_xl) takes its
residual encoder, and --config.train.memory_gib the memory target; a CPU has the target
0.25. --config.data.dims=3 chooses the 3-D network. --mode=plan writes the plan as a
config to edit. configs/folder.py is the recipe for a few minutes of training.
"""

from ml_collections import ConfigDict

from unet_jax.configs import folder


def get_config() -> ConfigDict:
    """Return the config."""
    config = folder.get_config()
    config.name = "nnunet"
    config.model.plan = "plain"
    # With the defaults of configs/base.py these are nnU-Net's; it deforms nothing.
    config.augment.elastic_probability = 0.0
    config.augment.blur_probability = 0.2
    config.augment.low_resolution_probability = 0.25
    config.augment.gamma_inverted_probability = 0.1
    config.data.resampling = "nnunet"
    # The plan decides whether the Dice loss pools a batch.
    config.loss = (("dice", 1.0, {}), ("cross_entropy", 1.0, {}))
    config.data.foreground_oversampling = 1 / 3
    config.optimizer.name = "sgd"
    config.optimizer.learning_rate = 0.01
    config.optimizer.schedule = "polynomial"
    config.optimizer.power = 0.9
    config.optimizer.momentum = 0.99
    config.optimizer.weight_decay = 3e-5
    config.optimizer.gradient_clip = 12.0
    config.optimizer.warmup_steps = 0
    config.train.steps = 250 * 1000
    config.eval.every_steps = 250 * 10
    config.eval.choose = "last"
    config.eval.mirror = True
    config.eval.average = "logits"
    config.log.every_steps = 250
    return config
