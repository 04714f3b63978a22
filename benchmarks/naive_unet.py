"""A U-Net made of Flax's own layers, which `tpu_cycles` compares ours with."""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn


class NaiveUNet(nn.Module):
    """The layers of `unet_jax.models.unet.UNet`, each by Flax's name for it.

    Attributes:
        num_classes: channels of the logits.
        features: channels of each stage, finest first.
        convolutions_per_stage: convolutions, or residual blocks, on the way down.
        decoder_convolutions: convolutions of each stage of the decoder.
        block: ``"plain"`` or ``"residual"``.
        downsample: ``"max_pool"`` or ``"strided"``.
        norm: ``"batch"`` or ``"instance"``.
        deep_supervision: coarser stages of the decoder that give logits too.
        dtype: compute dtype.
        axis_name: mapped axis over which batch norm is synchronised.
    """

    num_classes: int
    features: Sequence[int]
    convolutions_per_stage: Sequence[int]
    decoder_convolutions: Sequence[int]
    block: str = "plain"
    downsample: str = "max_pool"
    norm: str = "batch"
    deep_supervision: int = 0
    dtype: Any = jnp.bfloat16
    axis_name: str | None = None

    @nn.compact
    def __call__(
        self, x: jax.Array, *, train: bool = False, keys: Any = None
    ) -> jax.Array | tuple[jax.Array, ...]:
        """Return the logits of every pixel; of several stages in training.

        Args:
            x: image ``(batch, *spatial, channels)`` of a size that divides.
            train: batch norm uses the statistics of this batch.
            keys: not used; there is no dropout.
        """
        x = x.astype(self.dtype)
        two = (2,) * (x.ndim - 2)
        skips = []
        for index, features in enumerate(self.features):
            stride = 1
            if index and self.downsample == "max_pool":
                x = nn.max_pool(x, two, two)
            elif index:
                stride = 2
            x = self._stage(
                x, features, self.convolutions_per_stage[index], stride, train
            )
            skips.append(x)
        logits = []
        for index in reversed(range(len(self.features) - 1)):
            x = nn.ConvTranspose(
                self.features[index], two, two, use_bias=False, dtype=self.dtype
            )(x)
            x = jnp.concatenate([skips[index], x], axis=-1)
            x = self._stage(
                x, self.features[index], self.decoder_convolutions[index], 1, train
            )
            if index <= self.deep_supervision:
                point = (1,) * (x.ndim - 2)
                head = nn.Conv(self.num_classes, point, dtype=jnp.float32)
                logits.insert(0, head(x))
        return tuple(logits) if train and self.deep_supervision else logits[0]

    def _stage(self, x, features, count, stride, train):
        """Convolutions, or residual blocks, at one resolution."""
        for index in range(count):
            step = stride if index == 0 else 1
            if self.block == "plain":
                x = self._activated(self._normed(x, features, 3, step, train))
                continue
            y = self._activated(self._normed(x, features, 3, step, train))
            y = self._normed(y, features, 3, 1, train)
            if x.shape[-1] != features or step != 1:
                x = self._normed(x, features, 1, step, train)
            x = self._activated(x + y)
        return x

    def _normed(self, x, features, window, stride, train):
        """A convolution and its norm."""
        axes = x.ndim - 2
        x = nn.Conv(
            features,
            (window,) * axes,
            (stride,) * axes,
            use_bias=False,
            dtype=self.dtype,
        )(x)
        if self.norm == "instance":
            return nn.InstanceNorm(epsilon=1e-5, dtype=self.dtype)(x)
        return nn.BatchNorm(
            use_running_average=not train,
            momentum=0.9,
            epsilon=1e-5,
            dtype=self.dtype,
            axis_name=None if self.is_initializing() else self.axis_name,
        )(x)

    def _activated(self, x):
        """The activation."""
        return nn.leaky_relu(x, 0.01)
