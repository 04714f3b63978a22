"""State, step and checkpoints of a training run."""
