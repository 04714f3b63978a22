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
from unet_jax.models.ops import Pixels

NORMS = ("instance", "group", "batch", "none")
ACTIVATIONS = ("leaky_relu", "relu")
BLOCKS = ("plain", "residual", "residual_d")
UPSAMPLES = ("transposed", "resize")
BATCH_NORM_MOMENTUM = 0.9
"""Fraction of the old running statistics that a training step keeps."""


def he_normal(
    key: Key[Array, ""], shape: Sequence[int], fan_in: int
) -> Float[Array, "..."]:
    """Draw float32 weights that keep the variance through a rectifier.

    They are normal, cut at two standard deviations, of variance ``2 / fan_in``, the
    number of inputs that one output reads.

    Source: He et al. 2015, arXiv:1502.01852, eq. 10.
    """
    # Drawn flat: XLA's CPU compiler takes seconds over each small array of random
    # numbers with four axes, and a U-Net has dozens. The values are the same.
    flat = jax.random.truncated_normal(key, -2.0, 2.0, (math.prod(shape),), jnp.float32)
    # The cut leaves 0.8796 of the standard deviation.
    return flat.reshape(shape) * (math.sqrt(2.0 / fan_in) / 0.87962566103423978)


def pixel_logits(
    x: Float[Array, "batch *_ features"],
    num_classes: int,
    spatial: Sequence[int],
    dtype: Any,
) -> Float[Array, "batch *spatial classes"]:
    """Mix features to logits by a layer ``head``, cropped to the size of the image.

    ``dtype`` is that of the network: logits in bfloat16 would have two digits left for
    the loss, so they are float32 or better.
    """
    dtype = jnp.promote_types(dtype, jnp.float32)
    logits = ops.as_array(nn.Dense(num_classes, dtype=dtype, name="head")(x))
    return logits[:, *map(slice, spatial)]


class Convolution(nn.Module):
    """Convolution of one or more inputs, as if their channels stood side by side.

    Attributes:
        strides: pixels between outputs on each spatial axis; None for 1.
        padding: ``"SAME"``, ``"CENTRED"`` or ``"VALID"``, see ``ops.convolve``.
        use_bias: add a bias; none where a norm follows, which would cancel it.
        followed: see ``ops.convolve``.
        dtype: compute dtype; the parameters are float32.
    """

    features: int
    kernel_size: Sequence[int]
    strides: Sequence[int] | None = None
    padding: str = "SAME"
    use_bias: bool = False
    followed: bool = False
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, *inputs: Pixels) -> Pixels:
        """Return the convolution of all channels, those of the first input first."""
        channels = sum(ops.channels_of(x) for x in inputs)
        shape = (*self.kernel_size, channels, self.features)
        kernel = self.param("kernel", he_normal, shape, math.prod(shape[:-1]))
        x = ops.convolve(
            [ops.cast(x, self.dtype) for x in inputs],
            kernel,
            strides=self.strides,
            padding=self.padding,
            followed=self.followed,
        )
        if not self.use_bias:
            return x
        bias = self.param("bias", nn.initializers.zeros, (self.features,))
        return ops.add_bias(x, bias)


class Norm(nn.Module):
    """Instance, group, batch or no norm, with a learnt scale and bias per channel.

    Batch norm keeps running statistics in the collection ``batch_stats``. No norm has
    no scale and bias: its convolution has the bias.

    Attributes:
        kind: one of ``NORMS``.
        groups: number of groups of group norm.
        initial_scale: value of the scale at the start of training.
        axis_name: mapped axis over which batch norm is synchronised.
    """

    kind: str
    groups: int = 8
    initial_scale: float = 1.0
    axis_name: str | None = None

    @nn.compact
    def __call__(self, x: Pixels, *, train: bool) -> Pixels:
        """Return the normalised input; in training, update the running statistics."""
        if self.kind == "none":
            return x
        channels = ops.channels_of(x)
        initial = nn.initializers.constant(self.initial_scale)
        scale = self.param("scale", initial, (channels,))
        bias = self.param("bias", nn.initializers.zeros, (channels,))
        match self.kind:
            case "instance":
                return ops.group_norm(x, scale, bias, groups=channels)
            case "group":
                return ops.group_norm(x, scale, bias, groups=self.groups)
            case "batch":
                mean, variance = self._batch_moments(x, channels, train=train)
                return ops.standardise(
                    x, mean=mean, variance=variance, scale=scale, bias=bias
                )
            case _:
                raise ValueError(f"Unknown norm {self.kind!r}; expected one of {NORMS}")

    def _batch_moments(self, x, channels, *, train):
        """Moments of the batch in training, the running ones otherwise."""
        shape = (channels,)
        running_mean = self.variable("batch_stats", "mean", jnp.zeros, shape)
        running_variance = self.variable("batch_stats", "var", jnp.ones, shape)
        if not train:
            return running_mean.value, running_variance.value
        if self.is_initializing():
            # Flax initialises outside of any mapped axis, and records nothing.
            return ops.batch_moments(x)
        moments = ops.batch_moments(x, axis_name=self.axis_name)
        for running, new in zip((running_mean, running_variance), moments, strict=True):
            old = running.value
            mixed = BATCH_NORM_MOMENTUM * old + (1 - BATCH_NORM_MOMENTUM) * new
            running.value = mixed.astype(old.dtype)
        return moments


