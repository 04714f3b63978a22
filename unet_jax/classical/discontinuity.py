"""Finds borders where intensity, colour or texture changes."""

from collections.abc import Sequence

import numpy as np
from scipy import ndimage

from unet_jax.classical.channels import sigmas, to_color_space
from unet_jax.classical.edges import gradient_basins, named_segments
from unet_jax.classical.prototypes import Features, fit_prototypes, local_std
from unet_jax.classical.samples import Sample
from unet_jax.classical.search import Model
from unet_jax.method import Spacing


def structure_texture(
    image: np.ndarray, *, sigma: float, spacing: Spacing = None
) -> np.ndarray:
    """Measure energy and anisotropy of the structure tensor.

    With S the structure tensor, smoothed over the neighbourhood, the energy is the
    square root of its trace and the anisotropy
    ``sqrt(d / (d - 1)) * |S - trace(S) / d * I| / |S|`` (Frobenius norms, d axes): 0
    where all directions are equal, 1 where the image changes along one alone. It is
    multiplied by the energy, so that noise of no energy has none.

    Args:
        image: ``(*spatial, channels)``; the tensors of the channels are added.
        sigma: width of the neighbourhood in pixels of the finest axis.

    Returns:
        ``(*spatial, 2)`` float32.

    Source:
        Di Zenzo: A note on the gradient of a multi-image (1986); Basser and Pierpaoli:
        Microstructural and Physiological Features of Tissues (1996), eq. 14.
    """
    axes = image.ndim - 1
    widths = sigmas(sigma, spacing, axes)
    pairs = [(i, j) for i in range(axes) for j in range(i, axes)]
    tensor = [np.zeros(image.shape[:-1], np.float32) for _ in pairs]
    for channel in np.moveaxis(image.astype(np.float32), -1, 0):
        # scikit-image's own structure tensor drops axes of one pixel.
        slopes = [ndimage.sobel(channel, axis=axis) for axis in range(axes)]
        for element, (i, j) in zip(tensor, pairs, strict=True):
            element += ndimage.gaussian_filter(slopes[i] * slopes[j], widths)
    trace = sum(
        element for (i, j), element in zip(pairs, tensor, strict=True) if i == j
    )
    square = sum(
        (1 if i == j else 2) * np.square(element)
        for (i, j), element in zip(pairs, tensor, strict=True)
    )
    deviatoric = np.maximum(square - np.square(trace) / axes, 0)
    energy = np.sqrt(np.maximum(trace, 0))
    flat = square <= 0
    anisotropy = np.sqrt(axes / (axes - 1) * deviatoric / np.where(flat, 1, square))
    return np.stack([energy, energy * np.where(flat, 0, anisotropy)], axis=-1)


def discontinuity(
    image: np.ndarray, *, feature_name: str, sigma: float, spacing: Spacing = None
) -> np.ndarray:
    """Measure how strongly a feature of the image changes at each pixel.

    The result is the square root of the largest eigenvalue of the sum of the features'
    gradient tensors. For one feature it is the magnitude of its gradient; changes of
    several channels add up where they have the same direction.

    Args:
        image: ``(*spatial, channels)``.
        feature_name: "intensity" (the mean channel), "color" (all channels, three of
            them in CIELAB), "std" (the local standard deviation of each channel) or
            "structure" (see `structure_texture`).
        sigma: width, in pixels of the finest axis, of the Gaussian whose derivatives
            are taken; above 0.

    Returns:
        ``(*spatial)`` float32.

    Source:
        Di Zenzo: A note on the gradient of a multi-image (1986).
    """
    match feature_name:
        case "intensity":
            values = image.mean(axis=-1, keepdims=True, dtype=np.float64)
        case "color":
            values = to_color_space(image, "lab")
        case "std":
            values = local_std(image)
        case "structure":
            values = structure_texture(image, sigma=sigma + 0.5, spacing=spacing)
        case _:
            raise ValueError(
                f"Unknown feature {feature_name!r}; expected one of 'intensity', "
                "'color', 'std', 'structure'."
            )
    return _largest_change(values.astype(np.float32), sigma, spacing)


def _largest_change(values: np.ndarray, sigma: float, spacing: Spacing) -> np.ndarray:
    """Square root of the largest eigenvalue of the summed gradient tensors."""
    axes, count = values.ndim - 1, values.shape[-1]
    widths = sigmas(sigma, spacing, axes)
    slopes = np.empty((*values.shape, axes), np.float32)
    for index in range(count):
        channel = values[..., index]
        for axis in range(axes):
            order = [int(other == axis) for other in range(axes)]
            slopes[..., index, axis] = ndimage.gaussian_filter(channel, widths, order)
    if count == 1:
        return np.sqrt(np.square(slopes[..., 0, :]).sum(axis=-1))
    # The same eigenvalues except for zeros; for two features there is a closed form.
    gram = np.einsum("...ka,...la->...kl", slopes, slopes)
    if count == 2:
        half = (gram[..., 0, 0] + gram[..., 1, 1]) / 2
        apart = (gram[..., 0, 0] - gram[..., 1, 1]) / 2
        return np.sqrt(half + np.sqrt(apart**2 + gram[..., 0, 1] ** 2))
    if axes == 2:
        a, b = slopes[..., 0], slopes[..., 1]
        aa, bb, ab = (a * a).sum(-1), (b * b).sum(-1), (a * b).sum(-1)
        return np.sqrt((aa + bb) / 2 + np.sqrt(((aa - bb) / 2) ** 2 + ab**2))
    largest = np.linalg.eigvalsh(gram)[..., -1]
    return np.sqrt(np.maximum(largest, 0)).astype(np.float32)


def make_discontinuity(
    pieces: Sequence[Sample],
    *,
    num_classes: int,
    feature: str,
    sigma: float,
    threshold: float,
    fill: bool,
    scale: str,
    texture: bool,
) -> Model:
    """Make segments between discontinuities, named by prototypes."""

    def segments(image: np.ndarray, spacing: Spacing) -> np.ndarray:
        change = discontinuity(
            image, feature_name=feature, sigma=sigma, spacing=spacing
        )
        return gradient_basins(change, threshold=threshold)

    space = "lab" if feature == "color" else "rgb"
    prototypes = fit_prototypes(pieces, Features(scale, texture, space), num_classes)
    chosen = {"feature": feature, "sigma": sigma, "threshold": threshold}
    return named_segments(segments, prototypes, fill=fill, chosen=chosen)
