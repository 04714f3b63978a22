"""Augmentations: pure jax functions of (key, image, label), run in the step."""

from unet_jax.augment.draws import example_keys
from unet_jax.augment.policy import augment, augment_batch

__all__ = ["augment", "augment_batch", "example_keys"]
