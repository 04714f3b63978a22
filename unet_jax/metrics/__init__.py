"""Scores, from counts and from surfaces."""
