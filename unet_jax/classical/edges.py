"""Finds edges and closes them to contours, whose insides become segments."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from scipy import ndimage
from skimage import feature, filters, morphology
from skimage.segmentation import watershed

from unet_jax.classical.channels import sigmas
from unet_jax.classical.prototypes import Features, Prototypes, fit_prototypes
from unet_jax.classical.samples import Reference, Sample
from unet_jax.classical.search import Model
from unet_jax.method import Spacing

_STRONG = 99.0
"""Percentile of the strengths above zero that counts as a full edge: the strongest
pixel alone would let one speck set the threshold of an image."""


def edge_strength(
    image: np.ndarray, *, operator: str, sigma: float, spacing: Spacing = None
) -> np.ndarray:
    """Measure how strongly the intensity changes at each pixel.

    Args:
        image: ``(*spatial, channels)``; the strongest channel counts.
        operator: "sobel" or "prewitt": magnitude of the gradient by that kernel;
            "log": contrast across the zero crossings of the Laplacian of Gaussian, and
            0 elsewhere.
        sigma: width of the Gaussian that comes first, in pixels of the finest axis.

    Returns:
        ``(*spatial)`` float32, at least 0.

    Source:
        Sobel and Feldman: A 3x3 Isotropic Gradient Operator (1968); Prewitt: Object
        Enhancement and Extraction (1970); Marr and Hildreth: Theory of Edge Detection
        (1980).
    """
    widths = sigmas(sigma, spacing, image.ndim - 1)
    strengths = []
    for channel in np.moveaxis(image.astype(np.float32), -1, 0):
        match operator:
            case "sobel":
                strength = filters.sobel(_smoothed(channel, widths))
            case "prewitt":
                strength = filters.prewitt(_smoothed(channel, widths))
            case "log":
                strength = _zero_crossings(ndimage.gaussian_laplace(channel, widths))
            case _:
                raise ValueError(
                    f"Unknown operator {operator!r}; expected one of 'sobel', "
                    "'prewitt', 'log'."
                )
        strengths.append(strength)
    return np.max(strengths, axis=0).astype(np.float32)


def _smoothed(channel: np.ndarray, widths: Sequence[float]) -> np.ndarray:
    """Gaussian-filter one channel."""
    return ndimage.gaussian_filter(channel, widths) if max(widths) > 0 else channel


def _zero_crossings(laplacian: np.ndarray) -> np.ndarray:
    """Contrast between neighbours of opposite sign, at the pixel nearer to zero."""
    # What differs from zero by rounding alone would be a crossing everywhere.
    noise = 1e-5 * float(np.abs(laplacian).max())
    laplacian = np.where(np.abs(laplacian) <= noise, 0, laplacian)
    contrast = np.zeros_like(laplacian)
    for axis in range(laplacian.ndim):
        moved = np.moveaxis(laplacian, axis, 0)
        there = np.moveaxis(contrast, axis, 0)
        first, second = moved[:-1], moved[1:]
        # From sign to sign, or from zero (flat, no contrast) to a sign on one side.
        crossing = first * second < 0
        jump = np.where(crossing, np.abs(first - second), 0)
        near = np.abs(first) <= np.abs(second)
        np.maximum(there[:-1], np.where(near, jump, 0), out=there[:-1])
        np.maximum(there[1:], np.where(near, 0, jump), out=there[1:])
    return contrast


def strong_edges(strength: np.ndarray, threshold: float) -> np.ndarray:
    """Mark pixels above a fraction of a full edge's strength.

    Args:
        strength: ``(*spatial)``, at least 0.
        threshold: that fraction; a full edge is the 99th percentile of what is above 0.

    Returns:
        ``(*spatial)`` bool; nothing in a constant image.
    """
    return strength > threshold * _full_edge(strength)


def _full_edge(strength: np.ndarray) -> float:
    """The strength that counts as 1."""
    # Rounding of a Gaussian over a constant is no edge.
    above = strength[strength > 1e-5 * float(strength.max(initial=0))]
    return float(np.percentile(above, _STRONG)) if len(above) else 0.0


def canny_edges(
    image: np.ndarray, *, sigma: float, low: float, high: float, spacing: Spacing = None
) -> np.ndarray:
    """Find Canny's edges: thin ridges of the gradient, followed from strong to weak.

    Pictures are left to scikit-image; volumes go through the same three steps in 3-D:
    a voxel stays if no interpolated neighbour along its gradient is stronger.

    Args:
        image: ``(*spatial, channels)``; an edge of any channel counts.
        sigma: width of the Gaussian in pixels of the finest axis.
        low: fraction of a full edge at which a followed edge ends.
        high: fraction of a full edge that an edge begins with.

    Returns:
        ``(*spatial)`` bool.

    Source:
        Canny: A Computational Approach to Edge Detection (1986).
    """
    widths = sigmas(sigma, spacing, image.ndim - 1)
    found = np.zeros(image.shape[:-1], bool)
    for channel in np.moveaxis(image.astype(np.float32), -1, 0):
        smooth = _smoothed(channel, widths)
        slopes = [ndimage.sobel(smooth, axis=axis) for axis in range(smooth.ndim)]
        magnitude = np.sqrt(np.sum(np.square(slopes), axis=0))
        full = _full_edge(magnitude)
        if full == 0:
            continue
        if channel.ndim == 2:
            found |= feature.canny(
                channel,
                sigma=widths if max(widths) > 0 else 0,
                low_threshold=low * full,
                high_threshold=high * full,
                mode="reflect",
            )
        else:
            ridge = np.where(_is_ridge(slopes, magnitude, low * full), magnitude, 0)
            found |= filters.apply_hysteresis_threshold(ridge, low * full, high * full)
    return found


def _is_ridge(
    slopes: Sequence[np.ndarray], magnitude: np.ndarray, low: float
) -> np.ndarray:
    """Tell where the gradient is at least as strong as one step along its slope."""
    places = np.argwhere(magnitude > low)
    values = magnitude[tuple(places.T)]
    direction = np.stack([slope[tuple(places.T)] for slope in slopes])
    direction /= values
    ridge = np.ones(len(places), bool)
    for step in (-1, 1):
        beside = ndimage.map_coordinates(
            magnitude, places.T + step * direction, order=1, mode="nearest"
        )
        # Equal strengths by interpolation differ in the last digits.
        ridge &= values >= beside * (1 - 1e-5)
    result = np.zeros(magnitude.shape, bool)
    result[tuple(places[ridge].T)] = True
    return result


def contour_segments(
    edges: np.ndarray, strength: np.ndarray, *, closing: int
) -> np.ndarray:
    """Cut an image along closed contours.

    Gaps are closed; each part that the edges then separate is a segment. The pixels of
    the edges are divided between the segments, along the strongest line.

    Args:
        edges: ``(*spatial)`` bool.
        strength: ``(*spatial)``; segments meet where it is largest.
        closing: radius of the gaps that are closed, in pixels.

    Returns:
        ``(*spatial)`` index of a segment, from 0.

    Source:
        Gonzalez and Woods: Digital Image Processing (4th ed., 2018), 9.5, hole filling,
        and 10.7, watersheds.
    """
    if closing > 0:
        # Beyond the border edges go on as at the border, so that none ends there. A
        # cube first, since a ball that is laid over a thin line leaves its gap open.
        wide = np.pad(edges, closing, mode="edge")
        shut = ndimage.binary_closing(wide, np.ones((3,) * edges.ndim))
        if closing > 1:
            ball = morphology.disk if edges.ndim == 2 else morphology.ball
            shut |= ndimage.binary_closing(wide, ball(closing))
        inner = (slice(closing, -closing),) * edges.ndim
        edges = edges | shut[inner]
    return _flooded(strength, ~edges)


def _flooded(strength: np.ndarray, flat: np.ndarray) -> np.ndarray:
    """Flood each connected part of the flat pixels up to the others."""
    markers, count = ndimage.label(flat)
    if count <= 1:
        return np.zeros(flat.shape, np.int32)
    return watershed(strength, markers) - 1


def fill_enclosed(labels: np.ndarray) -> np.ndarray:
    """Give enclosed background pixels the class of the nearest foreground pixel."""
    foreground = labels > 0
    holes = ndimage.binary_fill_holes(foreground) & ~foreground
    if not holes.any():
        return labels
    nearest = ndimage.distance_transform_edt(
        ~foreground, return_distances=False, return_indices=True
    )
    return np.where(holes, labels[tuple(nearest)], labels)


def make_contours(
    pieces: Sequence[Sample],
    *,
    num_classes: int,
    operator: str,
    sigma: float,
    threshold: float,
    closing: int,
    fill: bool,
    scale: str,
    texture: bool,
) -> Model:
    """Make closed contours of one edge operator, filled and named.

    Args:
        operator: "sobel", "prewitt", "log" or "canny".
        threshold: fraction of a full edge; Canny follows edges down to half of it.
    """

    def segments(image: np.ndarray, spacing: Spacing) -> np.ndarray:
        kernel = "sobel" if operator == "canny" else operator
        strength = edge_strength(image, operator=kernel, sigma=sigma, spacing=spacing)
        if operator == "canny":
            edges = canny_edges(
                image, sigma=sigma, low=threshold / 2, high=threshold, spacing=spacing
            )
        else:
            edges = strong_edges(strength, threshold)
        return contour_segments(edges, strength, closing=closing)

    chosen = {"sigma": sigma, "threshold": threshold, "closing": closing}
    prototypes = fit_prototypes(pieces, Features(scale, texture), num_classes)
    return named_segments(segments, prototypes, fill=fill, chosen=chosen)


def named_segments(
    segments: Callable[[np.ndarray, Spacing], np.ndarray],
    prototypes: Prototypes,
    *,
    fill: bool,
    chosen: dict[str, Any],
) -> Model:
    """Make a model that finds segments and names them by prototypes.

    Args:
        segments: function ``(image, spacing) -> (*spatial)`` index of a segment.
        chosen: parameters of ``segments``, for the report.
    """

    def predict(
        image: np.ndarray, spacing: Spacing, reference: Reference
    ) -> np.ndarray:
        labels = prototypes.name(segments(image, spacing), image, reference)
        return fill_enclosed(labels) if fill else labels

    features = prototypes.features
    shown = {"fill": fill, "scale": features.scale, "texture": features.texture}
    return Model(predict, {**chosen, **shown})


def morphological_gradient(
    image: np.ndarray, *, sigma: float, spacing: Spacing = None
) -> np.ndarray:
    """Subtract the smallest from the largest value around each pixel.

    The channel with the largest difference counts.

    Args:
        image: ``(*spatial, channels)``.
        sigma: width of the Gaussian that comes first, in pixels of the finest axis.

    Returns:
        ``(*spatial)`` float32.

    Source:
        Rivest, Soille and Beucher: Morphological gradients (1993).
    """
    widths = sigmas(sigma, spacing, image.ndim - 1)
    cross = ndimage.generate_binary_structure(image.ndim - 1, 1)
    channels = np.moveaxis(image.astype(np.float32), -1, 0)
    return np.max(
        [
            ndimage.morphological_gradient(_smoothed(one, widths), footprint=cross)
            for one in channels
        ],
        axis=0,
    )


def gradient_basins(strength: np.ndarray, *, threshold: float) -> np.ndarray:
    """Flood basins from where little changes (marker watershed).

    Args:
        strength: ``(*spatial)``, at least 0.
        threshold: fraction of a full edge below which pixels are markers.

    Returns:
        ``(*spatial)`` index of a basin, from 0.

    Source:
        Beucher and Meyer: The Morphological Approach to Segmentation: The Watershed
        Transformation (1993).
    """
    return _flooded(strength, ~strong_edges(strength, threshold))


def make_watershed(
    pieces: Sequence[Sample],
    *,
    num_classes: int,
    sigma: float,
    threshold: float,
    fill: bool,
    scale: str,
    texture: bool,
) -> Model:
    """Make the watershed of the gradient from automatic markers, with named basins."""

    def basins(image: np.ndarray, spacing: Spacing) -> np.ndarray:
        strength = morphological_gradient(image, sigma=sigma, spacing=spacing)
        return gradient_basins(strength, threshold=threshold)

    chosen = {"sigma": sigma, "threshold": threshold}
    prototypes = fit_prototypes(pieces, Features(scale, texture), num_classes)
    return named_segments(basins, prototypes, fill=fill, chosen=chosen)
