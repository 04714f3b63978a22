"""Convolution, pooling, upsampling and norm, each in implementations of one function.

``"plain"`` is what XLA has a name for, and what TPU and GPU compilers are made for.
``"cpu"`` says the same with dense products, slices and element-wise operations, which
XLA's CPU compiler runs several times faster, above all backwards. ``"onednn"`` is that
with convolutions as XLA hands them to oneDNN, for programs that are compiled with the
options of `compilation.compiler_options`; without those they are slow. ``"tpu"`` is the
plain one of arrays as they are; the U-Net hands its stages to `packed_ops` there, with
pixels packed into channels. All give the same values and gradients up to rounding.
``choose_implementation`` is the one place that chooses; every function takes
``implementation`` to override it.
"""

import functools
import itertools
import math
from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from unet_jax.models.ops import cpu_onednn, cpu_planes, cpu_volumes

IMPLEMENTATIONS = ("cpu", "onednn", "tpu", "plain")


def choose_implementation(implementation: str | None) -> str:
    """Return the implementation to trace: the one given, or the default device's.

    Args:
        implementation: ``"cpu"``, ``"tpu"``, ``"plain"``, or None for what suits the
            default backend. Give it when compiling for another platform than that.

    Returns:
        One of ``IMPLEMENTATIONS``.

    Raises:
        ValueError: the implementation is not known.
    """
    if implementation is None:
        platform = jax.default_backend()
        return platform if platform in ("cpu", "tpu") else "plain"
    if implementation not in IMPLEMENTATIONS:
        raise ValueError(
            f"Unknown implementation {implementation!r}; expected one of "
            f"{IMPLEMENTATIONS}"
        )
    return implementation


def _for_cpu(implementation: str | None) -> bool:
    """Whether to trace what XLA's CPU compiler is good at."""
    return choose_implementation(implementation) in ("cpu", "onednn")


def convolve(
    x: Float[Array, "batch *spatial channels"],
    kernel: Float[Array, "*window channels features"],
    *,
    strides: Sequence[int] | None = None,
    padding: str = "SAME",
    implementation: str | None = None,
) -> Float[Array, "batch *out_spatial features"]:
    """Convolve over the spatial axes (cross-correlation, as in every such library).

    Args:
        x: input, channels last; 2-D or 3-D.
        kernel: weights, one window axis for each spatial axis; dtype of ``x``.
        strides: pixels between outputs on each spatial axis; None for 1.
        padding: ``"SAME"`` (zeros) or ``"VALID"``.
        implementation: see ``choose_implementation``.

    Returns:
        The convolved array in the dtype of ``x``.
    """
    window = kernel.shape[:-2]
    strides = tuple(strides) if strides is not None else (1,) * len(window)
    chosen = choose_implementation(implementation)
    if not _for_cpu(chosen):
        return _convolve_plain(x, kernel, strides=strides, padding=padding)
    if math.prod(window) == 1:
        x = x[:, *(slice(None, None, step) for step in strides)]
        return x @ kernel.reshape(kernel.shape[-2:])
    pads = tuple(lax.padtype_to_pads(x.shape[1:-1], window, strides, padding))
    if chosen == "onednn":
        return cpu_onednn.convolve(x, kernel, strides, pads)
    if len(window) == 3:
        return cpu_volumes.convolve_volumes(x, kernel, strides, pads)
    return cpu_planes.convolve_planes(x, kernel, strides, pads)


def _convolve_plain(x, kernel, *, strides, padding):
    """XLA's own convolution."""
    spatial = {2: "HW", 3: "DHW"}[x.ndim - 2]
    numbers = (f"N{spatial}C", f"{spatial}IO", f"N{spatial}C")
    return lax.conv_general_dilated(
        x, kernel, strides, padding, dimension_numbers=numbers
    )


