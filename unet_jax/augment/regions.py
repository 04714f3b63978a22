"""Regions of an image that differ in intensity: clusters of classes, a head around."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float, Integer

CLUSTERS = 3
"""Regions that each class is divided into, by the intensities of the real image."""

_SHELLS = 3  # around the foreground: fluid, bone, skin
_BLOBS = 8
_STEPS = 2  # of k-means
_REACH = 40  # pixels from the foreground up to which distances are measured
_WAVE_NODES, _BLOB_NODES = 6, 8  # of the coarse grids of smooth fields, on each axis


class Clusters(NamedTuple):
    """What a real image says about the classes of its label map.

    Attributes:
        place: cluster of each pixel in its class, darkest first.
        means: mean of each class and channel; 0 for the darkest class of the image and
            1 for the brightest, 1/2 for an absent one.
        texture: distance of each pixel from the mean of its class, in the same units.
        outline: the class that touches class 0 most; 0 where none does.
    """

    place: Integer[Array, "*spatial"]
    means: Float[Array, "classes channels"]
    texture: Float[Array, "*spatial channels"]
    outline: Integer[Array, ""]


def given_clusters(
    sub_labels: Float[Array, "*spatial channels"],
    classes: Integer[Array, "*spatial"],
    *,
    num_classes: int,
) -> Clusters:
    """Take sub-labels for the clusters of classes whose images nobody has seen.

    Args:
        sub_labels: -1, 0 or 1 in the first channel; between pixels also what lies
            between.
    """
    middle = CLUSTERS // 2
    place = jnp.round(sub_labels[..., 0]).astype(jnp.int32) + middle
    return Clusters(
        place=jnp.clip(place, 0, CLUSTERS - 1),
        means=jnp.full((num_classes, sub_labels.shape[-1]), 0.5, sub_labels.dtype),
        texture=jnp.zeros_like(sub_labels),
        outline=_outline(classes, num_classes),
    )


def find_clusters(
    image: Float[Array, "*spatial channels"],
    classes: Integer[Array, "*spatial"],
    *,
    num_classes: int,
) -> Clusters:
    """Divide each class by the intensities of the first channel: k-means on a line."""
    channel, flat = image[..., 0], image.reshape(-1, image.shape[-1])
    member = jax.nn.one_hot(classes.ravel(), num_classes, dtype=image.dtype)
    count = member.sum(0)[:, None]
    mean = member.T @ flat / jnp.maximum(count, 1.0)
    square = member.T @ flat[:, 0] ** 2 / jnp.maximum(count[:, 0], 1.0)
    std = jnp.sqrt(jnp.maximum(square - mean[:, 0] ** 2, 0.0))
    steps = jnp.arange(CLUSTERS) - (CLUSTERS - 1) / 2
    centres = mean[:, :1] + steps * std[:, None]
    for _ in range(_STEPS):
        regions = classes * CLUSTERS + _nearest(channel, classes, centres)
        inside = jax.nn.one_hot(
            regions.ravel(), num_classes * CLUSTERS, dtype=image.dtype
        )
        sums, counts = flat[:, 0] @ inside, inside.sum(0)
        found = sums / jnp.maximum(counts, 1.0)
        found = jnp.where(counts > 0, found, centres.ravel())
        centres = found.reshape(num_classes, CLUSTERS)
    present = count > 0
    low = jnp.where(present, mean, jnp.inf).min(0)
    high = jnp.where(present, mean, -jnp.inf).max(0)
    span = jnp.maximum(high - low, 1e-3)
    return Clusters(
        place=_nearest(channel, classes, centres),
        means=jnp.where(present, (mean - low) / span, 0.5),
        texture=jnp.clip((image - mean[classes]) / span, -0.5, 0.5),
        outline=_outline(classes, num_classes),
    )


def _outline(classes: Array, num_classes: int) -> Array:
    """Return the class that has most pixels beside class 0."""
    inner = foreground = classes > 0
    for axis in range(classes.ndim):
        inner &= jnp.roll(foreground, 1, axis) & jnp.roll(foreground, -1, axis)
    outer = jnp.where(inner, 0, classes)
    counts = jax.nn.one_hot(outer.ravel(), num_classes).sum(0)
    return jnp.argmax(counts.at[0].set(0.0))


def _nearest(channel: Array, classes: Array, centres: Array) -> Array:
    """Return the number of the nearest centre of the class of each pixel."""
    edges = (centres[:, 1:] + centres[:, :-1]) / 2
    return jnp.sum(channel[..., None] > edges[classes], axis=-1)


class Numbers(NamedTuple):
    """Numbers of the regions: clusters of classes come first.

    Attributes:
        clusters: number of regions that are clusters of classes.
        bone: number of the middle shell.
        air: number of the last region, that of nothing. The blobs are before it.
    """

    clusters: int
    bone: int
    air: int

    @classmethod
    def of(cls, num_classes: int) -> "Numbers":
        """Count the regions of a label map."""
        clusters = num_classes * CLUSTERS
        return cls(clusters, clusters + 1, clusters + _SHELLS + _BLOBS)


def labelled_surroundings(
    sub_labels: Float[Array, "*spatial channels"], numbers: Numbers
) -> Integer[Array, "*spatial"]:
    """Return the region of every pixel of a background whose parts are labelled.

    Args:
        sub_labels: -4 to 4 in the first channel; 0 is air, and the others are blobs.
    """
    number = jnp.round(sub_labels[..., 0]).astype(jnp.int32)
    half = _BLOBS // 2
    blob = jnp.clip(number + half - (number > 0), 0, _BLOBS - 1)
    return jnp.where(number == 0, numbers.air, numbers.air - _BLOBS + blob)


class Surroundings(NamedTuple):
    """Uniform numbers for shells and blobs around the foreground."""

    thickness: Float[Array, "shells"]
    kind: Float[Array, ""]
    waves: Float[Array, "2 *nodes"]
    blobs: Float[Array, "*nodes"]

    @staticmethod
    def count(axes: int) -> int:
        """Return how many numbers there are."""
        return _SHELLS + 1 + 2 * _WAVE_NODES**axes + _BLOB_NODES**axes

    @classmethod
    def of(cls, uniform: Float[Array, " count"], axes: int) -> "Surroundings":
        """Give each number its meaning."""
        start = _SHELLS + 1
        end = start + 2 * _WAVE_NODES**axes
        return cls(
            uniform[:_SHELLS],
            uniform[_SHELLS],
            uniform[start:end].reshape(2, *[_WAVE_NODES] * axes),
            uniform[end:].reshape([_BLOB_NODES] * axes),
        )

    def regions(
        self, foreground: Bool[Array, "*spatial"], numbers: Numbers
    ) -> Integer[Array, "*spatial"]:
        """Return the region of every pixel around the foreground.

        Fluid of up to 4 pixels, bone of 2 to 12 and skin of 2 to 26 follow the outline;
        thin ones are more frequent, thick ones are as where a slice cuts them aslant.
        Half of the skins are made of blobs, as muscles and eyes are; in half of these
        the blobs go on to the border of the image, else air does.
        """
        shape, first = foreground.shape, numbers.clusters
        distance = distance_to(foreground)
        wave, other = (1 + 0.6 * smooth_field(one, shape) for one in self.waves)
        fluid = 4 * self.thickness[0] * wave
        bone = fluid + (2 + 10 * self.thickness[1] ** 2) * wave
        skin = bone + (2 + 24 * self.thickness[2] ** 2) * other
        shell = first + (distance > fluid).astype(jnp.int32) + (distance > bone)
        level = (smooth_field(self.blobs, shape) + 1) / 2 * _BLOBS
        blob = first + _SHELLS + jnp.clip(level.astype(jnp.int32), 0, _BLOBS - 1)
        shell = jnp.where((distance > bone) & (self.kind < 0.5), blob, shell)
        beyond = jnp.where(self.kind < 0.25, blob, numbers.air)
        return jnp.where(distance > skin, beyond, shell)


def distance_to(foreground: Bool[Array, "*spatial"]) -> Float[Array, "*spatial"]:
    """Measure the distance of each pixel to the nearest one of the foreground.

    Distances are in pixels, exact up to 40; larger ones are at least that.
    """
    far = float((2 * _REACH) ** 2)
    squared = jnp.where(foreground, 0.0, far)
    for axis, size in enumerate(foreground.shape):
        pad = [(0, 0)] * foreground.ndim
        pad[axis] = (_REACH, _REACH)
        padded = jnp.pad(squared, pad, constant_values=far)

        def nearer(
            step: Array, best: Array, padded: Array = padded, axis=axis, size=size
        ) -> Array:
            moved = lax.dynamic_slice_in_dim(padded, step, size, axis)
            return jnp.minimum(best, moved + (step - _REACH) ** 2)

        squared = lax.fori_loop(0, 2 * _REACH + 1, nearer, squared)
    return jnp.sqrt(squared)


def smooth_field(
    uniform: Float[Array, "*nodes"], shape: tuple[int, ...]
) -> Float[Array, "*spatial"]:
    """Interpolate numbers from [0, 1) on a coarse grid: a field of -1 to 1, or so."""
    return jax.image.resize(2.0 * uniform - 1.0, shape, "cubic")
