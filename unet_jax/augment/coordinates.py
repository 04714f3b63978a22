"""Coordinate maps: where each output pixel of an augmented image reads its input.

A pixel at the place u from the image's centre reads at ``matrix @ (u + displacement)``.
Mirroring, rotation and scaling are matrices, elastic deformation is a displacement; so
any number of them costs one map and one interpolation. Where nothing is drawn, matrices
are the identity and displacements 0, and the map is exact to the bit.
"""

import itertools
import math
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike
from jaxtyping import Array, Float, PRNGKeyArray

from unet_jax.augment import draws

# A TPU's default would round factors to bfloat16, which moves pixels by whole places.
_EXACT = jax.lax.Precision.HIGHEST


def mirroring(
    key: PRNGKeyArray,
    *,
    ndim: int,
    probability: float,
    axes: Sequence[int],
    dtype: DTypeLike,
) -> Float[Array, "ndim ndim"]:
    """Draw a matrix that mirrors each of some axes, or not, by itself.

    Args:
        key: random key.
        ndim: number of spatial axes.
        probability: share of draws that mirror an axis.
        axes: axes that may be mirrored; those that are not there are passed over.
        dtype: floating dtype of the matrix.

    Returns:
        A diagonal matrix of 1 and -1.
    """
    _, shares = draws.decide(key, probability=1.0, shape=(ndim,), dtype=dtype)
    allowed = np.isin(np.arange(ndim), axes)
    return jnp.diag(jnp.where(allowed & (shares < probability), -1.0, 1.0))


def rotation(
    key: PRNGKeyArray,
    *,
    ndim: int,
    probability: float,
    degrees: tuple[float, float],
    dtype: DTypeLike,
) -> Float[Array, "ndim ndim"]:
    """Draw a rotation: in every plane of two axes, by an angle of its own.

    Args:
        key: random key.
        ndim: number of spatial axes.
        probability: share of draws that rotate.
        degrees: limits of the angles.
        dtype: floating dtype of the matrix.

    Returns:
        A rotation matrix.
    """
    planes = list(itertools.combinations(range(ndim), 2))
    applied, shares = draws.decide(
        key, probability=probability, shape=(len(planes),), dtype=dtype
    )
    limits = (math.radians(degrees[0]), math.radians(degrees[1]))
    angles = jnp.where(applied, draws.between(shares, limits), 0.0)
    matrix = jnp.eye(ndim, dtype=dtype)
    for (first, second), angle in zip(planes, angles, strict=True):
        cosine, sine = jnp.cos(angle), jnp.sin(angle)
        turn = jnp.eye(ndim, dtype=dtype)
        turn = turn.at[first, first].set(cosine).at[first, second].set(-sine)
        turn = turn.at[second, first].set(sine).at[second, second].set(cosine)
        matrix = then(matrix, turn)
    return matrix


def scaling(
    key: PRNGKeyArray,
    *,
    ndim: int,
    probability: float,
    factor: tuple[float, float],
    dtype: DTypeLike,
) -> Float[Array, "ndim ndim"]:
    """Draw a matrix that scales all axes alike.

    Args:
        key: random key.
        ndim: number of spatial axes.
        probability: share of draws that scale.
        factor: limits of the factor on coordinates; above 1 things get smaller.
        dtype: floating dtype of the matrix.

    Returns:
        A multiple of the identity.
    """
    applied, share = draws.decide(key, probability=probability, shape=(), dtype=dtype)
    drawn = jnp.where(applied, draws.between(share, factor), 1.0)
    return drawn * jnp.eye(ndim, dtype=dtype)


def then(
    first: Float[Array, "ndim ndim"] | None, second: Float[Array, "ndim ndim"]
) -> Float[Array, "ndim ndim"]:
    """Chain two matrices.

    Args:
        first: what acts on the pixel's own place; None for nothing.
        second: what acts on the result.

    Returns:
        The matrix that does both.
    """
    if first is None:
        return second
    return jnp.matmul(second, first, precision=_EXACT)


def control_points(
    key: PRNGKeyArray,
    *,
    shape: Sequence[int],
    probability: float,
    spacing: float,
    magnitude: tuple[float, float],
    dtype: DTypeLike,
) -> Float[Array, "ndim *nodes"]:
    """Draw how far each point of a coarse grid is moved.

    Args:
        key: random key.
        shape: spatial shape of the image.
        probability: share of draws that displace.
        spacing: distance of neighbouring control points, in pixels.
        magnitude: limits of the largest displacement of a control point along an
            axis, as a share of ``spacing``. Below 0.4 nothing folds.
        dtype: floating dtype of the displacement.

    Returns:
        Pixels along each axis, for every control point; 0 where nothing is displaced.

    Source: Choi and Lee 2000 for the bound on folding.
    """
    nodes = [_spline_basis(size, spacing).shape[1] for size in shape]
    applied, shares = draws.decide(
        key,
        probability=probability,
        shape=(1 + len(shape) * math.prod(nodes),),
        dtype=dtype,
    )
    strength = jnp.where(applied, spacing * draws.between(shares[0], magnitude), 0.0)
    moved = strength * draws.between(shares[1:], (-1.0, 1.0))
    return moved.reshape(len(shape), *nodes)


def displacement(
    points: Float[Array, "ndim *nodes"], *, shape: Sequence[int], spacing: float
) -> Float[Array, "ndim *spatial"]:
    """Lay cubic B-splines through control points.

    Args:
        points: displacements of the control points, from `control_points`.
        shape: spatial shape of the image.
        spacing: distance of neighbouring control points, in pixels.

    Returns:
        Pixels along each axis, for every pixel.

    Source: Rueckert et al. 1999 (free-form deformation).
    """
    moved = points
    for size in shape:
        # Contract the first grid axis and append the full one: after as many turns as
        # there are axes, their order is the old one. Not a dot: its rounding may depend
        # on the batch size, and with it the pixel that a label is read from.
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
    """Return where each pixel reads.

    Args:
        matrix: product of what mirrors, rotates and scales; None for the identity.
        moved: the displacement; None for none.
        shape: spatial shape of the image.
        dtype: floating dtype of the places, float32 or wider.

    Returns:
        One array an axis, in pixels, 0 at the centre of the first pixel, of a shape
        that broadcasts to ``shape``.
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
        # Written out: a matrix product has no need to keep 1 * u + 0 * v exact.
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
