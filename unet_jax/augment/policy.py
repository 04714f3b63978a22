"""The augmentations of a training run, in order."""

import dataclasses
import functools
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Integer, PRNGKeyArray, Shaped

from unet_jax.augment import coordinates
from unet_jax.augment.branches import where_drawn
from unet_jax.augment.crop_grid import CropGrid, reach
from unet_jax.augment.draws import Draw, draw_all
from unet_jax.augment.intensity import (
    Brightness,
    Contrast,
    Gamma,
    GammaInverted,
    GaussianNoise,
)
from unet_jax.augment.kinds import Augmentation, Linear, Value
from unet_jax.augment.resolution import GaussianBlur, LowResolution
from unet_jax.augment.sampling import sample
from unet_jax.augment.spatial import Elastic, Flip, Rotation, Scaling
from unet_jax.augment.synthesis import Synthesis
from unet_jax.config_key import Key
from unet_jax.errors import InputError

AUGMENTATIONS: tuple[tuple[str, type[Augmentation]], ...] = (
    # Those that move pixels make one map, and the image is interpolated once.
    ("flip", Flip),
    ("rotation", Rotation),
    ("scaling", Scaling),
    ("elastic", Elastic),
    # What changes values follows, one after the other: a whole image, then nnU-Net's.
    ("synthesis", Synthesis),
    ("noise", GaussianNoise),
    ("blur", GaussianBlur),
    ("brightness", Brightness),
    ("contrast", Contrast),
    ("low_resolution", LowResolution),
    ("gamma_inverted", GammaInverted),
    ("gamma", Gamma),
)
"""Name and class of each augmentation.

Field ``field`` of the class is option ``name_field`` of `augment` and key
``augment.name_field`` of a config: ``augment.rotation_degrees_2d``.
"""


class Extra(NamedTuple):
    """An augmentation of the user's own, applied after the others.

    Attributes:
        name: its name; the random key is folded from it.
        function: ``(key, image, label, **options) -> (image, label)`` for one example,
            in jax, which keeps shapes and dtypes.
        options: keyword arguments of the function.
    """

    name: str
    function: Callable[..., tuple[Array, Array]]
    options: Mapping[str, Any]


def augmentation_keys(*, from_data: Collection[str] = ()) -> dict[str, Key]:
    """Return the keys of a config for the options of all augmentations.

    The data of a folder may give the options ``from_data``. `resolve_options` checks
    the limits.
    """
    return {
        f"augment.{name}_{field}": Key(
            default,
            augmentation.meanings().get(field, ""),
            from_data=f"{name}_{field}" in from_data,
        )
        for name, augmentation in AUGMENTATIONS
        for field, default in dataclasses.asdict(augmentation()).items()
    }


def default_options() -> dict[str, Any]:
    """Return every option of `augment` but ``extra``, with its default.

    >>> default_options()["noise_std"]
    (0.0, 0.1)
    """
    keys = augmentation_keys().items()
    return {name.removeprefix("augment."): key.default for name, key in keys}


def resolve_options(options: Mapping[str, Any]) -> dict[str, Augmentation]:
    """Check options as in `default_options`, and fill in the defaults.

    Lists count as tuples and integers as floats.

    Returns:
        Every augmentation by its name, in order.

    Raises:
        ValueError: an unknown name, or a value out of bounds.
    """
    valid = list(default_options())
    for option in options:
        if option not in valid:
            raise ValueError(
                f"Unknown augmentation option {option!r}; expected one of {valid}"
            )
    augmentations = {}
    for name, augmentation in AUGMENTATIONS:
        given = {
            field.name: options[option]
            for field in dataclasses.fields(augmentation)
            if (option := f"{name}_{field.name}") in options
        }
        try:
            augmentations[name] = augmentation.checked(given)
        except ValueError as error:
            raise ValueError(f"Option {name}_{error}") from None
    return augmentations


