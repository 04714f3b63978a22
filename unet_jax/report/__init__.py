"""Draws the figures of a run and writes its logs."""
