"""Estimates what a training step costs on a TPU slice."""
