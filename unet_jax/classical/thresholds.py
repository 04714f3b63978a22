"""Applies thresholds: fixed ones, Otsu's, and thresholds of the neighbourhood."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from scipy import ndimage
from skimage import filters

from unet_jax.classical.channels import channel_of, stored_channel
from unet_jax.classical.levels import fit_levels, levels_of
from unet_jax.classical.samples import Reference, Sample
from unet_jax.classical.search import Model, confusion, name_clusters

Field = Callable[[np.ndarray, np.ndarray], np.ndarray]
"""``(image (*spatial), inside (*spatial) bool) -> (*spatial)``: the values that are
compared with thresholds."""


def otsu_thresholds(values: np.ndarray, levels: int, bins: int = 256) -> np.ndarray:
    """Find the thresholds between which the values differ least (Otsu; multi-Otsu).

    They maximise the variance between the levels' means: two levels exactly, by trying
    each value; more by dynamic programming, between bins of a histogram where the
    values are many.

    Args:
        values: array of any shape.
        levels: number of levels, at least 2 and one more than thresholds.

    Returns:
        ``(levels - 1)`` ascending thresholds, fewer where there are fewer values. Each
        is a value that occurs, and the largest one that falls below it.

    Source:
        Otsu: A Threshold Selection Method from Gray-Level Histograms (1979); Liao,
        Chen and Chung: A Fast Algorithm for Multilevel Thresholding (2001).

    Example:
        >>> import numpy as np
        >>> otsu_thresholds(np.array([0, 1, 1, 8, 9, 9], np.uint8), levels=2)
        array([1.])
    """
    values = values[np.isfinite(values)]
    different, counts = np.unique(values, return_counts=True)
    different = different.astype(np.float64)
    if len(different) <= levels:
        return different[:-1]
    if levels == 2:
        weight = counts.cumsum()[:-1]
        moment = _moments(different, counts)[:-1]
        between = moment**2 / (weight * (values.size - weight))
        return different[[between.argmax()]]
    few = len(different) <= (2**12 if np.issubdtype(values.dtype, np.integer) else bins)
    return _optimal_cuts(different, counts, levels, len(different) if few else bins)


def _moments(different: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Sum the values up to each one, about their mean: an offset takes no digits."""
    centred = different - np.average(different, weights=counts)
    return (counts * centred).cumsum()


def _optimal_cuts(
    different: np.ndarray, counts: np.ndarray, levels: int, bins: int
) -> np.ndarray:
    """The cuts of ascending values that leave the least variance within levels.

    Fewer bins than values have equal widths.
    """
    ends = np.arange(1, len(different) + 1)
    if bins < len(different):
        edges = np.linspace(different[0], different[-1], bins + 1)[1:-1]
        found = np.searchsorted(different, edges, side="right")
        ends = np.unique([*found, len(different)])
    levels = min(levels, len(ends))
    weight = np.concatenate([[0.0], counts.cumsum()[ends - 1]])
    moment = np.concatenate([[0.0], _moments(different, counts)[ends - 1]])
    # gain[i, j]: what the bins from i to before j give as one level.
    mass = np.maximum(weight[None] - weight[:, None], 1)
    gain = np.triu((moment[None] - moment[:, None]) ** 2 / mass)
    gain[np.tril_indices(len(weight))] = -np.inf
    best, came = gain[0], []
    for _ in range(levels - 1):
        through = best[:, None] + gain
        came.append(through.argmax(axis=0))
        best = through.max(axis=0)
    end, cuts = len(ends), []
    for step in reversed(came):
        end = int(step[end])
        cuts.append(end)
    return different[ends[np.array(cuts[::-1]) - 1] - 1]


def adaptive_field(
    image: np.ndarray, inside: np.ndarray | None = None, *, window: int, method: str
) -> np.ndarray:
    """Subtract the weighted mean of the neighbourhood.

    ``field > -offset`` is ``image > threshold_local(image, window, offset=offset)`` of
    scikit-image, and OpenCV's ``adaptiveThreshold`` with ``C = offset``.

    Args:
        image: ``(*spatial)``.
        inside: pixels that count as neighbours; None for all.
        window: odd number of pixels of each axis.
        method: "gaussian" or "mean".

    Returns:
        ``(*spatial)`` float32.

    Source:
        Gonzalez and Woods: Digital Image Processing (4th ed., 2018), 10.3, variable
        thresholding.
    """
    image = image.astype(np.float64)

    def smooth(values: np.ndarray) -> np.ndarray:
        return filters.threshold_local(values, window, method=method, mode="reflect")

    if inside is None or inside.all():
        return (image - smooth(image)).astype(np.float32)
    weight = smooth(inside.astype(np.float64))
    local = smooth(image * inside) / np.where(inside, weight, 1)
    return np.where(inside, image - local, 0).astype(np.float32)


