"""Makes the network, data and weights that both sides of a pair use."""

import pathlib
from collections.abc import Mapping
from typing import Any

import flax
import jax
import numpy as np
from ml_collections import ConfigDict

from unet_jax.configs import base
from unet_jax.data.preprocess import Preprocessing

PACKAGES = ("jax", "jaxlib", "flax", "numpy")

GIVEN = "given.npz"
"""File that our side writes for the peer: weights, images, labels."""


def config_of(work: Mapping[str, Any]) -> ConfigDict:
    """Write a config as a user would.

    Args:
        work: ``network`` (options of the U-Net), ``classes``, ``patch``, ``batch``, and
            ``optimizer`` (its keys) of a benchmark in training.

    Returns:
        The project's defaults but for these; no augmentation.
    """
    config = base.get_config()
    config.model.name = "unet"
    for key, value in work["network"].items():
        config.model.options[key] = tuple(value) if isinstance(value, list) else value
    names = tuple(f"class {index}" for index in range(work["classes"]))
    config.data.class_names = names
    config.data.class_colors = tuple((index, 0, 0) for index in range(len(names)))
    config.train.patch_size = tuple(work["patch"])
    config.train.batch_size = work["batch"]
    config.augment.enabled = False
    config.optimizer.schedule = "constant"
    config.optimizer.warmup_steps = 0
    for key, value in work.get("optimizer", {}).items():
        config.optimizer[key] = value
    return config


def preprocessing_of(work: Mapping[str, Any]) -> Preprocessing:
    """Make a preprocessing that only z-scores images.

    Args:
        work: description of a benchmark's work.
    """
    return Preprocessing(
        network_dims=len(work["patch"]),
        slice_axis=2,
        spacing=None,
        size=None,
        crop_nonzero=False,
        intensity="zscore",
        channels=work["channels"],
    )


def examples(work: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """Draw a batch of smooth noise with labels that follow from it.

    Args:
        work: description of a benchmark's work.

    Returns:
        ``image (batch, *patch, channels)`` float32 and ``label (batch, *patch)`` int32.
    """
    rng = np.random.default_rng(0)
    shape = (work["batch"], *work["patch"])
    image = rng.normal(size=(*shape, work["channels"])).astype(np.float32)
    ranks = np.digitize(image[..., 0], np.linspace(-1, 1, work["classes"] - 1))
    return {"image": image, "label": ranks.astype(np.int32)}


def hand_over(
    folder: pathlib.Path, variables: Mapping[str, Any], arrays: Mapping[str, np.ndarray]
) -> None:
    """Write weights and data for the peer.

    Args:
        folder: shared by both sides.
        variables: variables of the network; names become ``params/encoder_0/...``.
        arrays: images, labels and the like.
    """
    flat = flax.traverse_util.flatten_dict(jax.device_get(dict(variables)), sep="/")
    np.savez(folder / GIVEN, **flat, **arrays)


def parameters(variables: Mapping[str, Any]) -> int:
    """Count the parameters.

    Args:
        variables: variables of the network.
    """
    return sum(leaf.size for leaf in jax.tree.leaves(variables["params"]))
