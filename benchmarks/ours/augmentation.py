"""Times augmentation as the training step runs it, but on its own."""

import pathlib
from typing import Any

import jax
import numpy as np
from scipy import ndimage

from benchmarks.changes import describe
from benchmarks.ours import nets
from benchmarks.worker import Task
from unet_jax.augment.draws import example_keys
from unet_jax.augment.policy import (
    augment_batch,
    default_options,
    resolve_options,
)
from unet_jax.configs import base
from unet_jax.experiment.network import create_augmentation


def prepare(*, folder: pathlib.Path, work: dict[str, Any]) -> Task:
    """Make the task: one call is one batch of examples in host memory.

    Args:
        folder: shared with the peer.
        work: ``shape``, ``batch``, ``draws`` (for the check) and ``augment`` (keys of
            the config that differ from the project's defaults).
    """
    image, label = phantom(tuple(work["shape"]))
    np.savez(folder / nets.GIVEN, image=image, label=label)
    config = base.get_config()
    config.augment.update(work["augment"])
    options = create_augmentation(config) or {}
    images = np.repeat(image[None, ..., None], work["batch"], 0)
    labels = np.repeat(label[None], work["batch"], 0)

    @jax.jit
    def augmented(index, images, labels):
        keys = example_keys(jax.random.key(0), index)
        return augment_batch(keys, images, labels, **options)

    def batches(count: int, start: int = 0):
        for number in range(start, start + count):
            index = np.arange(len(images), dtype=np.int32) + number * len(images)
            yield jax.block_until_ready(augmented(index, images, labels))

    def drawn():
        for new_images, new_labels in batches(work["draws"] // work["batch"]):
            yield from zip(
                np.asarray(new_images)[..., 0], np.asarray(new_labels), strict=True
            )

    return Task(
        run=lambda calls: [None for _ in batches(calls)] and None,
        facts=_facts(options, len(work["shape"])),
        outputs=lambda: describe(image, drawn()),
        packages=nets.PACKAGES,
    )


def phantom(shape: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
    """Make a textured ellipsoid on a background of 0.

    Args:
        shape: pixels an axis.

    Returns:
        Image float32 of standard deviation about 1, and label int32 of 0 to 3.
    """
    rng = np.random.default_rng(0)
    axes = np.meshgrid(*[np.linspace(-1, 1, n) for n in shape], indexing="ij")
    radius = np.sqrt(sum((axis / 0.6) ** 2 for axis in axes))
    texture = ndimage.gaussian_filter(rng.normal(size=shape), 2.0)
    label = np.where(radius < 1, 1 + np.digitize(radius, [0.4, 0.7]), 0)
    image = np.where(label > 0, 1.0 + label / 2 + texture / texture.std() / 4, 0.0)
    return image.astype(np.float32), label.astype(np.int32)


def _facts(options: dict[str, Any], dims: int) -> dict[str, Any]:
    """Probability for an image of one channel, and limits, of each transform."""
    known = resolve_options({key: options[key] for key in default_options()})

    def fact(name: str, limits: str) -> list[Any]:
        one = known[name]
        probability = one.probability * getattr(one, "channel_probability", 1.0)
        return [round(probability, 6), *getattr(one, limits)]

    return {
        "flip": [known["flip"].probability, list(range(dims))],
        "rotation": fact("rotation", f"degrees_{dims}d"),
        "scaling": fact("scaling", "factor"),
        "elastic": known["elastic"].probability,
        "noise": fact("noise", "std"),
        "blur": fact("blur", "sigma"),
        "brightness": fact("brightness", "factor"),
        "contrast": fact("contrast", "factor"),
        "low_resolution": fact("low_resolution", "scale"),
        "gamma_inverted": fact("gamma_inverted", "exponent"),
        "gamma": fact("gamma", "exponent"),
        "interpolation": ["linear", "nearest"],
    }
