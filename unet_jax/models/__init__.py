"""Flax (linen) networks and the operations they are made of."""
