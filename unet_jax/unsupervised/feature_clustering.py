"""Segments one image by differentiable feature clustering (Kim et al. 2020).

A small network is trained on the image itself and then discarded. Its own likeliest
channels are its labels, so that similar pixels gather in fewer and fewer channels.
"""

import dataclasses
import functools
import itertools
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, Integer, PRNGKeyArray

from unet_jax.data.grids import shrunk_or_grown
from unet_jax.data.intensity import nonzero_statistics
from unet_jax.data.label_grids import resample_labels
from unet_jax.method import Reference
from unet_jax.models.blocks import he_normal
from unet_jax.models.ops import convolve

Params = tuple[dict[str, Array], ...]
"""Kernel, and scale and bias of the norm, of each layer."""

TILE, TILES, HALO = 64, 8, 4
"""Side of a tile in pixels, tiles in one pass, and width of the border of a tile whose
features depend on pixels outside. Images of all sizes use one shape, so that both
programs are compiled once."""

_EPSILON = 1e-5


@dataclasses.dataclass(frozen=True)
class FeatureClustering:
    """Settings of feature clustering, which determine the segments of an image.

    The paper's network has 100 channels and sees the whole image in 1000 updates. This
    one takes seconds on a CPU: it has fewer channels and sees eight tiles, drawn once
    from the image, or from the slices of a volume; then it is applied to all of it.
    An image whose longer side exceeds ``longest`` is resized to that length.

    Attributes:
        min_labels: number of channels that win somewhere at which training ends.
        continuity: mu, the weight of the loss between neighbours.
        iterations: largest number of updates.
        features: channels of each layer and of the response: the labels at the start.
        layers: number of 3x3 convolutions; a 1x1 convolution follows the last one.
        learning_rate: learning rate of gradient descent with momentum 0.9.
        slice_axis: axis of volumes along which their slices lie.
        longest: largest side of a plane, in pixels.
        seed: seed of the first weights and of the tiles.
    """

    min_labels: int
    continuity: float = 5.0
    iterations: int = 60
    features: int = 16
    layers: int = 2
    learning_rate: float = 0.1
    slice_axis: int = 2
    longest: int = 256
    seed: int = 0

    def segments(self, image: np.ndarray, *, reference: Reference = None) -> np.ndarray:
        """Segment one image; no label is read.

        Args:
            image: ``(*spatial, channels)``, a picture or a volume.
            reference: see ``Case``; replaces the image's own mean and std.

        Returns:
            ``(*spatial)`` int32: index of a segment from 0, the largest first.
        """
        scaled = scaled_image(image, reference)
        axis = self.slice_axis
        planes = scaled[None] if image.ndim == 3 else np.moveaxis(scaled, axis, 0)
        size = planes.shape[1:3]
        planes = np.stack([_at_most(plane, self.longest) for plane in planes])
        params, statistics = train_on_tiles(
            jax.random.key(self.seed),
            _drawn_tiles(planes, self.seed),
            continuity=self.continuity,
            learning_rate=self.learning_rate,
            features=self.features,
            layers=self.layers,
            iterations=self.iterations,
            min_labels=self.min_labels,
        )
        labels = np.stack([_labels(params, statistics, plane) for plane in planes])
        labels = resample_labels(labels, (len(labels), *size))
        labels = labels[0] if image.ndim == 3 else np.moveaxis(labels, 0, axis)
        return _by_size(labels)


def scaled_image(image: np.ndarray, reference: Reference) -> np.ndarray:
    """Bring each channel to mean 0 and std 1 over its non-zero pixels.

    Args:
        image: ``(*spatial, channels)`` in its stored dtype.
        reference: mean and std of each channel to use instead; or None.
    """
    channels = range(image.shape[-1])
    pairs = reference or [nonzero_statistics(image[..., index]) for index in channels]
    means, stds = np.asarray(pairs, np.float64).T
    return ((image - means) / stds).astype(np.float32)


