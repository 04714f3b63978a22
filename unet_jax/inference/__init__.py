"""A network applied to images of any size."""
