"""Augmentations: pure jax functions of (key, image, label), run in the step."""