@functools.partial(jax.jit, static_argnames=("features", "layers"))
def train_on_tiles(
    key: PRNGKeyArray,
    tiles: Float[Array, "tiles height width channels"],
    *,
    continuity: float,
    learning_rate: float,
    features: int,
    layers: int,
    iterations: int | Integer[Array, ""],
    min_labels: int | Integer[Array, ""],
) -> tuple[Params, tuple[tuple[Array, Array], ...]]:
    """Train a network on an image until few enough channels win anywhere.

    Returns:
        The parameters, and the mean and variance in the norm of each layer.

    Source:
        Kim, Kanezaki and Tanaka: Unsupervised Learning of Image Segmentation Based on
        Differentiable Feature Clustering (IEEE TIP 2020, arXiv 2007.09990),
        algorithm 1.
    """
    params = _first_params(key, tiles.shape[-1], features, layers)
    optimizer = optax.sgd(learning_rate, momentum=0.9)

    def loss(params):
        response, _ = _response(params, tiles)
        labels = jnp.argmax(response, axis=-1)
        used = jnp.zeros(features, bool).at[labels.ravel()].set(True)
        return clustering_loss(response, continuity=continuity), jnp.sum(used)

    def update(carry):
        params, momentum, count, _ = carry
        gradients, labels = jax.grad(loss, has_aux=True)(params)
        updates, momentum = optimizer.update(gradients, momentum)
        return optax.apply_updates(params, updates), momentum, count + 1, labels

    def goes_on(carry):
        *_, count, labels = carry
        return (count < iterations) & (labels > min_labels)

    start = (params, optimizer.init(params), jnp.int32(0), jnp.int32(features + 1))
    params, *_ = jax.lax.while_loop(goes_on, update, start)
    return params, _response(params, tiles)[1]


def clustering_loss(
    response: Float[Array, "batch height width features"], *, continuity: float
) -> Float[Array, ""]:
    r"""Add the losses of feature similarity and of continuity in space.

    .. math::
        L = \frac1N \sum_u -\log \mathrm{softmax}(r_u)_{c_u}
            + \mu \, (\overline{|r_{y+1} - r_y|} + \overline{|r_{x+1} - r_x|})

    with :math:`c_u = \arg\max_i r_{ui}` the label that a pixel gives itself, and means
    over pixels and channels.

    Args:
        response: normalised scores r of each pixel.
        continuity: weight mu.

    Returns:
        A scalar; both parts are at least 0.

    Source:
        Kim, Kanezaki and Tanaka (arXiv 2007.09990), eq. 1 to 3.

    Example:
        >>> import jax.numpy as jnp
        >>> alike = jnp.tile(jnp.array([9.0, 0.0]), (1, 2, 2, 1))
        >>> clustering_loss(alike, continuity=5.0).round(4)
        Array(0.0001, dtype=float32)
    """
    labels = jnp.argmax(response, axis=-1)
    similarity = optax.softmax_cross_entropy_with_integer_labels(response, labels)
    steps = [jnp.mean(jnp.abs(jnp.diff(response, axis=axis))) for axis in (1, 2)]
    return jnp.mean(similarity) + continuity * sum(steps)


def _first_params(key, channels, features, layers) -> Params:
    """Return random kernels, and norms that change nothing."""
    params = []
    for index, layer_key in enumerate(jax.random.split(key, layers + 1)):
        size = (3, 3) if index < layers else (1, 1)
        shape = (*size, channels if index == 0 else features, features)
        norm = {"scale": jnp.ones(features), "bias": jnp.zeros(features)}
        kernel = he_normal(layer_key, shape, math.prod(shape[:-1]))
        params.append({"kernel": kernel, **norm})
    return tuple(params)


def _response(params: Params, x: Any, statistics: Any = None) -> Any:
    """Return the normalised response, and the measured or given moments."""
    found = []
    for index, layer in enumerate(params):
        # Training is a loop, in which XLA's own convolution is slow.
        convolution = _convolve if statistics is None else convolve
        x = convolution(x, layer["kernel"])
        if index < len(params) - 1:
            x = jax.nn.relu(x)
        if statistics is None:
            moments = (jnp.mean(x, (0, 1, 2)), jnp.var(x, (0, 1, 2)))
        else:
            moments = statistics[index]
        mean, variance = moments
        factor = layer["scale"] * jax.lax.rsqrt(variance + _EPSILON)
        x = x * factor + (layer["bias"] - mean * factor)
        found.append(moments)
    return x, tuple(found)


