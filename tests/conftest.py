"""Before jax starts: four CPU devices, and shape checks on what users call."""

import os

os.environ.setdefault("JAX_NUM_CPU_DEVICES", "4")
os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ.setdefault("MPLBACKEND", "agg")

from jaxtyping import install_import_hook

install_import_hook(
    [
        f"unet_jax.{room}"
        for room in ("augment", "inference", "losses", "metrics", "models")
    ],
    "beartype.beartype",
)