class ChannelDropout(nn.Module):
    """Leaves out whole channels in training, and scales the others up.

    Each example draws from its own key, so that its draws do not depend on the batch
    or the device that it stands in.

    Attributes:
        rate: fraction of channels that are left out.

    Source: Tompson et al. 2015, arXiv:1411.4280, section 3.3.
    """

    rate: float

    @nn.compact
    def __call__(
        self, x: Pixels, *, train: bool, keys: Key[Array, " batch"] | None
    ) -> Pixels:
        """Return the input with some channels at zero."""
        if not train or not self.rate or self.is_initializing():
            return x
        if keys is None:
            raise ValueError(
                "dropout in training needs keys, one random key for each example"
            )
        place = zlib.crc32("/".join(self.path).encode()) & 0x7FFFFFFF

        def kept(key):
            key = jax.random.fold_in(key, place)
            return jax.random.uniform(key, (ops.channels_of(x),)) >= self.rate

        mask = jax.vmap(kept)(keys).astype(x.dtype) / (1 - self.rate)
        return ops.scale_channels(x, mask)


class Stage(nn.Module):
    """Convolutions at one resolution, each followed by norm, activation and dropout.

    ``block="plain"`` is a chain of them. ``"residual"`` adds the input of each pair to
    its output before the second activation (He et al. 2016, arXiv:1512.03385); where
    channels or size change the input goes through a 1x1 convolution and norm.
    ``"residual_d"`` is ResNet-D's: where the size changes the input is pooled to its
    mean, and the convolution and norm follow only where channels change. The second
    norm's scale starts at 0, as nnU-Net's (He et al. 2019, arXiv:1812.01187, figure 2c
    and section 3.1). The attributes that are not named here are those of `UNet`.

    Attributes:
        convolutions: number of convolutions; of residual blocks with two each.
        activation: one of ``ACTIVATIONS``; the leaky one has a slope of 0.01.
        strides: pixels between outputs of the first convolution; None for 1.
        padding: see `Convolution`.
    """

    features: int
    convolutions: int
    kernel_size: Sequence[int]
    norm: str
    norm_groups: int
    block: str = "plain"
    activation: str = "leaky_relu"
    strides: Sequence[int] | None = None
    padding: str = "SAME"
    dropout: float = 0.0
    dtype: Any = jnp.float32
    axis_name: str | None = None

    @nn.compact
    def __call__(
        self, *inputs: Pixels, train: bool, keys: Key[Array, " batch"] | None = None
    ) -> Pixels:
        """Return the features; several inputs are read side by side."""
        if self.activation not in ACTIVATIONS:
            raise ValueError(
                f"Unknown activation {self.activation!r}; expected one of {ACTIVATIONS}"
            )
        match self.block:
            case "plain":
                for index in range(self.convolutions):
                    strides = self.strides if index == 0 else None
                    # Every second one has the next one after it, but for the last.
                    followed = index % 2 == 0 and index + 1 < self.convolutions
                    x = self._normed(
                        inputs, strides, str(index), train, followed=followed
                    )
                    inputs = (self._activated(x, str(index), train, keys),)
                return inputs[0]
            case "residual" | "residual_d":
                for index in range(self.convolutions):
                    inputs = (self._residual(inputs, index, train, keys),)
                return inputs[0]
            case _:
                raise ValueError(
                    f"Unknown block {self.block!r}; expected one of {BLOCKS}"
                )

    def _residual(self, inputs, index, train, keys):
        """One residual block."""
        strides = self.strides if index == 0 else None
        x = self._normed(inputs, strides, f"{index}_0", train, followed=True)
        x = self._activated(x, f"{index}_0", train, keys)
        pools = self.block == "residual_d"
        x = self._normed(
            (x,), None, f"{index}_1", train, initial_scale=0.0 if pools else 1.0
        )
        if pools and strides is not None:
            inputs = [ops.average_pool(part, window=strides) for part in inputs]
            strides = None
        channels = sum(ops.channels_of(part) for part in inputs)
        if channels == self.features and strides is None and len(inputs) == 1:
            skip = inputs[0]
        else:
            one = (1,) * len(self.kernel_size)
            skip = self._normed(inputs, strides, f"{index}_skip", train, size=one)
        # Without padding the block's output is the centre of what it came from.
        x = ops.add(x, ops.centre_crop(skip, x))
        return self._activated(x, f"{index}_1", train, keys)

    def _normed(
        self,
        inputs,
        strides,
        name,
        train,
        *,
        size=None,
        followed=False,
        initial_scale=1.0,
    ):
        """A convolution, of this kernel size or another, and its norm."""
        x = Convolution(
            features=self.features,
            kernel_size=size or self.kernel_size,
            strides=strides,
            padding=self.padding,
            use_bias=self.norm == "none",
            followed=followed,
            dtype=self.dtype,
            name=f"convolution_{name}",
        )(*inputs)
        return Norm(
            kind=self.norm,
            groups=self.norm_groups,
            initial_scale=initial_scale,
            axis_name=self.axis_name,
            name=f"norm_{name}",
        )(x, train=train)

    def _activated(self, x, name, train, keys):
        """The activation and its dropout."""
        leaky = self.activation == "leaky_relu"
        x = ops.elementwise(
            functools.partial(nn.leaky_relu, negative_slope=0.01) if leaky else nn.relu,
            x,
        )
        dropout = ChannelDropout(rate=self.dropout, name=f"dropout_{name}")
        return dropout(x, train=train, keys=keys)


