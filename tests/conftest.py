"""Before jax starts: four CPU devices, and shape checks on what users call."""

import os
import signal

os.environ.setdefault("JAX_NUM_CPU_DEVICES", "4")
os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ.setdefault("MPLBACKEND", "agg")

# Shells let what they start in the background ignore Ctrl-C, and children inherit that.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

from jaxtyping import install_import_hook

install_import_hook(
    [
        f"unet_jax.{room}"
        for room in ("augment", "inference", "losses", "metrics", "models")
    ],
    "beartype.beartype",
)