def _convolve(x: Array, kernel: Array) -> Array:
    """Convolve as one matrix product with the neighbourhoods of the pixels.

    Inside of a loop, XLA's own convolution takes seven times as long on a CPU.
    """
    side = kernel.shape[0]
    height, width = x.shape[1:3]
    reach = side // 2
    padded = jnp.pad(x, ((0, 0), (reach, reach), (reach, reach), (0, 0)))
    shifts = itertools.product(range(side), repeat=2)
    parts = [padded[:, i : i + height, j : j + width] for i, j in shifts]
    around = jnp.concatenate(parts, axis=-1)
    return around @ kernel.reshape(-1, kernel.shape[-1])


@jax.jit
def _tile_labels(params, statistics, tiles):
    """Return the likeliest channel of each pixel."""
    return jnp.argmax(_response(params, tiles, statistics)[0], axis=-1)


def _drawn_tiles(planes: np.ndarray, seed: int) -> np.ndarray:
    """Draw the tiles to train on; a plane smaller than a tile repeats its border."""
    planes = _padded(planes)
    rng = np.random.default_rng(seed)
    # Spread over the slices, each at a random place.
    chosen = np.linspace(0, len(planes) - 1, TILES).round().astype(int)
    tiles = []
    for index in chosen:
        row, column = (rng.integers(size - TILE + 1) for size in planes.shape[1:3])
        tiles.append(planes[index, row : row + TILE, column : column + TILE])
    return np.stack(tiles)


def _labels(params: Params, statistics: Any, plane: np.ndarray) -> np.ndarray:
    """Label one plane, tile by tile, without the border of each tile."""
    size = plane.shape[:2]
    plane = _padded(plane[None])[0]
    labels = np.empty(plane.shape[:2], np.int32)
    places = list(itertools.product(*(_starts(length) for length in plane.shape[:2])))
    for first in range(0, len(places), TILES):
        part = places[first : first + TILES]
        tiles = np.zeros((TILES, TILE, TILE, plane.shape[-1]), np.float32)
        for tile, (row, column) in zip(tiles, part, strict=False):
            tile[...] = plane[row : row + TILE, column : column + TILE]
        found = np.asarray(_tile_labels(params, statistics, tiles))
        for tile, place in zip(found, part, strict=False):
            # Nothing is cut at the border of the image: training saw it like this.
            cuts = [HALO if start else 0 for start in place]
            target = tuple(
                slice(start + cut, start + TILE)
                for start, cut in zip(place, cuts, strict=True)
            )
            labels[target] = tile[cuts[0] :, cuts[1] :]
    return labels[: size[0], : size[1]]


def _starts(length: int) -> list[int]:
    """Return the first pixels of tiles that cover a side and overlap at the border."""
    step = TILE - 2 * HALO
    return [*range(0, length - TILE, step), length - TILE]


def _padded(planes: np.ndarray) -> np.ndarray:
    """Repeat the border of planes that are smaller than a tile."""
    pads = [(0, max(0, TILE - size)) for size in planes.shape[1:3]]
    return np.pad(planes, ((0, 0), *pads, (0, 0)), mode="edge")


def _at_most(plane: np.ndarray, longest: int) -> np.ndarray:
    """Shrink a plane whose longer side exceeds a length."""
    size = plane.shape[:2]
    factor = longest / max(size)
    if factor >= 1:
        return plane
    shape = tuple(max(1, round(length * factor)) for length in size)
    channels = range(plane.shape[-1])
    return np.stack([shrunk_or_grown(plane[..., i], shape) for i in channels], axis=-1)


def _by_size(labels: np.ndarray) -> np.ndarray:
    """Number the labels that occur from 0 on, the largest first."""
    present, inverse, counts = np.unique(
        labels, return_inverse=True, return_counts=True
    )
    ranks = np.empty(len(present), np.int32)
    ranks[np.argsort(-counts, kind="stable")] = np.arange(len(present))
    return ranks[inverse].reshape(labels.shape)
