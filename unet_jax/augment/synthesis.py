"""Draws images from label maps: other contrasts, resolutions and surroundings."""

import dataclasses
import functools
import math
from typing import Annotated, Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Integer, PRNGKeyArray

from unet_jax.augment import appearance
from unet_jax.augment.branches import where_drawn
from unet_jax.augment.draws import Draw, around_one, between
from unet_jax.augment.kinds import Augmentation
from unet_jax.augment.option import Between, Limits, Probability, Within
from unet_jax.augment.regions import (
    CLUSTERS,
    Clusters,
    Numbers,
    Surroundings,
    find_clusters,
    given_clusters,
    labelled_surroundings,
)

_BRIGHTEST = 1.5  # an intensity that texture may reach; regions have means up to 1
_MISSED = 0.3  # fraction of the images that are cut off that show air alone
_AIR = 0.8  # fraction of images with air around the labelled parts of a background
_ROUGH = 0.15  # largest standard deviation of what lies around the classes
_GRAIN = 1.2  # pixels of the Gaussian that makes its texture
_DARKEST = (0.1, 0.45)  # mean of the darkest class; air is 0
_LIGHTEST = 0.9  # mean of the brightest class
_SCALES = (0.85, 1.18)  # of the standard deviation that an image is normalised by


class _Chances(NamedTuple):
    """One uniform number for each decision about a drawn image."""

    background: Array
    contrast: Array
    inverted: Array
    stretch: Array
    darkest: Array
    offset: Array
    texture: Array
    apart: Array
    blur: Array
    coarse: Array
    coarse_axis: Array
    coarse_factor: Array
    gamma: Array
    noise: Array
    rician: Array
    cleaned: Array
    cut: Array
    scale: Array
    shift: Array


