"""A user's folder of images and masks as cases with splits."""
