"""File formats: reads images and masks, writes label maps."""