def source_size(
    options: Mapping[str, Any], *, patch_size: tuple[int, ...], spacing: Any
) -> tuple[int, ...]:
    """Return the size of the crop that `augment` needs for a patch.

    Only a volume of which one axis is much thinner (`CropGrid`) needs a larger one.

    Args:
        options: options of `augment`.
        spacing: millimetres per pixel on each axis, or None.
    """
    used = resolve_options(
        {k: v for k, v in options.items() if k not in ("extra", "synthesis")}
    )
    rotation, scaling, elastic = (
        used[name] for name in ("rotation", "scaling", "elastic")
    )
    assert isinstance(rotation, Rotation)
    assert isinstance(scaling, Scaling)
    assert isinstance(elastic, Elastic)
    return reach(
        CropGrid(patch_size, spacing),
        degrees=(0.0, 0.0) if rotation.is_off else rotation.degrees_3d,
        factor=1.0 if scaling.is_off else max(1.0, scaling.factor[1]),
        moved=0.0 if elastic.is_off else elastic.spacing * elastic.magnitude[1],
    )


def augment(
    key: PRNGKeyArray,
    image: Float[Array, "*spatial channels"],
    label: Integer[Array, "*spatial"],
    *,
    patch_size: tuple[int, ...] | None = None,
    spacing: tuple[float, ...] | None = None,
    synthesis: bool = False,
    num_classes: int = 2,
    zero_outside: bool = False,
    full_range: bool = False,
    labels_only: bool = False,
    slices: int = 1,
    previous: int = 0,
    extra: Sequence[Extra] = (),
    **options: Any,
) -> tuple[Float[Array, "*patch channels"], Integer[Array, "*patch"]]:
    """Augment one example: move its pixels, change its values, apply what is extra.

    Args:
        key: random key of this example; each augmentation folds its own from it, so
            that one more or less does not change the draws of the others.
        image: picture or volume, in any floating dtype; half precision is widened
            while it is worked on.
        label: class index of every pixel, or IGNORE, in any integer dtype.
        patch_size: pixels of the result on each axis; None for those of the image. A
            larger image (`source_size`) has pixels for what is turned into the patch
            from beside it, about whose centre pixels are moved.
        spacing: millimetres per pixel on each axis; None where it is unknown.
        synthesis: whether images are drawn from label maps; else no option of
            `Synthesis` counts.
        num_classes: number of classes of the label, for synthesis.
        zero_outside: whether the empty part of a normalised image is zero
            (`data.preprocess`), for synthesis.
        full_range: whether -1 is black and 1 white in a normalised image.
        labels_only: whether images hold sub-labels, see `Synthesis.draw_image`.
        slices: number of neighbouring slices whose channels the image has, one after
            the other; each draw for a channel holds in all of them.
        previous: number of one-hot channels at the end, which are moved alone.
        extra: augmentations of the user's own, under different names.
        **options: see `default_options`; plain Python values.

    Returns:
        Image and label of ``patch_size``, in their dtypes.

    Raises:
        ValueError: an unknown option, or a value out of bounds.
        InputError: an augmentation of the user's own changes a shape or a dtype.

    Source: the default training transforms of nnU-Net v2 (Isensee et al. 2021).
    """
    used = {
        name: augmentation
        for name, augmentation in resolve_options(options).items()
        if not augmentation.is_off and (synthesis or name != "synthesis")
    }
    dtype = image.dtype
    image = image.astype(jnp.promote_types(dtype, jnp.float32))
    grid = CropGrid(tuple(patch_size or label.shape), spacing)
    shape = (*grid.shape, (image.shape[-1] - previous) // slices)
    counts = {name: used[name].count(shape) for name in used}
    counts |= {own.name: 0 for own in extra}
    draws = draw_all(key, counts, dtype=image.dtype, slices=slices)
    image, label = _moved(image, label, used, draws, grid)
    one_hot = None
    if previous:
        image, one_hot = jnp.split(image, [image.shape[-1] - previous], -1)
    for name, augmentation in used.items():
        if isinstance(augmentation, Synthesis):
            image, label = augmentation.draw_image(
                draws[name],
                image,
                label,
                num_classes=num_classes,
                zero_outside=zero_outside,
                full_range=full_range,
                labels_only=labels_only,
            )
        elif isinstance(augmentation, Value):
            image = augmentation.change(draws[name], image)
    if one_hot is not None:
        one_hot = (one_hot > 0.5).astype(image.dtype)
        image = jnp.concatenate([image, one_hot], -1)
    for own in extra:
        image, label = _extended(own, draws[own.name].key, image, label)
    return image.astype(dtype), label


def augment_batch(
    keys: Shaped[Array, "batch ..."],
    images: Float[Array, "batch *spatial channels"],
    labels: Integer[Array, "batch *spatial"],
    **options: Any,
) -> tuple[Float[Array, "batch *spatial channels"], Integer[Array, "batch *spatial"]]:
    """Augment every example of a batch with its own key, from `example_keys`.

    Labels are the class index of every pixel, or IGNORE; options are those of
    `augment`. Images and labels keep their shapes and dtypes.

    Raises:
        ValueError, InputError: as `augment`.
    """
    return jax.vmap(lambda *example: augment(*example, **options))(keys, images, labels)


def _moved(
    image: Array,
    label: Array,
    used: Mapping[str, Augmentation],
    draws: Mapping[str, Draw],
    grid: CropGrid,
) -> tuple[Array, Array]:
    """Compose the coordinate map and read image and label at it."""
    matrix, points, spacing = None, None, 1.0
    for name, augmentation in used.items():
        if isinstance(augmentation, Linear):
            one = augmentation.matrix(draws[name], grid)
            matrix = coordinates.then(matrix, one)
        elif isinstance(augmentation, Elastic):
            points = augmentation.points(draws[name], grid)
            spacing = augmentation.spacing
    if matrix is None and points is None:
        return _centre((image, label), grid.shape)  # The program interpolates nothing.
    read = functools.partial(_read, shape=grid.shape, spacing=spacing)
    return jax.lax.platform_dependent(
        (image, label),
        matrix,
        points,
        cpu=functools.partial(_mirrored_or_read, read, grid.shape),
        default=read,
    )


def _read(
    both: tuple[Array, Array],
    matrix: Array | None,
    points: Array | None,
    *,
    shape: tuple[int, ...],
    spacing: float,
) -> tuple[Array, Array]:
    """Read image and label at the place that the map gives for each pixel."""
    image, label = both
    moved = None
    if points is not None:
        moved = coordinates.displacement(points, shape=shape, spacing=spacing)
    places = coordinates.places(matrix, moved, shape=shape, dtype=image.dtype)
    margins = _margins(label.shape, shape)
    if any(margins):
        places = [place + margin for place, margin in zip(places, margins, strict=True)]
    return sample(image, label, places)


def _margins(source: Sequence[int], shape: Sequence[int]) -> list[int]:
    """Return the pixels on each side that a source has more than the crop."""
    return [(size - kept) // 2 for size, kept in zip(source, shape, strict=True)]


def _centre(both: tuple[Array, Array], shape: tuple[int, ...]) -> tuple[Array, Array]:
    """Cut the crop out of the middle of its source."""
    image, label = both
    box = tuple(
        slice(start, start + size)
        for start, size in zip(_margins(label.shape, shape), shape, strict=True)
    )
    return image[box], label[box]


def _mirrored_or_read(
    read: Callable[..., tuple[Array, Array]],
    shape: tuple[int, ...],
    source: tuple[Array, Array],
    matrix: Array | None,
    points: Array | None,
) -> tuple[Array, Array]:
    """Mirror where the map does no more than that, which needs no interpolation."""
    both, between_pixels = _centre(source, shape), jnp.array(False)
    if points is not None:
        between_pixels |= jnp.any(points != 0)
    if matrix is not None:
        directions = jnp.diagonal(matrix)
        between_pixels |= jnp.any(jnp.abs(matrix) != jnp.eye(len(matrix)))
        for axis in range(len(matrix)):
            both = where_drawn(
                ~between_pixels & (directions[axis] < 0),
                functools.partial(jax.tree.map, functools.partial(jnp.flip, axis=axis)),
                both,
            )

    def read_source(_: Any, source: tuple[Array, Array], *numbers: Array | None) -> Any:
        return read(source, *numbers)

    if source[1].shape == shape:
        return where_drawn(between_pixels, read, both, matrix, points)
    return where_drawn(between_pixels, read_source, both, source, matrix, points)


def _extended(
    own: Extra, key: PRNGKeyArray, image: Array, label: Array
) -> tuple[Array, Array]:
    """Apply an augmentation of the user's own, and check what it returns."""
    returned = own.function(key, image, label, **own.options)
    found = jax.tree.map(lambda array: f"{array.dtype}{list(array.shape)}", returned)
    expected = tuple(f"{array.dtype}{list(array.shape)}" for array in (image, label))
    if found != expected:
        raise InputError(
            f"augment.extra: {own.name!r} returned {found}; expected an image and a "
            f"label of the dtypes and shapes it was given, {expected}"
        )
    new_image, new_label = returned
    return new_image, new_label
