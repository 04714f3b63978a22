"""The parts of a U-Net: convolution, norm, and the stage made of both."""

from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float

from unet_jax.models import ops

NORMS = ("instance", "group", "batch")
BATCH_NORM_MOMENTUM = 0.9
"""Share of the old running statistics that a training step keeps."""

he_normal = nn.initializers.he_normal()


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
        kernel = self.param("kernel", he_normal, shape).astype(self.dtype)
        x = ops.convolve(x, kernel, formulation=self.formulation)
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
        kind: ``"transposed"`` or ``"resize"``.
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
        factors = tuple(self.factors)
        axes = tuple(range(len(factors)))
        if self.kind == "transposed":
            # Each output pixel reads one tap, so the window is no part of the fan-in.
            initialise = nn.initializers.he_normal(batch_axis=axes)
            shape = (*factors, x.shape[-1], self.features)
            kernel = self.param("kernel", initialise, shape).astype(self.dtype)
            return ops.up_convolve(x, kernel, formulation=self.formulation)
        if self.kind == "resize":
            shape = (*(1 for _ in axes), x.shape[-1], self.features)
            kernel = self.param("kernel", he_normal, shape).astype(self.dtype)
            x = ops.convolve(x, kernel, formulation=self.formulation)
            return ops.resize_up(x, factors=factors, formulation=self.formulation)
        raise ValueError(
            f"Unknown upsample {self.kind!r}; expected one of ('transposed', 'resize')"
        )
