"""Side by side with PyTorch, MONAI and nnU-Net; `unet_jax` never imports it."""
