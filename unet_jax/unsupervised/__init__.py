"""Segmentation without labels: clusters of an image, and names for them."""