def niblack_field(
    image: np.ndarray, inside: np.ndarray | None = None, *, window: int
) -> np.ndarray:
    """Measure the distance from the local mean in local standard deviations.

    ``field > -k`` is ``image > mean - k * std``, Niblack's threshold.

    Args:
        image: ``(*spatial)``.

    Returns:
        ``(*spatial)`` float32; 0 where the neighbourhood is constant.

    Source:
        Niblack: An Introduction to Digital Image Processing (1986), 115-116.
    """
    image = image.astype(np.float64)
    mean, std = _local_moments(image, inside, window)
    flat = std <= 1e-6 * max(1.0, float(np.abs(image).max()))
    field = (image - mean) / np.where(flat, 1, std)
    return np.where(flat, 0, field).astype(np.float32)


def sauvola_field(
    image: np.ndarray, inside: np.ndarray | None = None, *, window: int, r: float
) -> np.ndarray:
    """Return -k for the k at which Sauvola's threshold equals each pixel.

    ``field > -k`` is ``image > mean * (1 + k * (std / r - 1))`` while the std stays
    below ``r``.

    Args:
        image: ``(*spatial)``, not negative.
        r: largest std to be expected: half of the range of values.

    Returns:
        ``(*spatial)`` float32; 0 where the local mean is zero.

    Source:
        Sauvola and Pietikainen: Adaptive document image binarization (2000), eq. 5.
    """
    image = image.astype(np.float64)
    mean, std = _local_moments(image, inside, window)
    # The slope of the threshold against k; its sign changes where the std exceeds r.
    slope = mean * np.maximum(1 - std / r, 1e-3)
    flat = slope <= 1e-9 * max(1.0, float(np.abs(image).max()))
    return np.where(flat, 0, (image - mean) / np.where(flat, 1, slope)).astype(
        np.float32
    )


def _local_moments(
    image: np.ndarray, inside: np.ndarray | None, window: int
) -> tuple[np.ndarray, np.ndarray]:
    """Return mean and std in a window, mirrored at the border as in scikit-image.

    scikit-image's integral images give the same twenty times as slowly in 3-D.
    """
    # Squares of differences from the mean keep the digits that a std needs.
    middle = float(image.mean())
    centred = image - middle

    def smooth(values: np.ndarray) -> np.ndarray:
        return ndimage.uniform_filter(values, window, mode="mirror")

    if inside is None or inside.all():
        mean, square = smooth(centred), smooth(centred**2)
    else:
        weight = np.where(inside, smooth(inside.astype(np.float64)), 1)
        mean = np.where(inside, smooth(centred * inside) / weight, centred)
        square = np.where(inside, smooth(centred**2 * inside) / weight, centred**2)
    return mean + middle, np.sqrt(np.maximum(square - mean**2, 0))


