"""What a config can set about the augmentations, its defaults and its bounds."""

import dataclasses
from collections.abc import Mapping
from typing import Any

Limits = tuple[float, float]

# The values that a pair of limits may have. The ends only keep out what has no meaning
# (a size of 0, a width that no image has), not what is unwise.
_BOUNDS = {
    "rotation_degrees_2d": (-360.0, 360.0),
    "rotation_degrees_3d": (-360.0, 360.0),
    "scaling_factor": (0.01, 100.0),
    "elastic_magnitude": (0.0, 10.0),
    "noise_std": (0.0, 1e6),
    "blur_sigma": (0.0, 100.0),
    "brightness_factor": (0.0, 1e6),
    "contrast_factor": (0.0, 1e6),
    "low_resolution_scale": (0.01, 1.0),
    "gamma_inverted_exponent": (0.01, 100.0),
    "gamma_exponent": (0.01, 100.0),
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class AugmentationOptions:
    """How often each augmentation happens, and how strong it may be.

    Probabilities are shares of examples; 0 leaves an augmentation out of the compiled
    program. Pairs are the lower and upper limit of what is drawn. The defaults are
    nnU-Net v2's, but for the elastic deformation, which nnU-Net leaves out and which is
    mild here.

    Attributes:
        flip_probability: for each axis by itself.
        spatial_axes_flip: axes that may be mirrored, () for none; 2 counts for volumes.
        rotation_probability: of a rotation about the centre.
        rotation_degrees_2d: angle in pictures.
        rotation_degrees_3d: angle about each axis of volumes.
        scaling_probability: of a scaling about the centre.
        scaling_factor: on coordinates; above 1 things get smaller.
        elastic_probability: of an elastic deformation.
        elastic_spacing: distance of its control points, in pixels.
        elastic_magnitude: their largest displacement as a share of the spacing; below
            0.4 nothing folds.
        noise_probability: of added normal noise.
        noise_std: its standard deviation, in units of the image.
        blur_probability: of a Gaussian blur.
        blur_channel_probability: of each channel of a blurred image.
        blur_sigma: its deviation in pixels.
        brightness_probability: of a factor on the values.
        brightness_factor: that factor.
        contrast_probability: of a factor on the distance from the mean.
        contrast_factor: that factor.
        low_resolution_probability: of a coarser sampling.
        low_resolution_channel_probability: of each channel of such an image.
        low_resolution_scale: the coarse size as a share of the size.
        gamma_inverted_probability: of a power on the negative image.
        gamma_inverted_exponent: that power.
        gamma_probability: of a power on the image.
        gamma_exponent: that power.
    """

    flip_probability: float = 0.5
    spatial_axes_flip: tuple[int, ...] = (0, 1, 2)
    rotation_probability: float = 0.2
    rotation_degrees_2d: Limits = (-180.0, 180.0)
    rotation_degrees_3d: Limits = (-30.0, 30.0)
    scaling_probability: float = 0.2
    scaling_factor: Limits = (0.7, 1.4)
    elastic_probability: float = 0.2
    elastic_spacing: float = 24.0
    elastic_magnitude: Limits = (0.0, 0.25)
    noise_probability: float = 0.1
    noise_std: Limits = (0.0, 0.1)
    blur_probability: float = 0.2
    blur_channel_probability: float = 0.5
    blur_sigma: Limits = (0.5, 1.0)
    brightness_probability: float = 0.15
    brightness_factor: Limits = (0.75, 1.25)
    contrast_probability: float = 0.15
    contrast_factor: Limits = (0.75, 1.25)
    low_resolution_probability: float = 0.25
    low_resolution_channel_probability: float = 0.5
    low_resolution_scale: Limits = (0.5, 1.0)
    gamma_inverted_probability: float = 0.1
    gamma_inverted_exponent: Limits = (0.7, 1.5)
    gamma_probability: float = 0.3
    gamma_exponent: Limits = (0.7, 1.5)


def resolve_options(options: Mapping[str, Any]) -> AugmentationOptions:
    """Check options, as a config gives them, and fill in the defaults.

    Args:
        options: names and values of ``AugmentationOptions``; lists count as tuples and
            integers as floats.

    Returns:
        All options.

    Raises:
        ValueError: an unknown name, or a value out of bounds.
    """
    valid = [field.name for field in dataclasses.fields(AugmentationOptions)]
    for name in options:
        if name not in valid:
            raise ValueError(
                f"Unknown augmentation option {name!r}; expected one of {valid}"
            )
    checked: dict[str, Any] = {
        name: _checked(name, value) for name, value in options.items()
    }
    return AugmentationOptions(**checked)


def _checked(name: str, value: Any) -> float | Limits | tuple[int, ...]:
    """Return the value of one option in its type, or refuse it."""
    if name == "spatial_axes_flip":
        if not _is_tuple_of_numbers(value) or not set(value) <= {0, 1, 2}:
            raise ValueError(
                f"Option {name} is {value!r}; expected axes out of 0, 1, 2"
            )
        return tuple(int(axis) for axis in value)
    if name in _BOUNDS:
        lowest, highest = _BOUNDS[name]
        if (
            not _is_tuple_of_numbers(value)
            or len(value) != 2
            or not lowest <= value[0] <= value[1] <= highest
        ):
            raise ValueError(
                f"Option {name} is {value!r}; expected a lower and an upper limit "
                f"between {lowest} and {highest}"
            )
        return float(value[0]), float(value[1])
    # What remains are probabilities, and one distance in pixels.
    lowest, highest = (1.0, 1e6) if name == "elastic_spacing" else (0.0, 1.0)
    if not isinstance(value, int | float) or not lowest <= value <= highest:
        raise ValueError(
            f"Option {name} is {value!r}; expected a number "
            f"between {lowest} and {highest}"
        )
    return float(value)


def _is_tuple_of_numbers(value: Any) -> bool:
    """Tell whether a value is a tuple or list of real numbers."""
    return isinstance(value, tuple | list) and all(
        isinstance(item, int | float) for item in value
    )
