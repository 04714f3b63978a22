"""The parts of a U-Net: convolution, norm, dropout, and the stages made of them."""

import functools
import math
import zlib
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float, Key

from unet_jax.models import ops
from unet_jax.models.ops import packed_ops
from unet_jax.models.ops.packing import (
    Layout,
    Packed,
    as_packed,
    elementwise,
    pack,
    repack,
    unpack,
)

NORMS = ("instance", "group", "batch", "none")
ACTIVATIONS = ("leaky_relu", "relu")
BLOCKS = ("plain", "residual")
UPSAMPLES = ("transposed", "resize")
BATCH_NORM_MOMENTUM = 0.9
"""Share of the old running statistics that a training step keeps."""


def he_normal(
    key: Key[Array, ""], shape: Sequence[int], fan_in: int
) -> Float[Array, "..."]:
    """Draw float32 weights that keep the variance through a rectifier.

    Args:
        key: random key.
        shape: shape of the weights.
        fan_in: number of inputs that one output reads.

    Returns:
        Normal values cut at two standard deviations, of variance ``2 / fan_in``.

    Source: He et al. 2015, arXiv:1502.01852, eq. 10.
    """
    # Drawn flat: XLA's CPU compiler takes seconds over each small array of random
    # numbers with four axes, and a U-Net has dozens. The values are the same.
    flat = jax.random.truncated_normal(key, -2.0, 2.0, (math.prod(shape),), jnp.float32)
    # The cut leaves 0.8796 of the standard deviation.
    return flat.reshape(shape) * (math.sqrt(2.0 / fan_in) / 0.87962566103423978)


class Convolution(nn.Module):
    """Convolution of one or more inputs, as if their channels stood side by side.

    Attributes:
        features: output channels.
        window: kernel size on each spatial axis.
        strides: pixels between outputs on each spatial axis; None for 1.
        padding: ``"SAME"`` or ``"VALID"``.
        use_bias: add a bias; none where a norm follows, which would cancel it.
        dtype: compute dtype; the parameters are float32.
        implementation: see ``ops.choose_implementation``.
    """

    features: int
    window: Sequence[int]
    strides: Sequence[int] | None = None
    padding: str = "SAME"
    use_bias: bool = False
    dtype: Any = jnp.float32
    implementation: str | None = None

    @nn.compact
    def __call__(
        self,
        *inputs: Float[Array, "batch *spatial _"] | Packed,
        layout: Layout | None = None,
    ) -> Float[Array, "batch *out_spatial features"] | Packed:
        """Return the convolution of all channels, those of the first input first.

        With a layout the result is packed so; the inputs are packed in any one.
        """
        channels = sum(as_packed(x).channels for x in inputs)
        shape = (*self.window, channels, self.features)
        kernel = self.param("kernel", he_normal, shape, math.prod(shape[:-1]))
        bias = None
        if self.use_bias:
            bias = self.param("bias", nn.initializers.zeros, (self.features,))
        if layout is not None:
            packed = [as_packed(x) for x in inputs]
            packed = [x.with_values(x.values.astype(self.dtype)) for x in packed]
            y = packed_ops.convolve(packed, kernel, layout=layout, strides=self.strides)
            return y if bias is None else packed_ops.add_bias(y, bias)
        # A kernel split between the inputs instead would be no faster.
        x = jnp.concatenate([unpack(x).astype(self.dtype) for x in inputs], axis=-1)
        x = ops.convolve(
            x,
            kernel.astype(self.dtype),
            strides=self.strides,
            padding=self.padding,
            implementation=self.implementation,
        )
        return x if bias is None else x + bias.astype(x.dtype)


