"""Computes where each output pixel of an augmented image reads its input.

A pixel at the offset u from the image's centre reads at ``matrix @ (u +
displacement)``. Mirroring, rotation and scaling are matrices, elastic deformation is a
displacement; so any number of them costs one map and one interpolation. Where nothing
is drawn, matrices are the identity and displacements 0, and the map is exact to the
bit.
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike
from jaxtyping import Array, Float

# A TPU's default would round factors to bfloat16, which moves pixels by whole places.
_EXACT = jax.lax.Precision.HIGHEST


def then(
    first: Float[Array, "ndim ndim"] | None, second: Float[Array, "ndim ndim"]
) -> Float[Array, "ndim ndim"]:
    """Chain two matrices, the first applied first; None is the identity."""
    if first is None:
        return second
    return jnp.matmul(second, first, precision=_EXACT)


def node_counts(shape: Sequence[int], spacing: float) -> list[int]:
    """Return how many control points, ``spacing`` pixels apart, each axis has."""
    return [_spline_basis(size, spacing).shape[1] for size in shape]


def displacement(
    points: Float[Array, "ndim *nodes"], *, shape: Sequence[int], spacing: float
) -> Float[Array, "ndim *spatial"]:
    """Lay cubic B-splines through control points, from ``Elastic.points``.

    Returns:
        Pixels along each axis, for every pixel.

    Source: Rueckert et al. 1999 (free-form deformation).
    """
    moved = points
    for size in shape:
        # Contract the first grid axis and append the full one: after all turns the axes
        # are in their old order. Not a dot: its rounding may depend on the batch size,
        # and with it the pixel that a label is read from.
        basis = _spline_basis(size, spacing).T.astype(points.dtype)
        weights = basis.reshape(-1, *[1] * (len(shape) - 1), size)
        moved = (moved[..., None] * weights).sum(1)
    return moved


def places(
    matrix: Float[Array, "ndim ndim"] | None,
    moved: Float[Array, "ndim *spatial"] | None,
    *,
    shape: Sequence[int],
    dtype: DTypeLike,
) -> list[Float[Array, "..."]]:
    """Return where each pixel reads, by a matrix and a displacement (None for neither).

    Returns:
        One array of ``dtype`` (float32 or wider) for each axis, in pixels from the
        centre of the first pixel, of a shape that broadcasts to ``shape``.
    """
    centres = [(size - 1) / 2 for size in shape]
    axes = [
        jnp.arange(size, dtype=dtype) - centre
        for size, centre in zip(shape, centres, strict=True)
    ]
    # Places about the centre are multiples of 1/2: exact, and so is their mirror image.
    read: list[Array] = list(jnp.meshgrid(*axes, indexing="ij", sparse=True))
    if moved is not None:
        read = [place + step for place, step in zip(read, moved, strict=True)]
    if matrix is not None:
        # Written out: a matrix product need not keep 1 * u + 0 * v exact.
        read = [
            sum(row[axis] * place for axis, place in enumerate(read)) for row in matrix
        ]
    return [place + centre for place, centre in zip(read, centres, strict=True)]


def _spline_basis(size: int, spacing: float) -> np.ndarray:
    """Return the (size, nodes) weights of cubic B-splines ``spacing`` pixels apart."""
    position = np.arange(size) / spacing
    left = np.floor(position).astype(int)
    f = position - left
    weights = (
        (1 - f) ** 3,
        3 * f**3 - 6 * f**2 + 4,
        -3 * f**3 + 3 * f**2 + 3 * f + 1,
        f**3,
    )
    basis = np.zeros((size, left[-1] + 4))
    for node, weight in enumerate(weights):
        basis[np.arange(size), left + node] = weight / 6
    return basis
