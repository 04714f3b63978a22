"""What the project does: run by the Python that has jax."""
