"""What the project does: run by the Python that has jax."""

from unet_jax.allocator import keep_freed_memory

keep_freed_memory()  # as the command line does
