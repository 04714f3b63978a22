"""The parts of a U-Net: convolution, norm, and the stage made of both."""

import math
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float, Key

from unet_jax.models import ops

NORMS = ("instance", "group", "batch")
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
        use_bias: add a bias; none where a norm follows, which would cancel it.
        dtype: compute dtype; the parameters are float32.
        formulation: see ``ops.choose_formulation``.
    """

    features: int
    window: Sequence[int]
    use_bias: bool = False
    dtype: Any = jnp.float32
    formulation: str | None = None

    @nn.compact
    def __call__(
        self, *inputs: Float[Array, "batch *spatial _"]
    ) -> Float[Array, "batch *spatial features"]:
        """Return the convolution of all channels, those of the first input first."""
        # A kernel split between the inputs instead would be no faster.
        x = jnp.concatenate([x.astype(self.dtype) for x in inputs], axis=-1)
        shape = (*self.window, x.shape[-1], self.features)
        kernel = self.param("kernel", he_normal, shape, math.prod(shape[:-1]))
        x = ops.convolve(x, kernel.astype(self.dtype), formulation=self.formulation)
        if self.use_bias:
            bias = self.param("bias", nn.initializers.zeros, (self.features,))
            x = x + bias.astype(x.dtype)
        return x


class Norm(nn.Module):
    """Instance, group or batch norm with a learnt scale and bias per channel.

    Batch norm keeps running statistics in the collection ``batch_stats``.

    Attributes:
        kind: one of ``NORMS``.
        groups: number of groups of group norm.
        axis_name: mapped axis over which batch norm is synchronised.
        formulation: see ``ops.choose_formulation``.
    """

    kind: str
    groups: int = 8
    axis_name: str | None = None
    formulation: str | None = None

    @nn.compact
    def __call__(
        self, x: Float[Array, "batch *spatial channels"], *, train: bool
    ) -> Float[Array, "batch *spatial channels"]:
        """Return the normalised input; in training, update the running statistics."""
        channels = x.shape[-1]
        scale = self.param("scale", nn.initializers.ones, (channels,))
        bias = self.param("bias", nn.initializers.zeros, (channels,))
        match self.kind:
            case "instance":
                groups = channels
            case "group":
                groups = self.groups
            case "batch":
                mean, variance = self._batch_moments(x, train=train)
                return ops.standardise(
                    x,
                    mean=mean,
                    variance=variance,
                    scale=scale,
                    bias=bias,
                    formulation=self.formulation,
                )
            case _:
                raise ValueError(f"Unknown norm {self.kind!r}; expected one of {NORMS}")
        return ops.group_norm(
            x, scale, bias, groups=groups, formulation=self.formulation
        )

    def _batch_moments(self, x, *, train):
        """Moments of the batch in training, the running ones otherwise."""
        shape = (x.shape[-1],)
        running_mean = self.variable("batch_stats", "mean", jnp.zeros, shape)
        running_variance = self.variable("batch_stats", "var", jnp.ones, shape)
        if not train:
            return running_mean.value, running_variance.value
        # Flax initialises outside of any mapped axis.
        axis_name = None if self.is_initializing() else self.axis_name
        moments = ops.batch_moments(
            x, axis_name=axis_name, formulation=self.formulation
        )
        if not self.is_initializing():
            for running, new in zip(
                (running_mean, running_variance), moments, strict=True
            ):
                old = running.value
                mixed = BATCH_NORM_MOMENTUM * old + (1 - BATCH_NORM_MOMENTUM) * new
                running.value = mixed.astype(old.dtype)
        return moments


class Stage(nn.Module):
    """Convolutions at one resolution, each followed by norm and leaky ReLU (0.01).

    Attributes:
        features: channels of every convolution.
        convolutions: number of convolutions.
        window: kernel size on each spatial axis.
        norm: one of ``NORMS``.
        norm_groups: number of groups of group norm.
        dtype: compute dtype.
        axis_name: mapped axis over which batch norm is synchronised.
        formulation: see ``ops.choose_formulation``.
    """

    features: int
    convolutions: int
    window: Sequence[int]
    norm: str
    norm_groups: int
    dtype: Any = jnp.float32
    axis_name: str | None = None
    formulation: str | None = None

    @nn.compact
    def __call__(
        self, *inputs: Float[Array, "batch *spatial _"], train: bool
    ) -> Float[Array, "batch *spatial features"]:
        """Return the features; several inputs are read side by side."""
        for index in range(self.convolutions):
            x = Convolution(
                features=self.features,
                window=self.window,
                dtype=self.dtype,
                formulation=self.formulation,
                name=f"convolution_{index}",
            )(*inputs)
            x = Norm(
                kind=self.norm,
                groups=self.norm_groups,
                axis_name=self.axis_name,
                formulation=self.formulation,
                name=f"norm_{index}",
            )(x, train=train)
            inputs = (nn.leaky_relu(x, 0.01),)
        return inputs[0]


class Upsample(nn.Module):
    """Learnt upsampling by whole factors, with no bias (a norm follows, one step on).

    ``"transposed"`` is a transposed convolution whose kernel is as large as its stride;
    ``"resize"`` mixes the channels (1x1 convolution) and interpolates linearly. The two
    steps of the latter commute; mixing first works on fewer pixels.

    Attributes:
        features: output channels.
        factors: upsampling factor on each spatial axis.
        kind: one of ``UPSAMPLES``.
        dtype: compute dtype.
        formulation: see ``ops.choose_formulation``.
    """

    features: int
    factors: Sequence[int]
    kind: str
    dtype: Any = jnp.float32
    formulation: str | None = None

    @nn.compact
    def __call__(
        self, x: Float[Array, "batch *spatial channels"]
    ) -> Float[Array, "batch *out_spatial features"]:
        """Return the input on the finer grid."""
        channels = x.shape[-1]
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
        kernel = kernel.astype(self.dtype)
        if self.kind == "transposed":
            return ops.up_convolve(x, kernel, formulation=self.formulation)
        x = ops.convolve(x, kernel, formulation=self.formulation)
        return ops.resize_up(x, factors=factors, formulation=self.formulation)