@dataclasses.dataclass(frozen=True, kw_only=True)
class Synthesis(Augmentation):
    """Draws the image from the label map, so that a network meets other scanners.

    Intensities are in [0, 1] before the image is normalised, as preprocessing does.

    Attributes:
        probability: fraction of examples, if augment.synthesis is set; the others keep
            their images.
        like_real_probability: fraction of drawn images whose contrast is near that of
            the real image or its negative; the others have any.
        inverted_probability: fraction of these that have that of the negative.
        empty_probability: fraction of drawn images whose background is empty, where
            data.zero_outside is set.
        surroundings_probability: fraction of drawn images with shells and blobs in the
            background, as of a skull and skin.
        std: limits of the standard deviation inside of a region.
        blur: limits of the Gaussian's standard deviation, in pixels.
        coarse_probability: fraction of drawn images with thick slices or large pixels.
        coarse_factor: limits of their size in pixels.
        bias: largest logarithm of the bias field, about.
        gamma: limits of the exponent of intensities.
        noise: limits of the standard deviation of noise, Gaussian or Rician.
        field_of_view_probability: fraction of drawn images that are cut off.

    Source: SynthSeg (Billot et al. 2023, doi:10.1016/j.media.2023.102789); shells and
    blobs as in Hoopes et al. 2022 (SynthStrip, doi:10.1016/j.neuroimage.2022.119474).
    """

    probability: Probability = 0.5
    like_real_probability: Probability = 0.5
    inverted_probability: Probability = 0.5
    empty_probability: Probability = 0.4
    surroundings_probability: Probability = 0.0
    std: Annotated[Limits, Within(0.0, 1.0)] = (0.0, 0.06)
    blur: Annotated[Limits, Within(0.1, 3.0)] = (0.3, 0.9)
    coarse_probability: Probability = 0.2
    coarse_factor: Annotated[Limits, Within(1.0, 20.0)] = (1.0, 2.5)
    bias: Annotated[float, Between(0.0, 5.0)] = 0.2
    gamma: Annotated[Limits, Within(0.1, 10.0)] = (0.8, 1.25)
    noise: Annotated[Limits, Within(0.0, 1.0)] = (0.0, 0.05)
    field_of_view_probability: Probability = 0.1

    def count(self, image_shape: tuple[int, ...]) -> int:
        """Return one number for the decision, and those of the parts of an image."""
        return 1 + _ends(len(image_shape) - 1)[-1]

    def draw_image(
        self,
        draw: Draw,
        image: Float[Array, "*spatial channels"],
        label: Integer[Array, "*spatial"],
        *,
        num_classes: int,
        zero_outside: bool,
        full_range: bool = False,
        labels_only: bool = False,
    ) -> tuple[Float[Array, "*spatial channels"], Integer[Array, "*spatial"]]:
        """Draw the image of a label map, or leave image and label as they are.

        The label is 0 where the image is cut off, else as it was.

        Args:
            image: the real image, normalised; the sub-label of every pixel for
                ``labels_only``.
            label: class index of every pixel, or IGNORE.
            zero_outside: whether the empty part of a normalised image is zero.
            full_range: whether -1 is black and 1 white in a normalised image.
            labels_only: whether there is no real image. Sub-labels are whole numbers:
                -1, 0 and 1 are clusters of a class. In the background 0 is air, and
                -4 to 4 are parts of what surrounds the foreground.
        """
        applied, uniform = draw.decide(self.probability, (len(draw.numbers) - 1,))
        change = functools.partial(
            _drawn,
            options=self,
            num_classes=num_classes,
            zero_outside=zero_outside,
            full_range=full_range,
            labels_only=labels_only,
        )
        return where_drawn(applied, change, (image, label), uniform, draw.key)

    def draw_scan(
        self,
        key: PRNGKeyArray,
        sub_labels: Float[Array, "*spatial channels"],
        label: Integer[Array, "*spatial"],
        *,
        num_classes: int,
        zero_outside: bool,
    ) -> Float[Array, "*spatial channels"]:
        """Draw one image as a scanner gives it, which preprocessing then normalises.

        Arguments are those of `draw_image` with ``labels_only``.

        Returns:
            Intensities from 0 to 1.5 or so; 0 where nothing was imaged.
        """
        key_of_numbers, key_of_image = jax.random.split(key)
        count = self.count(sub_labels.shape) - 1
        uniform = jax.random.uniform(key_of_numbers, (count,), sub_labels.dtype)
        return _scanned(
            (sub_labels, label),
            uniform,
            key_of_image,
            options=self,
            num_classes=num_classes,
            zero_outside=zero_outside,
            labels_only=True,
        ).image


def _ends(axes: int) -> list[int]:
    """Return where the numbers of decisions, view, surroundings and bias end."""
    counts = [len(_Chances._fields), 2 * axes, Surroundings.count(axes)]
    counts.append(appearance.BIAS_NODES**axes)
    return [sum(counts[: stop + 1]) for stop in range(len(counts))]


class _Scan(NamedTuple):
    """An image before it is normalised, and where it shows something."""

    image: Array
    shown: Array
    seen: Array
    chance: _Chances


def _drawn(
    both: tuple[Array, Array],
    uniform: Array,
    key: PRNGKeyArray,
    *,
    zero_outside: bool,
    full_range: bool,
    **options: Any,
) -> tuple[Array, Array]:
    """Draw the image of a label map, and normalise it as preprocessing does."""
    image, label = both
    scan = _scanned(both, uniform, key, zero_outside=zero_outside, **options)
    chance, shown = scan.chance, scan.shown
    seen = jnp.where(scan.seen, label, jnp.zeros_like(label))
    if full_range:
        scaled = 2 * jnp.clip(scan.image, 0.0, 1.0) - 1
        return scaled.astype(image.dtype), seen
    scaled = appearance.normalised(scan.image, zero_outside=zero_outside)
    # A crop has another mean and standard deviation than its scan.
    moved = scaled * around_one(chance.scale, _SCALES) + 0.5 * (chance.shift - 0.5)
    scaled = jnp.where(shown[..., None], moved, scaled)
    return scaled.astype(image.dtype), seen