def max_pool(
    x: Float[Array, "batch *spatial channels"],
    *,
    window: Sequence[int],
    implementation: str | None = None,
) -> Float[Array, "batch *out_spatial channels"]:
    """Take the largest value of each window; windows do not overlap.

    Args:
        x: input, channels last.
        window: size of the window on each spatial axis, which is also the stride. What
            is left at the end of an axis is dropped.
        implementation: see ``choose_implementation``.

    Returns:
        ``(batch, *(spatial // window), channels)``. Of equal values the first takes the
        gradient, in both implementations.
    """
    if not _for_cpu(implementation):
        dimensions = (1, *window, 1)
        return lax.reduce_window(x, -jnp.inf, lax.max, dimensions, dimensions, "VALID")
    counts = [size // step for size, step in zip(x.shape[1:-1], window, strict=True)]
    x = x[:, *(slice(n * step) for n, step in zip(counts, window, strict=True))]
    # (batch, out_0, window_0, out_1, window_1, ..., channels)
    split = itertools.chain(*zip(counts, window, strict=True))
    x = x.reshape(x.shape[0], *split, x.shape[-1])
    offsets = itertools.product(*(range(step) for step in window))
    corners = [
        x[:, *itertools.chain(*((slice(None), at) for at in offset))]
        for offset in offsets
    ]
    return functools.reduce(larger, corners)


def larger(
    first: Float[Array, "*shape"], second: Float[Array, "*shape"]
) -> Float[Array, "*shape"]:
    """Return the larger of two, NaN before all; the first where they are equal.

    ``jnp.maximum`` would halve the gradient between equal values, and constant
    background is all equal values.

    Args:
        first: values.
        second: others.
    """
    return jnp.where((first >= second) | jnp.isnan(first), first, second)


def up_convolve(
    x: Float[Array, "batch *spatial channels"],
    kernel: Float[Array, "*strides channels features"],
    *,
    implementation: str | None = None,
) -> Float[Array, "batch *out_spatial features"]:
    """Upsample by a transposed convolution whose stride is the size of its kernel.

    Args:
        x: input, channels last.
        kernel: weights; every input pixel becomes a block of the kernel's window size,
            and ``kernel[a, b]`` makes the pixel at (a, b) of the block.
        implementation: see ``choose_implementation``.

    Returns:
        ``(batch, *(spatial * strides), features)`` in the dtype of ``x``.
    """
    strides, (channels, features) = kernel.shape[:-2], kernel.shape[-2:]
    axes = tuple(range(len(strides)))
    if not _for_cpu(implementation):
        spatial = {2: "HW", 3: "DHW"}[x.ndim - 2]
        numbers = (f"N{spatial}C", f"{spatial}IO", f"N{spatial}C")
        # lax.conv_transpose reads the window backwards.
        return lax.conv_transpose(
            x, jnp.flip(kernel, axes), strides, "VALID", dimension_numbers=numbers
        )
    batch, *sizes = x.shape[:-1]
    rows = x.reshape(-1, channels) @ jnp.moveaxis(kernel, -2, 0).reshape(channels, -1)
    rows = _gather_gradient(rows)
    # Depth to space: (batch, *sizes, *strides, features) with each stride moved behind
    # the size that it multiplies.
    blocks = rows.reshape(batch, *sizes, *strides, features)
    order = itertools.chain(*((1 + a, 1 + len(axes) + a) for a in axes))
    blocks = blocks.transpose(0, *order, blocks.ndim - 1)
    grown = (size * step for size, step in zip(sizes, strides, strict=True))
    return blocks.reshape(batch, *grown, features)


@jax.custom_vjp
def _gather_gradient(x):
    """The identity, whose gradient is written to memory once before it is read.

    The two products that read it would each do the strided gathering for themselves.
    """
    return x


_gather_gradient.defvjp(
    lambda x: (x, None), lambda _, gradient: (lax.optimization_barrier(gradient),)
)


def resize_up(
    x: Float[Array, "batch *spatial channels"],
    *,
    factors: Sequence[int],
    implementation: str | None = None,
) -> Float[Array, "batch *out_spatial channels"]:
    """Upsample linearly, pixel centres aligned at half pixels, edges continued.

    Args:
        x: input, channels last.
        factors: whole-number factor on each spatial axis.
        implementation: see ``choose_implementation``.

    Returns:
        ``(batch, *(spatial * factors), channels)`` in the dtype of ``x``.
    """
    if not _for_cpu(implementation):
        grown = [n * step for n, step in zip(x.shape[1:-1], factors, strict=True)]
        return jax.image.resize(x, (x.shape[0], *grown, x.shape[-1]), "linear")
    for axis, factor in enumerate(factors, start=1):
        x = _resize_axis(x, axis=axis, factor=factor)
    return x


def _resize_axis(x, *, axis, factor):
    """Linear upsampling of one axis: each phase mixes a pixel with one neighbour."""
    size = x.shape[axis]
    before = lax.slice_in_dim(x, 0, 1, axis=axis)
    before = jnp.concatenate(
        [before, lax.slice_in_dim(x, 0, size - 1, axis=axis)], axis
    )
    after = lax.slice_in_dim(x, size - 1, size, axis=axis)
    after = jnp.concatenate([lax.slice_in_dim(x, 1, size, axis=axis), after], axis)
    shifts = [(phase + 0.5) / factor - 0.5 for phase in range(factor)]
    phases = [
        (1 - abs(shift)) * x + abs(shift) * (before if shift < 0 else after)
        for shift in shifts
    ]
    shape = (*x.shape[:axis], size * factor, *x.shape[axis + 1 :])
    return jnp.stack(phases, axis + 1).reshape(shape)


def group_norm(
    x: Float[Array, "batch *spatial channels"],
    scale: Float[Array, " channels"],
    bias: Float[Array, " channels"],
    *,
    groups: int,
    epsilon: float = 1e-5,
    implementation: str | None = None,
) -> Float[Array, "batch *spatial channels"]:
    """Standardise each sample and group of neighbouring channels, then scale and shift.

    Args:
        x: input, channels last; statistics are taken in float32 or better.
        scale: factor of each channel.
        bias: summand of each channel.
        groups: number of groups; one a channel is instance norm.
        epsilon: added to the variance.
        implementation: see ``choose_implementation``.

    Returns:
        The normalised array in the dtype of ``x``.

    Raises:
        ValueError: the channels do not divide into the groups.

    Source: Wu and He 2018, arXiv:1803.08494; Ulyanov et al. 2016, arXiv:1607.08022.
    """
    channels = x.shape[-1]
    grouped = (x.shape[0], groups, group_size(channels, groups))
    if not _for_cpu(implementation):
        values = wide(x).reshape(*x.shape[:-1], *grouped[1:])
        axes = (*range(1, x.ndim - 1), x.ndim)
        mean = values.mean(axes, keepdims=True)
        variance = values.var(axes, keepdims=True)
        values = (values - mean) * lax.rsqrt(variance + epsilon)
        return (values.reshape(x.shape) * scale + bias).astype(x.dtype)
    means, variances = (part.reshape(grouped) for part in _channel_moments(x))
    mean, variance = pool_moments(means, variances, axis=-1)
    return standardise(
        x,
        mean=jnp.repeat(mean, grouped[-1], axis=-1),
        variance=jnp.repeat(variance, grouped[-1], axis=-1),
        scale=scale,
        bias=bias,
        epsilon=epsilon,
        implementation="cpu",
    )


def group_size(channels: int, groups: int) -> int:
    """Return the channels of each group.

    Args:
        channels: of the array.
        groups: number of groups.

    Raises:
        ValueError: the channels do not divide into the groups.
    """
    if channels % groups:
        raise ValueError(f"{channels} channels do not divide into {groups} groups")
    return channels // groups


def batch_moments(
    x: Float[Array, "batch *spatial channels"],
    *,
    axis_name: str | None = None,
    implementation: str | None = None,
) -> tuple[Float[Array, " channels"], Float[Array, " channels"]]:
    """Mean and (biased) variance of each channel over batch and space.

    Args:
        x: input, channels last.
        axis_name: mapped axis whose devices hold equal parts of the batch; the moments
            are then those of the whole batch. None for one device.
        implementation: see ``choose_implementation``.

    Returns:
        Mean and variance in float32 or better, each ``(channels)``.

    Source: Ioffe and Szegedy 2015, arXiv:1502.03167.
    """
    if not _for_cpu(implementation):
        axes = tuple(range(x.ndim - 1))
        mean, variance = wide(x).mean(axes), wide(x).var(axes)
    else:
        mean, variance = pool_moments(*_channel_moments(x), axis=0)
    return synchronised(mean, variance, axis_name=axis_name)


def synchronised(
    mean: Float[Array, " channels"],
    variance: Float[Array, " channels"],
    *,
    axis_name: str | None,
) -> tuple[Float[Array, " channels"], Float[Array, " channels"]]:
    """Return the moments of the whole batch.

    Args:
        mean: of this device's part.
        variance: likewise.
        axis_name: mapped axis whose devices hold equal parts; None for one device.
    """
    if axis_name is None:
        return mean, variance
    devices = lax.psum(1, axis_name)
    pooled = lax.psum(mean, axis_name) / devices
    spread = lax.psum(variance + jnp.square(mean - pooled), axis_name)
    return pooled, spread / devices


def standardise(
    x: Float[Array, "batch *spatial channels"],
    *,
    mean: Float[Array, "*sample channels"],
    variance: Float[Array, "*sample channels"],
    scale: Float[Array, " channels"],
    bias: Float[Array, " channels"],
    epsilon: float = 1e-5,
    implementation: str | None = None,
) -> Float[Array, "batch *spatial channels"]:
    """Bring given moments to 0 and 1, then scale and shift.

    Args:
        x: input, channels last.
        mean: of each channel, or of each sample and channel.
        variance: likewise.
        scale: factor of each channel.
        bias: summand of each channel.
        epsilon: added to the variance.
        implementation: see ``choose_implementation``.

    Returns:
        The normalised array in the dtype of ``x``.
    """
    factor = lax.rsqrt(variance + epsilon)
    if not _for_cpu(implementation):
        values = (wide(x) - _over_space(mean, x)) * _over_space(factor, x)
        return (values * scale + bias).astype(x.dtype)
    factor = factor * scale
    shift = bias - mean * factor
    return (wide(x) * _over_space(factor, x) + _over_space(shift, x)).astype(x.dtype)


def _over_space(values, x):
    """(sample, channels) or (channels) as an array that broadcasts over space."""
    return values.reshape(*values.shape[:-1], *(1,) * (x.ndim - 2), values.shape[-1])


def wide(x: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
    """Return the values in float32 or better, for statistics.

    Args:
        x: in any dtype.
    """
    return x.astype(jnp.promote_types(x.dtype, jnp.float32))


def _channel_moments(x):
    """Mean and variance over space, (batch, channels), in one pass.

    The mean square minus the squared mean cancels where the mean is large, so the
    values are first shifted by one pixel of their own. The sum goes over rows, then
    along the last one: long unit-stride loops, and a shorter chain of roundings.
    """
    batch, *_, width, channels = x.shape
    count = math.prod(x.shape[1:-1])
    x = wide(x)
    pixel = lax.stop_gradient(x[:, *(slice(1),) * (x.ndim - 2)])
    rows = (x - pixel).reshape(batch, -1, width * channels)
    total, squares = (
        values.sum(1).reshape(batch, width, channels).sum(1) / count
        for values in (rows, jnp.square(rows))
    )
    variance = jnp.maximum(squares - jnp.square(total), 0.0)
    return total + pixel.reshape(batch, channels), variance


def pool_moments(
    means: Float[Array, "*parts"], variances: Float[Array, "*parts"], *, axis: int
) -> tuple[Float[Array, "*_"], Float[Array, "*_"]]:
    """Return the moments of the union of equally large parts.

    Args:
        means: of each part.
        variances: likewise.
        axis: along which the parts lie.
    """
    mean = means.mean(axis, keepdims=True)
    variance = (variances + jnp.square(means - mean)).mean(axis)
    return jnp.squeeze(mean, axis), variance
