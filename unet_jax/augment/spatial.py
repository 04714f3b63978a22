"""Augmentations that move pixels: image and label together."""

import dataclasses
import functools
import itertools
import math
from collections.abc import Sequence
from typing import Annotated

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from unet_jax.augment import draws
from unet_jax.augment.coordinates import node_counts, then
from unet_jax.augment.draws import Draw
from unet_jax.augment.kinds import Augmentation, Linear
from unet_jax.augment.option import Axes, Between, Limits, Probability, Within


@dataclasses.dataclass(frozen=True, kw_only=True)
class Flip(Linear):
    """Mirrors each of some axes, independently of the others.

    Attributes:
        probability: for each axis by itself.
        axes: axes that may be mirrored, () for none; 2 counts for volumes.
    """

    probability: Probability = 0.5
    axes: Axes = (0, 1, 2)

    @property
    def is_off(self) -> bool:
        """Whether no axis may be mirrored."""
        return self.probability == 0 or not self.axes

    def count(self, image_shape: tuple[int, ...]) -> int:
        """One number for each axis."""
        return len(image_shape) - 1

    def matrix(self, draw: Draw, ndim: int) -> Float[Array, "ndim ndim"]:
        """Return a diagonal matrix of 1 and -1."""
        allowed = np.isin(np.arange(ndim), self.axes)
        mirrored = allowed & (draw.numbers < self.probability)
        return jnp.diag(jnp.where(mirrored, -1.0, 1.0).astype(draw.numbers.dtype))


@dataclasses.dataclass(frozen=True, kw_only=True)
class Rotation(Linear):
    """Rotates about the centre: in every plane of two axes, by an angle of its own.

    Attributes:
        probability: fraction of examples.
        degrees_2d: limits of the angle in pictures.
        degrees_3d: limits of the angle about each axis of volumes.
    """

    probability: Probability = 0.2
    degrees_2d: Annotated[Limits, Within(-360.0, 360.0)] = (-180.0, 180.0)
    degrees_3d: Annotated[Limits, Within(-360.0, 360.0)] = (-30.0, 30.0)

    def count(self, image_shape: tuple[int, ...]) -> int:
        """One number for the decision, and one for each plane."""
        return 1 + math.comb(len(image_shape) - 1, 2)

    def matrix(self, draw: Draw, ndim: int) -> Float[Array, "ndim ndim"]:
        """Return a rotation matrix."""
        planes = list(itertools.combinations(range(ndim), 2))
        applied, uniform = draw.decide(self.probability, (len(planes),))
        low, high = self.degrees_2d if ndim == 2 else self.degrees_3d
        limits = (math.radians(low), math.radians(high))
        angles = jnp.where(applied, draws.between(uniform, limits), 0.0)
        turns = []
        for (first, second), angle in zip(planes, angles, strict=True):
            cosine, sine = jnp.cos(angle), jnp.sin(angle)
            turn = jnp.eye(ndim, dtype=uniform.dtype)
            turn = turn.at[first, first].set(cosine).at[first, second].set(-sine)
            turn = turn.at[second, first].set(sine).at[second, second].set(cosine)
            turns.append(turn)
        return functools.reduce(then, turns)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Scaling(Linear):
    """Scales all axes by one factor about the centre.

    Attributes:
        probability: fraction of examples.
        factor: limits of the factor on coordinates; above 1 objects get smaller.
    """

    probability: Probability = 0.2
    factor: Annotated[Limits, Within(0.01, 100.0)] = (0.7, 1.4)

    def count(self, image_shape: tuple[int, ...]) -> int:
        """One number for the decision, and one for the factor."""
        return 2

    def matrix(self, draw: Draw, ndim: int) -> Float[Array, "ndim ndim"]:
        """Return a multiple of the identity."""
        applied, uniform = draw.decide(self.probability)
        factor = jnp.where(applied, draws.between(uniform, self.factor), 1.0)
        return factor * jnp.eye(ndim, dtype=uniform.dtype)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Elastic(Augmentation):
    """Deforms smoothly: each point of a coarse grid is moved, with splines between.

    Attributes:
        probability: fraction of examples.
        spacing: distance of neighbouring control points, in pixels.
        magnitude: limits of the largest displacement of a control point along an axis,
            as a fraction of the spacing; below 0.4 nothing folds.

    Source: Choi and Lee 2000 for the bound on folding.
    """

    probability: Probability = 0.2
    spacing: Annotated[float, Between(1.0, 1e6)] = 24.0
    magnitude: Annotated[Limits, Within(0.0, 10.0)] = (0.0, 0.25)

    def count(self, image_shape: tuple[int, ...]) -> int:
        """Two numbers, and one for each control point and axis."""
        nodes = node_counts(image_shape[:-1], self.spacing)
        return 2 + len(nodes) * math.prod(nodes)

    def points(self, draw: Draw, shape: Sequence[int]) -> Float[Array, "ndim *nodes"]:
        """Return how far each control point is moved, in pixels along each axis.

        The numbers are 0 where nothing is moved.
        """
        applied, uniform = draw.decide(self.probability, (len(draw.numbers) - 1,))
        largest = self.spacing * draws.between(uniform[0], self.magnitude)
        direction = draws.between(uniform[1:], (-1.0, 1.0))
        moved = jnp.where(applied, largest, 0.0) * direction
        return moved.reshape(len(shape), *node_counts(shape, self.spacing))
