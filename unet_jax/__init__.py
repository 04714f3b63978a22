"""Image segmentation research in JAX, from a threshold to a U-Net on a pod.

The names below are loaded when they are first used. Importing the package imports no
jax, and sets no flag and no environment variable.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from unet_jax import augment, losses, metrics
    from unet_jax.commands.from_python import load, train
    from unet_jax.data.case import Case
    from unet_jax.errors import InputError
    from unet_jax.evaluation.scorer import evaluate
    from unet_jax.inference.sliding_window import sliding_window
    from unet_jax.labels import IGNORE
    from unet_jax.models.mednext import MedNeXt
    from unet_jax.models.segresnet import SegResNet
    from unet_jax.models.swin_unetr import SwinUNETR
    from unet_jax.models.unet import UNet
    from unet_jax.models.wnet import WNet

__all__ = [
    "IGNORE",
    "Case",
    "InputError",
    "MedNeXt",
    "SegResNet",
    "SwinUNETR",
    "UNet",
    "WNet",
    "augment",
    "evaluate",
    "load",
    "losses",
    "metrics",
    "sliding_window",
    "train",
]

_MODULE_OF = {
    "Case": "data.case",
    "IGNORE": "labels",
    "InputError": "errors",
    "MedNeXt": "models.mednext",
    "SegResNet": "models.segresnet",
    "SwinUNETR": "models.swin_unetr",
    "UNet": "models.unet",
    "WNet": "models.wnet",
    "evaluate": "evaluation.scorer",
    "load": "commands.from_python",
    "sliding_window": "inference.sliding_window",
    "train": "commands.from_python",
}


def __getattr__(name: str) -> Any:
    """Load a public name when it is first used."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    if name not in _MODULE_OF:
        return importlib.import_module(f"{__name__}.{name}")
    value = getattr(importlib.import_module(f"{__name__}.{_MODULE_OF[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    """Return the public names."""
    return sorted(__all__)