def make_leveled(
    pieces: Sequence[Sample],
    *,
    num_classes: int,
    field: Field,
    channel: int | str,
    mask: str,
    name: str,
    cuts: Sequence[float] | None = None,
    sign: int = 1,
    chosen: dict[str, Any],
) -> Model:
    """Fit cuts of a field, or name the levels between given ones.

    Args:
        channel: index of that channel, or "mean".
        mask: "nonzero" makes the pixels that are zero in all channels a level of their
            own, and no neighbours of others (for skull-stripped brains); "all" does
            not.
        name: name of the cuts among the chosen parameters.
        cuts: given cuts, in the sign of their name; None to fit them.
        sign: sign of named cuts relative to the field: -1 for offsets and k.

    Source:
        Gonzalez and Woods: Digital Image Processing (4th ed., 2018), 10.3; each field
        names its own.
    """

    def see(image: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        outside = _outside(image, mask)
        return field(channel_of(image, channel), ~outside), outside

    seen = [see(piece.image) for piece in pieces]
    labels = [piece.label for piece in pieces]
    outer = _name_outside([out for _, out in seen], labels, num_classes)
    # Pixels outside have their name already.
    inner = [np.where(o, -1, y) for (_, o), y in zip(seen, labels, strict=True)]
    if cuts is None:
        own, names = fit_levels([f for f, _ in seen], inner, num_classes)
    else:
        own = tuple(sorted(sign * float(cut) for cut in cuts))
        names = _name_levels([f for f, _ in seen], inner, own, num_classes)
    table = np.asarray(names, np.uint8)

    def predict(image: np.ndarray, spacing: Any, reference: Reference) -> np.ndarray:
        del spacing, reference
        values, outside = see(image)
        return np.where(outside, np.uint8(outer), table[levels_of(values, own)])

    shown = {**chosen, name: [sign * cut for cut in own], "classes": list(names)}
    if mask == "nonzero":
        shown["class_of_zero"] = outer
    return Model(predict, shown)


def make_otsu(
    pieces: Sequence[Sample],
    *,
    num_classes: int,
    levels: int,
    mask: str,
    scope: str,
    channel: int | str,
) -> Model:
    """Make global thresholds from the histogram (Otsu, multi-Otsu).

    Args:
        levels: number of levels of the histogram, without zero for "nonzero".
        mask: see `make_leveled`; "nonzero" leaves zeros out of the histogram.
        scope: "image" thresholds each image by its own histogram, "training" by that
            of all training images.

    Returns:
        The model; its levels are named after the class they overlap most in training.
    """

    def own(image: np.ndarray) -> np.ndarray:
        inside = ~_outside(image, mask)
        return otsu_thresholds(stored_channel(image, channel)[inside], levels)

    pooled = None
    if scope == "training":
        inside = [
            stored_channel(piece.image, channel)[~_outside(piece.image, mask)]
            for piece in pieces
        ]
        pooled = otsu_thresholds(np.concatenate(inside), levels)

    def cut(image: np.ndarray) -> np.ndarray:
        thresholds = own(image) if pooled is None else pooled
        values = levels_of(stored_channel(image, channel), tuple(thresholds))
        return np.where(_outside(image, mask), levels, values)

    counts = np.stack(
        [
            confusion(cut(piece.image), piece.label, (levels + 1, num_classes))
            for piece in pieces
        ]
    )
    table = name_clusters(counts).astype(np.uint8)

    def predict(image: np.ndarray, spacing: Any, reference: Reference) -> np.ndarray:
        del spacing, reference
        return table[cut(image)]

    shown: dict[str, Any] = {
        "levels": levels, "mask": mask, "scope": scope, "channel": channel,
        "classes": table[:levels].tolist(),
    }  # fmt: skip
    if mask == "nonzero":
        shown["class_of_zero"] = int(table[levels])
    # Each image has its own thresholds: their mean is shown.
    of_images = [own(piece.image) for piece in pieces] if pooled is None else [pooled]
    full = [cuts for cuts in of_images if len(cuts) == levels - 1]
    shown["thresholds"] = np.mean(full, axis=0).round(3).tolist() if full else []
    return Model(predict, shown)


def _outside(image: np.ndarray, mask: str) -> np.ndarray:
    """Tell where an image is zero in all channels, for "nonzero"."""
    if mask == "nonzero":
        return (image == 0).all(axis=-1)
    return np.zeros(image.shape[:-1], bool)


def _name_outside(
    outside: Sequence[np.ndarray], labels: Sequence[np.ndarray], num_classes: int
) -> int:
    """Return the class that most of the outer pixels have."""
    counts = sum(
        np.bincount(y[out & (y >= 0)], minlength=num_classes)
        for out, y in zip(outside, labels, strict=True)
    )
    return int(np.argmax(counts))


def _name_levels(
    fields: Sequence[np.ndarray],
    labels: Sequence[np.ndarray],
    cuts: tuple[float, ...],
    num_classes: int,
) -> tuple[int, ...]:
    """Name the levels between given cuts."""
    shape = (len(cuts) + 1, num_classes)
    counts = [
        confusion(levels_of(f, cuts), y, shape)
        for f, y in zip(fields, labels, strict=True)
    ]
    return tuple(name_clusters(np.stack(counts)).tolist())