class Norm(nn.Module):
    """Instance, group, batch or no norm, with a learnt scale and bias per channel.

    Batch norm keeps running statistics in the collection ``batch_stats``. No norm has
    no scale and bias: its convolution has the bias.

    Attributes:
        kind: one of ``NORMS``.
        groups: number of groups of group norm.
        axis_name: mapped axis over which batch norm is synchronised.
        implementation: see ``ops.choose_implementation``.
    """

    kind: str
    groups: int = 8
    axis_name: str | None = None
    implementation: str | None = None

    @nn.compact
    def __call__(
        self, x: Float[Array, "batch *spatial channels"] | Packed, *, train: bool
    ) -> Float[Array, "batch *spatial channels"] | Packed:
        """Return the normalised input; in training, update the running statistics."""
        if self.kind == "none":
            return x
        channels = as_packed(x).channels
        scale = self.param("scale", nn.initializers.ones, (channels,))
        bias = self.param("bias", nn.initializers.zeros, (channels,))
        match self.kind:
            case "instance":
                groups = channels
            case "group":
                groups = self.groups
            case "batch":
                mean, variance = self._batch_moments(x, channels, train=train)
                moments = {"mean": mean, "variance": variance}
                if isinstance(x, Packed):
                    return packed_ops.standardise(x, **moments, scale=scale, bias=bias)
                return ops.standardise(
                    x,
                    **moments,
                    scale=scale,
                    bias=bias,
                    implementation=self.implementation,
                )
            case _:
                raise ValueError(f"Unknown norm {self.kind!r}; expected one of {NORMS}")
        if isinstance(x, Packed):
            return packed_ops.group_norm(x, scale, bias, groups=groups)
        return ops.group_norm(
            x, scale, bias, groups=groups, implementation=self.implementation
        )

    def _batch_moments(self, x, channels, *, train):
        """Moments of the batch in training, the running ones otherwise."""
        shape = (channels,)
        running_mean = self.variable("batch_stats", "mean", jnp.zeros, shape)
        running_variance = self.variable("batch_stats", "var", jnp.ones, shape)
        if not train:
            return running_mean.value, running_variance.value
        # Flax initialises outside of any mapped axis.
        axis_name = None if self.is_initializing() else self.axis_name
        if isinstance(x, Packed):
            moments = packed_ops.batch_moments(x, axis_name=axis_name)
        else:
            moments = ops.batch_moments(
                x, axis_name=axis_name, implementation=self.implementation
            )
        if not self.is_initializing():
            for running, new in zip(
                (running_mean, running_variance), moments, strict=True
            ):
                old = running.value
                mixed = BATCH_NORM_MOMENTUM * old + (1 - BATCH_NORM_MOMENTUM) * new
                running.value = mixed.astype(old.dtype)
        return moments


class ChannelDropout(nn.Module):
    """Leaves out whole channels in training, and scales the others up.

    Each example draws from its own key, so that its draws do not depend on the batch
    or the device that it stands in.

    Attributes:
        rate: share of channels that are left out.

    Source: Tompson et al. 2015, arXiv:1411.4280, section 3.3.
    """

    rate: float

    @nn.compact
    def __call__(
        self,
        x: Float[Array, "batch *spatial channels"] | Packed,
        *,
        train: bool,
        keys: Key[Array, " batch"] | None,
    ) -> Float[Array, "batch *spatial channels"] | Packed:
        """Return the input with some channels at zero."""
        if not train or not self.rate or self.is_initializing():
            return x
        if keys is None:
            raise ValueError(
                "dropout in training needs keys, one random key for each example"
            )
        place = zlib.crc32("/".join(self.path).encode()) & 0x7FFFFFFF
        packed = as_packed(x)

        def kept(key):
            key = jax.random.fold_in(key, place)
            return jax.random.uniform(key, (packed.channels,)) >= self.rate

        mask = jax.vmap(kept)(keys).astype(packed.values.dtype) / (1 - self.rate)
        dropped = packed_ops.scale_channels(packed, mask)
        return dropped if isinstance(x, Packed) else dropped.values


