"""Defines label values that have one meaning in the whole package."""

IGNORE = -1
"""Label of pixels that losses and scores leave out."""