def _scanned(
    both: tuple[Array, Array],
    uniform: Array,
    key: PRNGKeyArray,
    *,
    options: Synthesis,
    num_classes: int,
    zero_outside: bool,
    labels_only: bool,
) -> _Scan:
    """Draw regions, their intensities, and what a scanner makes of them."""
    image, label = both
    shape = label.shape
    decisions, view, around, bias = jnp.split(uniform, _ends(len(shape))[:-1])
    chance, numbers = _Chances(*decisions), Numbers.of(num_classes)
    classes = jnp.clip(label, 0, num_classes - 1)
    labelled = None
    if labels_only:
        clusters = given_clusters(image, classes, num_classes=num_classes)
        labelled = labelled_surroundings(image, numbers)
    else:
        clusters = find_clusters(image, classes, num_classes=num_classes)
    region = _regions(
        label,
        clusters,
        chance,
        Surroundings.of(around, len(shape)),
        options=dataclasses.replace(
            options, empty_probability=zero_outside * options.empty_probability
        ),
        numbers=numbers,
        labelled=labelled,
    )
    key_of_table, key_of_noise = jax.random.split(key)
    table = jax.random.uniform(
        key_of_table, (3, numbers.air + 1, image.shape[-1]), image.dtype
    )
    noise = jax.random.normal(key_of_noise, (3, *image.shape), image.dtype)
    seen = appearance.field_of_view(view, shape)
    seen |= chance.cut >= options.field_of_view_probability
    # Some views miss the foreground.
    seen &= chance.cut >= _MISSED * options.field_of_view_probability
    region = jnp.where(seen, region, numbers.air)
    drawn = _intensities(
        region,
        clusters,
        chance,
        table,
        noise[0],
        options,
        numbers,
        labels_only=labels_only,
    )
    drawn = appearance.blurred(drawn, between(chance.blur, options.blur))
    coarse = chance.coarse < options.coarse_probability
    factor = jnp.where(coarse, between(chance.coarse_factor, options.coarse_factor), 1)
    drawn = appearance.coarsened(drawn, factor, axis_draw=chance.coarse_axis)
    drawn *= appearance.bias_field(bias, shape, strength=options.bias)[..., None]
    drawn = jnp.maximum(drawn, 0.0) ** around_one(chance.gamma, options.gamma)
    drawn = appearance.with_noise(
        drawn,
        between(chance.noise**2, options.noise),  # strong noise is rare
        noise[1:],
        rician=chance.rician < 0.5,
    )
    # Air, and what lies beyond the view, is cleaned of its noise in most scans.
    shown = (seen & (region != numbers.air)) | (chance.cleaned > 0.6)
    return _Scan(jnp.where(shown[..., None], drawn, 0.0), shown, seen, chance)


