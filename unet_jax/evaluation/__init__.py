"""Scores every method on every case: one scorer."""