class Stage(nn.Module):
    """Convolutions at one resolution, each followed by norm, activation and dropout.

    ``block="plain"`` is a chain of them. ``"residual"`` adds the input of each pair to
    its output before the second activation (He et al. 2016, arXiv:1512.03385); where
    channels or size change the input goes through a 1x1 convolution and norm.

    Attributes:
        features: channels of every convolution.
        convolutions: number of convolutions; of residual blocks with two each.
        window: kernel size on each spatial axis.
        norm: one of ``NORMS``.
        norm_groups: number of groups of group norm.
        block: one of ``BLOCKS``.
        activation: one of ``ACTIVATIONS``; the leaky one has a slope of 0.01.
        strides: of the first convolution; None for 1.
        padding: ``"SAME"`` or ``"VALID"``.
        dropout: share of channels left out after each activation.
        dtype: compute dtype.
        axis_name: mapped axis over which batch norm is synchronised.
        implementation: see ``ops.choose_implementation``.
    """

    features: int
    convolutions: int
    window: Sequence[int]
    norm: str
    norm_groups: int
    block: str = "plain"
    activation: str = "leaky_relu"
    strides: Sequence[int] | None = None
    padding: str = "SAME"
    dropout: float = 0.0
    dtype: Any = jnp.float32
    axis_name: str | None = None
    implementation: str | None = None

    @nn.compact
    def __call__(
        self,
        *inputs: Float[Array, "batch *spatial _"] | Packed,
        train: bool,
        keys: Key[Array, " batch"] | None = None,
        layout: Layout | None = None,
    ) -> Float[Array, "batch *out_spatial features"] | Packed:
        """Return the features; several inputs are read side by side.

        With a layout all is packed, and the result in this layout.
        """
        if self.activation not in ACTIVATIONS:
            raise ValueError(
                f"Unknown activation {self.activation!r}; expected one of {ACTIVATIONS}"
            )
        match self.block:
            case "plain":
                for index in range(self.convolutions):
                    strides = self.strides if index == 0 else None
                    shift = index % 2 == 0 and index + 1 < self.convolutions
                    x = self._normed(
                        inputs,
                        self.window,
                        strides,
                        str(index),
                        train,
                        self._shifted(layout) if shift else layout,
                    )
                    inputs = (self._activated(x, str(index), train, keys),)
                return inputs[0]
            case "residual":
                for index in range(self.convolutions):
                    inputs = (self._residual(inputs, index, train, keys, layout),)
                return inputs[0]
            case _:
                raise ValueError(
                    f"Unknown block {self.block!r}; expected one of {BLOCKS}"
                )

    def _shifted(self, layout):
        """The layout between two convolutions, which saves both of them products.

        Where blocks begin as much earlier as the window reaches back, a block reads two
        blocks along an axis, and not three.
        """
        if layout is None:
            return None
        return layout.shifted(
            [
                (size - 1) // 2 if factor > 1 else 0
                for size, factor in zip(self.window, layout.factors, strict=True)
            ]
        )

    def _residual(self, inputs, index, train, keys, layout):
        """One residual block."""
        strides = self.strides if index == 0 else None
        shifted = self._shifted(layout)
        x = self._normed(inputs, self.window, strides, f"{index}_0", train, shifted)
        x = self._activated(x, f"{index}_0", train, keys)
        x = self._normed((x,), self.window, None, f"{index}_1", train, layout)
        channels = sum(as_packed(part).channels for part in inputs)
        if channels == self.features and strides is None and len(inputs) == 1:
            skip = repack(inputs[0], layout)
        else:
            point = (1,) * len(self.window)
            skip = self._normed(inputs, point, strides, f"{index}_skip", train, layout)
        # Without padding the block's output is the centre of what it came from.
        skip = centre_crop(skip, x)
        x = elementwise(jnp.add, x, skip)
        return self._activated(x, f"{index}_1", train, keys)

    def _normed(self, inputs, window, strides, name, train, layout):
        """A convolution and its norm."""
        x = Convolution(
            features=self.features,
            window=window,
            strides=strides,
            padding=self.padding,
            use_bias=self.norm == "none",
            dtype=self.dtype,
            implementation=self.implementation,
            name=f"convolution_{name}",
        )(*inputs, layout=layout)
        return Norm(
            kind=self.norm,
            groups=self.norm_groups,
            axis_name=self.axis_name,
            implementation=self.implementation,
            name=f"norm_{name}",
        )(x, train=train)

    def _activated(self, x, name, train, keys):
        """The activation and its dropout."""
        leaky = self.activation == "leaky_relu"
        x = elementwise(
            functools.partial(nn.leaky_relu, negative_slope=0.01) if leaky else nn.relu,
            x,
        )
        dropout = ChannelDropout(rate=self.dropout, name=f"dropout_{name}")
        return dropout(x, train=train, keys=keys)


