"""Augmentations that move pixels: image and label together."""

import dataclasses
import functools
import itertools
import math
from typing import Annotated

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from unet_jax.augment import draws
from unet_jax.augment.coordinates import node_counts, then
from unet_jax.augment.crop_grid import CropGrid
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

    def matrix(self, draw: Draw, grid: CropGrid) -> Float[Array, "ndim ndim"]:
        """Return a diagonal matrix of 1 and -1."""
        ndim = len(grid.shape)
        allowed = np.isin(np.arange(ndim), self.axes)
        mirrored = allowed & (draw.numbers < self.probability)
        return jnp.diag(jnp.where(mirrored, -1.0, 1.0).astype(draw.numbers.dtype))


@dataclasses.dataclass(frozen=True, kw_only=True)
class Rotation(Linear):
    """Rotates about the centre: in every plane of two axes, by an angle of its own.

    Angles are those of space: where the spacing of the axes differs, a turn in pixels
    would shear the image. A volume of which one axis is much thinner (`CropGrid`) turns
    in the plane of the others.

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

    def matrix(self, draw: Draw, grid: CropGrid) -> Float[Array, "ndim ndim"]:
        """Return a rotation matrix, in pixels."""
        ndim = len(grid.shape)
        planes = list(itertools.combinations(range(ndim), 2))
        applied, uniform = draw.decide(self.probability, (len(planes),))
        low, high = self.degrees_2d if ndim == 2 else self.degrees_3d
        limits = (math.radians(low), math.radians(high))
        turning = np.array([grid.thin_axis not in plane for plane in planes])
        angles = jnp.where(applied & turning, draws.between(uniform, limits), 0.0)
        turns = []
        for (first, second), angle in zip(planes, angles, strict=True):
            cosine, sine = jnp.cos(angle), jnp.sin(angle)
            turn = jnp.eye(ndim, dtype=uniform.dtype)
            ratio = grid.step(second) / grid.step(first)
            turn = turn.at[first, first].set(cosine)
            turn = turn.at[first, second].set(-sine * ratio)
            turn = turn.at[second, first].set(sine / ratio)
            turn = turn.at[second, second].set(cosine)
            turns.append(turn)
        return functools.reduce(then, turns)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Scaling(Linear):
    """Scales all axes, but one that is much thinner, by one factor about the centre.

    Attributes:
        probability: fraction of examples.
        factor: limits of the factor on coordinates; above 1 objects get smaller.
    """

    probability: Probability = 0.2
    factor: Annotated[Limits, Within(0.01, 100.0)] = (0.7, 1.4)

    def count(self, image_shape: tuple[int, ...]) -> int:
        """One number for the decision, and one for the factor."""
        return 2

    def matrix(self, draw: Draw, grid: CropGrid) -> Float[Array, "ndim ndim"]:
        """Return a diagonal matrix of the factor, and of 1 for a thin axis."""
        applied, uniform = draw.decide(self.probability)
        factor = jnp.where(applied, draws.between(uniform, self.factor), 1.0)
        axes = np.arange(len(grid.shape))
        moving = np.isin(axes, grid.moving_axes)
        return jnp.diag(jnp.where(moving, factor, 1.0).astype(uniform.dtype))


@dataclasses.dataclass(frozen=True, kw_only=True)
class Elastic(Augmentation):
    """Deforms smoothly: each point of a coarse grid is moved, with splines between.

    Nothing moves along an axis that is much thinner than the others (`CropGrid`).

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

    def points(self, draw: Draw, grid: CropGrid) -> Float[Array, "ndim *nodes"]:
        """Return how far each control point is moved, in pixels along each axis.

        The numbers are 0 where nothing is moved.
        """
        applied, uniform = draw.decide(self.probability, (len(draw.numbers) - 1,))
        largest = self.spacing * draws.between(uniform[0], self.magnitude)
        direction = draws.between(uniform[1:], (-1.0, 1.0))
        moved = jnp.where(applied, largest, 0.0) * direction
        shape = grid.shape
        moved = moved.reshape(len(shape), *node_counts(shape, self.spacing))
        if grid.thin_axis is not None:
            moved = moved.at[grid.thin_axis].set(0.0)
        return moved
