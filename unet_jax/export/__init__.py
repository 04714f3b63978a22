"""Writes finished runs as files that need neither jax nor this package."""
