"""k-means: pixels that look alike, and pixels that also lie near each other."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from sklearn.cluster import KMeans

from unet_jax.classical.prototypes import Features, fit_prototypes
from unet_jax.classical.samples import Reference, Sample
from unet_jax.classical.search import Model, confusion, name_clusters

_ROWS = 2**14
"""Number of pixels, drawn by the seed, that centres are found on."""

_STARTS = 4
"""Number of starts of k-means; the best one is kept."""

_BLOCK = 2**18
"""Number of pixels that are assigned at once, which bounds the memory."""


def find_centers(
    rows: np.ndarray, *, k: int, seed: int, starts: int = _STARTS
) -> np.ndarray:
    """Find the centres of k clusters, ordered by their first coordinate.

    Args:
        rows: ``(pixels, features)``.

    Returns:
        ``(k, features)`` float64; fewer centres where fewer rows differ.

    Source:
        Lloyd: Least squares quantization in PCM (1982); Arthur and Vassilvitskii:
        k-means++ (2007); scikit-learn's ``KMeans``.
    """
    if rows.shape[1] == 1:  # one channel has few values: all pixels count
        different, counts = np.unique(rows[:, 0], return_counts=True)
        different = different[:, None].astype(np.float64)
    if rows.shape[1] > 1 or len(different) > _ROWS:
        rows = rows.astype(np.float64)
        if len(rows) > _ROWS:
            rng = np.random.default_rng(seed)
            rows = rows[rng.choice(len(rows), _ROWS, replace=False)]
        different, counts = np.unique(rows, axis=0, return_counts=True)
    if len(different) <= k:
        return different
    fitted = KMeans(k, n_init=starts, random_state=seed).fit(
        different, sample_weight=counts
    )
    centers = fitted.cluster_centers_
    return centers[np.lexsort(centers.T[::-1])]


def nearest_center(rows: np.ndarray, centers: np.ndarray) -> np.ndarray:
    """Find the nearest of ``(k, features)`` centres to ``(pixels, features)``."""
    half = np.square(centers).sum(axis=-1) / 2
    blocks = [
        (half - rows[start : start + _BLOCK] @ centers.T.astype(rows.dtype)).argmin(1)
        for start in range(0, len(rows), _BLOCK)
    ]
    return np.concatenate(blocks)


def with_position(values: np.ndarray, weight: float) -> np.ndarray:
    """Put the position of each pixel beside its values.

    Args:
        values: ``(*spatial, features)``.
        weight: largest coordinate: the longest axis runs from 0 to it.

    Returns:
        ``(*spatial, features + axes)`` float32.

    Source:
        Achanta et al.: SLIC superpixels compared to state-of-the-art superpixel methods
        (TPAMI 2012), eq. 1 to 3, over the whole image.
    """
    shape = values.shape[:-1]
    unit = weight / max(1, max(shape) - 1)
    grids = np.meshgrid(*(unit * np.arange(size) for size in shape), indexing="ij")
    return np.concatenate([values, np.stack(grids, axis=-1)], axis=-1).astype(
        np.float32
    )


def make_kmeans(
    pieces: Sequence[Sample],
    *,
    num_classes: int,
    seed: int,
    k: int,
    scope: str,
    space: str,
    scale: str,
) -> Model:
    """Make k-means on the values of the channels.

    The scope "training" finds centres once, on all training cases, and names each after
    the class that it overlaps most there; "image" finds new centres in each image and
    names them by the nearest class prototype.
    """
    features = Features(scale, False, space)
    chosen: dict[str, Any] = {"k": k, "scope": scope, "space": space, "scale": scale}
    if scope == "image":
        prototypes = fit_prototypes(pieces, features, num_classes)

        def predict_new(
            image: np.ndarray, spacing: Any, reference: Reference
        ) -> np.ndarray:
            del spacing
            rows, shape = _rows(features(image, reference) / prototypes.spread)
            centers = find_centers(rows, k=k, seed=seed)
            segments = nearest_center(rows, centers).reshape(shape)
            return prototypes.name(segments, image, reference)

        return Model(predict_new, chosen)

    pooled = [_rows(features(piece.image, piece.reference))[0] for piece in pieces]
    unit = np.concatenate(pooled).std(axis=0)
    unit = np.where(unit > 0, unit, 1) if space != "lab" else np.ones_like(unit)
    centers = find_centers(_drawn(pooled, seed) / unit, k=k, seed=seed)

    def clusters(image: np.ndarray, reference: Reference) -> np.ndarray:
        rows, shape = _rows(features(image, reference))
        return nearest_center(rows / unit, centers).reshape(shape)

    counts = [
        confusion(clusters(piece.image, piece.reference), piece.label, (k, num_classes))
        for piece in pieces
    ]
    table = name_clusters(np.stack(counts)).astype(np.uint8)
    chosen["classes"] = table[: len(centers)].tolist()
    chosen["centers"] = (centers * unit).round(2).tolist()

    def predict(image: np.ndarray, spacing: Any, reference: Reference) -> np.ndarray:
        del spacing
        return table[clusters(image, reference)]

    return Model(predict, chosen)


def make_kmeans_position(
    pieces: Sequence[Sample],
    *,
    num_classes: int,
    seed: int,
    k: int,
    weight: float,
    space: str,
    scale: str,
    texture: bool,
) -> Model:
    """Make k-means on values and position, with clusters named by prototypes.

    Args:
        weight: length of the longest axis, in standard deviations within the classes.

    Source:
        Lloyd: Least squares quantization in PCM (1982); Achanta et al.: SLIC
        superpixels (TPAMI 2012) for the position.
    """
    plain = fit_prototypes(pieces, Features(scale, False, space), num_classes)
    prototypes = fit_prototypes(pieces, Features(scale, texture, space), num_classes)

    def predict(image: np.ndarray, spacing: Any, reference: Reference) -> np.ndarray:
        del spacing
        values = plain.features(image, reference) / plain.spread
        rows, shape = _rows(with_position(values, weight))
        centers = find_centers(rows, k=k, seed=seed, starts=1)
        segments = nearest_center(rows, centers).reshape(shape)
        return prototypes.name(segments, image, reference)

    chosen = {
        "k": k, "weight": weight, "space": space, "scale": scale, "texture": texture,
    }  # fmt: skip
    return Model(predict, chosen)


def _rows(values: np.ndarray) -> tuple[np.ndarray, tuple[int, ...]]:
    """Return pixels as rows, and the shape of the image."""
    return values.reshape(-1, values.shape[-1]), values.shape[:-1]


def _drawn(pooled: Sequence[np.ndarray], seed: int) -> np.ndarray:
    """Draw as many rows of each case as suffice; of one channel take all."""
    if pooled[0].shape[1] == 1:
        return np.concatenate(pooled)
    rng = np.random.default_rng(seed)
    count = max(1, _ROWS // len(pooled))
    return np.concatenate(
        [
            rows if len(rows) <= count else rows[rng.choice(len(rows), count, False)]
            for rows in pooled
        ]
    )
