"""Segments the tissue of the embedded brain MRI, and of other people: the main job.

    python -m unet_jax.main --config=configs/brain.py

The network learns from the training slabs of the embedded template: from their real
slices, and from images that are drawn from their label maps at every step, with other
contrasts and surroundings. docs/unseen.md says what that brings on a person that
training never saw; README.md, "How good", has its minutes and its Dice on the test
slab.
"""

from ml_collections import ConfigDict

from unet_jax.configs import brain_slab


def get_config() -> ConfigDict:
    """Return the config."""
    config = brain_slab.get_config()
    config.name = "brain"
    config.data.zero_outside = True
    config.data.resampling = "nnunet"
    # No norm: statistics of a batch of real and drawn images are those of no image, and
    # statistics of a crop depend on how much background it has.
    config.model.options.norm = "none"
    config.model.options.features = (16, 32, 64, 128, 128)
    config.train.patch_size = (112, 112)
    config.train.batch_size = 8
    config.train.ema_decay = 0.99
    config.optimizer.name = "muon"
    config.optimizer.learning_rate = 6e-3
    config.optimizer.weight_decay = 0.3
    config.optimizer.warmup_steps = 125
    config.augment.synthesis = True
    config.augment.synthesis_probability = 0.62
    config.augment.synthesis_like_real_probability = 0.96
    config.augment.synthesis_inverted_probability = 0.55
    config.augment.synthesis_empty_probability = 0.45
    config.augment.synthesis_surroundings_probability = 0.5
    config.augment.synthesis_coarse_probability = 0.6
    config.augment.rotation_probability = 0.3
    config.augment.scaling_probability = 0.3
    config.augment.noise_probability = 0.0
    config.train.steps = 1100
    config.eval.every_steps = 275
    # The validation slab is of the template: it does not tell what other people need.
    config.eval.choose = "last"
    # The brain is one body: skin and muscles are not of it, and what it encloses in a
    # slice is fluid.
    config.eval.postprocess = (
        ("largest_component", (2, 3), 3.0),
        ("largest_component", (1, 2, 3), 2.0),
        ("fill_planes", (1, 2, 3), None),
    )
    return config