class AttentionGate(nn.Module):
    """Weighs the pixels of a skip by what the coarser stage knows of them.

    Attributes:
        dtype: compute dtype.
        implementation: see ``ops.choose_implementation``.

    Source: Oktay et al. 2018, arXiv:1804.03999, eq. 1 and 2, with the gating signal
    already on the grid of the skip.
    """

    dtype: Any = jnp.float32
    implementation: str | None = None

    @nn.compact
    def __call__(
        self,
        skip: Float[Array, "batch *spatial channels"] | Packed,
        gate: Float[Array, "batch *spatial _"] | Packed,
    ) -> Float[Array, "batch *spatial channels"] | Packed:
        """Return the skip times weights between 0 and 1."""
        packed = as_packed(skip)
        point = (1,) * len(packed.layout.size)
        layout = packed.layout if isinstance(skip, Packed) else None

        def mixed(features, name, *inputs):
            return Convolution(
                features=features,
                window=point,
                use_bias=True,
                dtype=self.dtype,
                implementation=self.implementation,
                name=name,
            )(*inputs, layout=layout)

        hidden = mixed(max(1, packed.channels // 2), "hidden", skip, gate)
        weight = as_packed(mixed(1, "weight", elementwise(nn.relu, hidden)))
        weight = weight.with_values(nn.sigmoid(weight.values))
        weighed = packed_ops.weigh_pixels(packed, weight)
        return weighed if layout is not None else weighed.values


def centre_crop(
    x: Float[Array, "batch *spatial channels"] | Packed,
    other: Float[Array, "batch *out_spatial _"] | Packed,
) -> Float[Array, "batch *out_spatial channels"] | Packed:
    """Cut the centre out of an array, as large as another.

    Args:
        x: channels last.
        other: on each spatial axis at most as large as ``x``; as large, where packed.

    Returns:
        The centre; an odd rest leaves one pixel more at the end.
    """
    if isinstance(x, Packed) or isinstance(other, Packed):
        return x
    sizes = other.shape[1:-1]
    starts = [(old - new) // 2 for old, new in zip(x.shape[1:-1], sizes, strict=True)]
    places = [slice(at, at + n) for at, n in zip(starts, sizes, strict=True)]
    return x[:, *places]


class Upsample(nn.Module):
    """Learnt upsampling by whole factors.

    ``"transposed"`` is a transposed convolution whose kernel is as large as its stride;
    ``"resize"`` mixes the channels (1x1 convolution) and interpolates linearly. The two
    steps of the latter commute; mixing first works on fewer pixels.

    Attributes:
        features: output channels.
        factors: upsampling factor on each spatial axis.
        kind: one of ``UPSAMPLES``.
        use_bias: add a bias; none where a norm follows, one step on.
        dtype: compute dtype.
        implementation: see ``ops.choose_implementation``.
    """

    features: int
    factors: Sequence[int]
    kind: str
    use_bias: bool = False
    dtype: Any = jnp.float32
    implementation: str | None = None

    @nn.compact
    def __call__(
        self,
        x: Float[Array, "batch *spatial channels"] | Packed,
        *,
        layout: Layout | None = None,
    ) -> Float[Array, "batch *out_spatial features"] | Packed:
        """Return the input on the finer grid, packed in the layout if one is given."""
        x = self._upsampled(x, layout)
        if self.use_bias:
            bias = self.param("bias", nn.initializers.zeros, (self.features,))
            if isinstance(x, Packed):
                return packed_ops.add_bias(x, bias)
            x = x + bias.astype(x.dtype)
        return x

    def _upsampled(self, x, layout):
        """The input on the finer grid, before the bias."""
        channels = as_packed(x).channels
        factors = tuple(self.factors)
        match self.kind:
            case "transposed":
                window = factors
            case "resize":
                window = (1,) * len(factors)
            case _:
                raise ValueError(
                    f"Unknown upsample {self.kind!r}; expected one of {UPSAMPLES}"
                )
        # Each output pixel reads one tap, so the window is no part of the fan-in.
        shape = (*window, channels, self.features)
        kernel = self.param("kernel", he_normal, shape, channels)
        if self.kind == "transposed" and layout is not None:
            return packed_ops.up_convolve(as_packed(x), kernel, layout=layout)
        kernel, x = kernel.astype(self.dtype), unpack(x)
        if self.kind == "transposed":
            return ops.up_convolve(x, kernel, implementation=self.implementation)
        x = ops.convolve(x, kernel, implementation=self.implementation)
        x = ops.resize_up(x, factors=factors, implementation=self.implementation)
        return x if layout is None else pack(x, layout)
