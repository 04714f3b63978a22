"""MedNeXt (Roy et al. 2023, arXiv:2303.09975): a U-Net of ConvNeXt blocks."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float, Key

from unet_jax.models import blocks, ops
from unet_jax.models.network import Outputs, check_rank, pad_to_multiple


class MedNeXt(nn.Module):
    """Encoder and decoder of depthwise convolutions; 2-D or 3-D by its input.

    Stage ``i`` has ``features * 2**i`` channels on a grid ``2**i`` times as coarse.
    Skips are added, not concatenated. Parameters, values and deep supervision are those
    of MONAI 1.6.1.

    Attributes:
        num_classes: channels of the logits.
        features: channels of the finest stage.
        kernel_size: kernel size of the depthwise convolutions on every axis, odd.
        expansions: factor on the channels inside of the blocks of each stage, finest
            first, of encoder and decoder.
        blocks_per_stage: number of blocks in each stage of encoder and decoder.
        deep_supervision: number of coarser stages that give logits too, in training;
            the paper has all of them.
        dtype: compute dtype; parameters are float32, logits float32 or better.
    """

    num_classes: int
    features: int = 32
    kernel_size: int = 3
    expansions: Sequence[int] = (2, 2, 2, 2, 2)
    blocks_per_stage: Sequence[int] = (2, 2, 2, 2, 2)
    deep_supervision: int = 0
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(
        self,
        x: Float[Array, "batch *spatial channels"],
        *,
        train: bool = False,
        keys: Key[Array, " batch"] | None = None,
    ) -> Float[Array, "batch *spatial classes"] | Outputs:
        """Return the logits of every pixel; see `network.Network`.

        An image of any size is padded with its last pixels up to a multiple of the
        total stride, and the logits are cropped back. ``keys`` are not used.

        Returns:
            Logits ``(batch, *spatial, num_classes)``. In training with deep supervision
            `Outputs`, whose deep logits are on ``ceil(spatial / 2**i)``.

        Raises:
            ValueError: an attribute has a wrong length or value, or the input is
                neither 2-D nor 3-D.
        """
        self._check(x)
        spatial, coarsest = x.shape[1:-1], len(self.expansions) - 1
        x = pad_to_multiple(x, (2**coarsest,) * len(spatial))
        x = _dense(self.features, self.dtype, "stem")(x)
        skips = []
        for stage in range(coarsest):
            x = self._blocks(x, "encoder", stage)
            skips.append(x)
            x = self._block(stage, stage + 1, "down", name=f"down_{stage}")(x)
        x = self._blocks(x, "bottleneck", coarsest)
        logits = [self._logits(x, coarsest, spatial, train)]
        for stage in reversed(range(coarsest)):
            x = self._block(stage, stage, "up", name=f"up_{stage}")(x) + skips[stage]
            x = self._blocks(x, "decoder", stage)
            logits.insert(0, self._logits(x, stage, spatial, train))
        if train and self.deep_supervision:
            return Outputs(logits[0], tuple(logits[1 : self.deep_supervision + 1]))
        return logits[0]

    def adapted(self, params: Mapping[str, Any]) -> dict[str, Any]:
        """Return parameters of a MedNeXt with other kernels as this one starts from.

        Args:
            params: parameters of the other network.
        """
        return upkern(params, kernel_size=self.kernel_size)

    def _check(self, x):
        """Refuse attributes and inputs that do not go together."""
        check_rank(x)
        if self.kernel_size % 2 == 0:
            raise ValueError(
                f"kernel_size is {self.kernel_size}; expected an odd number"
            )
        stages = len(self.expansions)
        if len(self.blocks_per_stage) != stages:
            raise ValueError(
                f"blocks_per_stage has {len(self.blocks_per_stage)} entries; expected "
                f"{stages}, one for each entry of expansions"
            )
        if not 0 <= self.deep_supervision < stages:
            raise ValueError(
                f"deep_supervision is {self.deep_supervision}; expected 0 to "
                f"{stages - 1}, the coarser of {stages} stages"
            )

    def _block(self, stage, target, kind, name):
        """A block with the expansion of one stage, and the channels of another."""
        return _Block(
            features=self.features * 2**target,
            expansion=self.expansions[stage],
            kernel_size=self.kernel_size,
            kind=kind,
            dtype=self.dtype,
            name=name,
        )

    def _blocks(self, x, side, stage):
        """The blocks of one stage that keep its grid."""
        for index in range(self.blocks_per_stage[stage]):
            name = f"{side}_{stage}_{index}"
            x = self._block(stage, stage, "plain", name=name)(x)
        return x

    def _logits(self, x, stage, spatial, train):
        """The logits of one stage, cropped to the image; None where none are wanted."""
        wanted = stage <= self.deep_supervision and (train or self.is_initializing())
        if stage and not wanted:
            return None
        name = f"head_{stage}" if stage else "head"
        # Logits in bfloat16 would have two digits left for the loss.
        dtype = jnp.promote_types(self.dtype, jnp.float32)
        logits = ops.as_array(_dense(self.num_classes, dtype, name)(x))
        return logits[:, *(slice(-(-size // 2**stage)) for size in spatial)]


class _Block(nn.Module):
    """Depthwise convolution, norm, and two layers that mix the channels."""

    features: int
    expansion: int
    kernel_size: int
    kind: str
    dtype: Any

    @nn.compact
    def __call__(self, x):
        channels, axes = x.shape[-1], x.ndim - 2
        window = (self.kernel_size,) * axes
        kernel = self.param("kernel", _initial, (*window, 1, channels))
        bias = self.param("bias", nn.initializers.zeros, (channels,))
        if self.kind == "up":
            inner = ops.depthwise_up_convolve(x, kernel)
        else:
            stride = 2 if self.kind == "down" else 1
            inner = ops.depthwise_convolve(x, kernel, stride=stride)
        inner = inner + bias.astype(inner.dtype)
        inner = blocks.Norm(kind="instance", name="norm")(inner, train=False)
        inner = _dense(self.expansion * channels, self.dtype, "expand")(inner)
        inner = jax.nn.gelu(inner, approximate=False)
        inner = _dense(self.features, self.dtype, "compress")(inner)
        match self.kind:
            case "down":
                x = jax.lax.slice(x, (0,) * x.ndim, x.shape, (1, *(2,) * axes, 1))
                return inner + _dense(self.features, self.dtype, "resample")(x)
            case "up":
                inner = inner + _Spread(self.features, self.dtype, name="resample")(x)
                # The first plane of each axis has the skip alone.
                return jnp.pad(inner, ((0, 0), *((1, 0),) * axes, (0, 0)))
            case _:
                return inner + x


class _Spread(nn.Module):
    """Transposed convolution of stride 2 whose kernel has one pixel."""

    features: int
    dtype: Any

    @nn.compact
    def __call__(self, x):
        kernel = self.param("kernel", _initial, (x.shape[-1], self.features))
        bias = self.param("bias", nn.initializers.zeros, (self.features,))
        x = x @ kernel.astype(self.dtype)
        gaps = ((0, 0, 0), *((0, 0, 1),) * (x.ndim - 2), (0, 0, 0))
        x = jax.lax.pad(x, jnp.zeros((), x.dtype), gaps)
        return x + bias.astype(self.dtype)


def _dense(features, dtype, name):
    """A convolution of single pixels."""
    return nn.Dense(features, dtype=dtype, kernel_init=_initial, name=name)


def _initial(key, shape, dtype=jnp.float32):
    """Weights that keep the variance, of a dense layer or a depthwise convolution."""
    # `he_normal` gives twice the variance, for a rectifier: hence the factor 2.
    return blocks.he_normal(key, shape, 2 * math.prod(shape[:-1])).astype(dtype)


def upkern(params: Mapping[str, Any], *, kernel_size: int) -> dict[str, Any]:
    """Enlarge the depthwise kernels of a trained MedNeXt, to train on with large ones.

    Args:
        params: parameters of a `MedNeXt` with smaller kernels.
        kernel_size: kernel size of the other network on every axis.

    Returns:
        Parameters for the network with larger kernels that is else the same: depthwise
        kernels interpolated linearly along each axis (pixel centres at half pixels,
        edges continued), everything else as it is.

    Source: Roy et al. 2023, arXiv:2303.09975, section 2.3 (UpKern).
    """

    def enlarged(leaf):
        axes = leaf.ndim - 2
        shape = (*(kernel_size,) * axes, *leaf.shape[-2:])
        if axes < 2 or leaf.shape == shape:  # no convolution, or as large already
            return leaf
        return jax.image.resize(leaf, shape, "linear", antialias=False)

    return jax.tree.map(enlarged, dict(params))
