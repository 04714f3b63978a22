"""Draws the page of pictures of `unet_jax.augment.synthesis`, from the embedded brain.

    python -m benchmarks.drawn_images docs/gallery/synthesis.png

Each column has one kind of image alone; the first has the training slices.
"""

import argparse
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from matplotlib import pyplot as plt

from benchmarks.brain_clusters import brain_cases
from unet_jax.augment.policy import AUGMENTATIONS, augment
from unet_jax.data.preprocess import fit

KINDS: dict[str, dict[str, Any]] = {
    "like the real one": {"like_real_probability": 1.0, "inverted_probability": 0.0},
    "its negative": {"like_real_probability": 1.0, "inverted_probability": 1.0},
    "any contrast": {"like_real_probability": 0.0},
    "shells and blobs": {
        "like_real_probability": 1.0,
        "inverted_probability": 0.0,
        "surroundings_probability": 1.0,
        "empty_probability": 0.0,
    },
    "thick slices": {"coarse_probability": 1.0, "coarse_factor": (3.0, 4.0)},
    "bias field": {"bias": 0.8},
    "noise": {"noise": (0.1, 0.2)},
    "cut off": {"field_of_view_probability": 1.0},
}
_PLANES = (12, 30, 45, 60, 85)  # of the training slabs


def main() -> None:
    """Write the page."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("output")
    images, labels = training_slices()
    figure, axes = plt.subplots(
        len(images), len(KINDS) + 1, figsize=(len(KINDS) + 1, len(images) * 1.25)
    )
    for row, image in enumerate(images):
        _show(axes[row, 0], image, "training slice" if row == 0 else "")
    for column, (name, options) in enumerate(KINDS.items(), start=1):
        drawn = drawn_images(images, labels, options)
        for row, image in enumerate(drawn):
            _show(axes[row, column], image, name if row == 0 else "")
    figure.subplots_adjust(0, 0, 1, 0.96, 0.02, 0.02)
    figure.savefig(parser.parse_args().output, dpi=110)


def training_slices() -> tuple[np.ndarray, np.ndarray]:
    """Return normalised slices of the training slabs, and their labels."""
    cases = brain_cases()["train"]
    preprocessing = fit(
        cases,
        network_dims=2,
        slice_axis=2,
        spacing=None,
        size=None,
        crop_nonzero=False,
        intensity="zscore",
        zero_outside=True,
    )
    images = [
        preprocessing.apply(case.image, None, reference=case.reference)[0]
        for case in cases
    ]
    labels = [case.label for case in cases if case.label is not None]
    image, label = np.concatenate(images, axis=2), np.concatenate(labels, axis=2)
    planes = list(_PLANES)
    return np.moveaxis(image, 2, 0)[planes], np.moveaxis(label, 2, 0)[planes]


def drawn_images(
    images: np.ndarray, labels: np.ndarray, options: dict[str, Any]
) -> np.ndarray:
    """Draw an image of one kind for each slice."""
    used = {f"{name}_probability": 0.0 for name, _ in AUGMENTATIONS}
    used |= {
        "synthesis_probability": 1.0,
        "synthesis_empty_probability": 1.0,
        "synthesis_field_of_view_probability": 0.0,
    }
    used |= {f"synthesis_{name}": value for name, value in options.items()}

    def draw(key: jax.Array, image: jax.Array, label: jax.Array) -> jax.Array:
        return augment(
            key,
            image,
            label,
            synthesis=True,
            num_classes=4,
            zero_outside=True,
            **used,
        )[0]

    keys = jax.random.split(jax.random.key(0), len(images))
    return np.asarray(
        jax.jit(jax.vmap(draw))(keys, jnp.array(images), jnp.array(labels))
    )


def _show(axes: plt.Axes, image: np.ndarray, title: str) -> None:
    """Draw one slice, front up."""
    axes.imshow(np.rot90(image[..., 0]), cmap="gray", vmin=-2.5, vmax=2.5)
    axes.set_title(title, fontsize=7)
    axes.axis("off")


if __name__ == "__main__":
    main()
