"""Run configurations: one file a run; base.py holds every key."""
