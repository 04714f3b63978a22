"""Before jax starts: four CPU devices, and shape checks on what users call."""

import os

os.environ.setdefault("JAX_NUM_CPU_DEVICES", "4")
os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ.setdefault("MPLBACKEND", "agg")

from jaxtyping import install_import_hook

install_import_hook(
    ["unet_jax.augment", "unet_jax.losses", "unet_jax.metrics", "unet_jax.inference"],
    "beartype.beartype",
)
