"""Our side of each pair, for the Python with jax."""