def _regions(
    label: Array,
    clusters: Clusters,
    chance: _Chances,
    surroundings: Surroundings,
    *,
    options: Synthesis,
    numbers: Numbers,
    labelled: Array | None,
) -> Array:
    """Return the region of every pixel: a cluster, or one of the background.

    Args:
        labelled: regions of a background whose parts are labelled; None without.
    """
    classes = jnp.clip(label, 0, numbers.clusters // CLUSTERS - 1)
    empty = chance.background < options.empty_probability
    surrounded = chance.background < (
        options.empty_probability + options.surroundings_probability
    )
    background = label == 0
    inside = classes * CLUSTERS + clusters.place
    if labelled is not None:
        parts = jnp.any(background & (labelled != numbers.air))
        shown = parts & (chance.offset < _AIR)
        inside = jnp.where(background & shown, labelled, inside)
    if options.surroundings_probability:
        around = surroundings.regions(label > 0, numbers)
        inside = jnp.where(background & surrounded, around, inside)
    return jnp.where(background & empty, numbers.air, inside)


def _intensities(
    region: Array,
    clusters: Clusters,
    chance: _Chances,
    table: Array,
    noise: Array,
    options: Synthesis,
    numbers: Numbers,
    *,
    labels_only: bool,
) -> Array:
    """Give each pixel the mean of its region, and a texture.

    Most images keep a part of the texture of the real one, or all of it, and the
    regions around the classes have a smooth one: neither can be told by being flat. The
    others have noise. Where there is no real image, classes have a smooth texture too.
    """
    means = _means(clusters, chance, table, options, numbers)
    std = between(table[2], options.std).at[numbers.air].set(0.0)
    of_class = (region < numbers.clusters)[..., None]
    like_real = chance.contrast < options.like_real_probability
    own = like_real | (chance.texture < 0.3)
    kept = jnp.where(like_real, jnp.minimum(1.5 * chance.texture, 1.0), 1.0)
    span = _signed_span(chance, options)
    unit = (2 * math.sqrt(math.pi) * _GRAIN) ** ((noise.ndim - 1) / 2)
    smooth = unit * appearance.blurred(noise, jnp.asarray(_GRAIN))
    around = (_ROUGH * table[2]).at[numbers.air].set(0.0)
    real = std[region] * smooth if labels_only else span * clusters.texture
    texture = jnp.where(
        own,
        jnp.where(of_class, kept * real, around[region] * smooth),
        std[region] * noise,
    )
    return jnp.clip(means[region] + texture, 0.0, _BRIGHTEST)


def _signed_span(chance: _Chances, options: Synthesis) -> Array:
    """Draw the range of the classes' means; it is negative for a negative."""
    sign = jnp.where(chance.inverted < options.inverted_probability, -1.0, 1.0)
    return sign * (_LIGHTEST - between(chance.darkest, _DARKEST))


def _means(
    clusters: Clusters,
    chance: _Chances,
    table: Array,
    options: Synthesis,
    numbers: Numbers,
) -> Array:
    """Draw the mean intensity of each region and channel."""
    num_classes = len(clusters.means)
    # One class in each stratum of [0, 1]: few look alike.
    order = jnp.argsort(table[1, :num_classes], axis=0)
    any_contrast = (order + table[0, :num_classes]) / num_classes
    # Most are near the real one, a few are far.
    far = chance.stretch**2
    span = _signed_span(chance, options)
    like_real = (
        _LIGHTEST
        - jnp.abs(span) / 2
        + span * (1 - 0.4 * far * chance.offset) * (clusters.means - 0.5)
        + 0.3 * far * (table[0, :num_classes] - 0.5)
    )
    real = chance.contrast < options.like_real_probability
    of_class = jnp.repeat(jnp.where(real, like_real, any_contrast), CLUSTERS, axis=0)
    # In a fraction of the others the clusters of a class differ.
    apart = jnp.where(~real & (chance.apart < 0.5), chance.apart, 0.0)
    of_class += apart * (table[1, : numbers.clusters] - 0.5)
    means = table[0].at[: numbers.clusters].set(of_class)
    # Half of the innermost shells are as the class at the outline, which fluid may be.
    first = numbers.clusters
    fluid = of_class[clusters.outline * CLUSTERS]
    means = means.at[first].set(jnp.where(table[1, first] < 0.5, fluid, means[first]))
    dark = jnp.where(table[1, numbers.bone] < 0.75, 0.2, 1.0)  # as bone mostly is
    means = means.at[numbers.bone].multiply(dark)
    bright = jnp.where(table[1, numbers.bone + 1 :] > 0.7, _BRIGHTEST, 1.0)  # as fat
    means = means.at[numbers.bone + 1 :].multiply(bright)
    return jnp.clip(means, 0.02, _BRIGHTEST).at[numbers.air].set(0.0)
