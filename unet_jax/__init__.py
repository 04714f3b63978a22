"""Image segmentation research in JAX, from a threshold to a U-Net on a pod."""