class AttentionGate(nn.Module):
    """Weights the pixels of a skip by the features of the coarser stage.

    Source: Oktay et al. 2018, arXiv:1804.03999, eq. 1 and 2, with the gating signal
    already on the grid of the skip.
    """

    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, skip: Pixels, gate: Pixels) -> Pixels:
        """Return the skip times weights between 0 and 1."""

        def mixed(features, name, *inputs):
            return Convolution(
                features=features,
                kernel_size=(1,) * (skip.ndim - 2),
                use_bias=True,
                dtype=self.dtype,
                name=name,
            )(*inputs)

        hidden = max(1, ops.channels_of(skip) // 2)
        x = ops.elementwise(nn.relu, mixed(hidden, "hidden", skip, gate))
        return ops.gate_pixels(skip, mixed(1, "weight", x))


class Upsample(nn.Module):
    """Learnt upsampling by whole factors, one for each spatial axis.

    ``"transposed"`` is a transposed convolution whose kernel is as large as its stride;
    ``"resize"`` mixes the channels (1x1 convolution) and interpolates linearly. Where a
    norm follows, one step on, it cancels a bias but for the pixels whose convolution
    reads zeros outside of the image.
    """

    features: int
    factors: Sequence[int]
    kind: str
    use_bias: bool = False
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: Pixels) -> Pixels:
        """Return the input on the finer grid."""
        factors = tuple(self.factors)
        match self.kind:
            case "transposed":
                size = factors
            case "resize":
                size = (1,) * len(factors)
            case _:
                raise ValueError(
                    f"Unknown upsample {self.kind!r}; expected one of {UPSAMPLES}"
                )
        channels = ops.channels_of(x)
        # Each output pixel reads one tap, so the kernel size is no part of the fan-in.
        shape = (*size, channels, self.features)
        kernel = self.param("kernel", he_normal, shape, channels)
        x = ops.cast(x, self.dtype)
        if self.kind == "transposed":
            x = ops.up_convolve(x, kernel)
        else:
            x = ops.mix_and_resize(x, kernel, factors=factors)
        if not self.use_bias:
            return x
        bias = self.param("bias", nn.initializers.zeros, (self.features,))
        return ops.add_bias(x, bias)
