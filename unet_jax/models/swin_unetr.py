"""Swin UNETR (Hatamizadeh et al. 2022, arXiv:2201.01266): attention in shifted windows.

An encoder of Swin transformers (Liu et al. 2021, arXiv:2103.14030) and a convolutional
decoder that reads its hidden states.
"""

import itertools
import math
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jaxtyping import Array, Float, Key, Shaped

from unet_jax.models import blocks, ops
from unet_jax.models.network import check_rank, pad_to_multiple

MLP_RATIO = 4
"""Factor from the channels of a block to those inside of its perceptron."""
OTHER_REGION = -100.0
"""Added to the attention between pixels that only the shift brought together."""


class SwinUNETR(nn.Module):
    """Transformer encoder and convolutional decoder; 2-D or 3-D by its input.

    Parameters and values are those of MONAI 1.6.1 with its default options.

    Attributes:
        num_classes: channels of the logits.
        features: channels of the patch embedding; stage ``i`` has ``2**i`` times more.
        depths: number of transformer blocks in each stage; every other one is shifted.
        heads: number of attention heads in each stage.
        window_size: pixels of an attention window along every axis.
        dtype: compute dtype; parameters are float32, logits float32 or better.
    """

    num_classes: int
    features: int = 48
    depths: Sequence[int] = (2, 2, 2, 2)
    heads: Sequence[int] = (3, 6, 12, 24)
    window_size: int = 7
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(
        self,
        x: Float[Array, "batch *spatial channels"],
        *,
        train: bool = False,
        keys: Key[Array, " batch"] | None = None,
    ) -> Float[Array, "batch *spatial classes"]:
        """Return the logits of every pixel; see `network.Network`.

        An image of any size is padded with its last pixels up to a multiple of the
        total stride, and the logits are cropped back. ``train`` and
        ``keys`` are not used.

        Raises:
            ValueError: an attribute has a wrong length or value, or the input is
                neither 2-D nor 3-D.
        """
        self._check(x)
        spatial, stride = x.shape[1:-1], 2 ** (len(self.depths) + 1)
        x = pad_to_multiple(x, (stride,) * len(spatial)).astype(self.dtype)
        x = self._decode(x, self._hidden_states(x))
        return blocks.pixel_logits(x, self.num_classes, spatial, self.dtype)

    def _decode(self, x, states):
        """The features of every pixel of the image, from all hidden states."""
        # The image, the embedding and the stages but the last two go through a block.
        skips = [self._residual(self.features, "encoder_0")(x)]
        for level, state in enumerate(states[:-2], start=1):
            skips.append(self._residual(state.shape[-1], f"encoder_{level}")(state))
        skips.append(states[-2])
        x = self._residual(states[-1].shape[-1], f"encoder_{len(skips)}")(states[-1])
        for level, skip in reversed(list(enumerate(skips))):
            x = blocks.Upsample(
                features=skip.shape[-1],
                factors=(2,) * (x.ndim - 2),
                kind="transposed",
                dtype=self.dtype,
                name=f"upsample_{level}",
            )(x)
            x = jnp.concatenate([x, skip], axis=-1)
            x = self._residual(skip.shape[-1], f"decoder_{level}")(x)
        return x

    def _check(self, x):
        """Refuse attributes and inputs that do not go together."""
        check_rank(x)
        if len(self.heads) != len(self.depths):
            raise ValueError(
                f"heads has {len(self.heads)} entries; expected {len(self.depths)}, "
                "one for each entry of depths"
            )
        for stage, heads in enumerate(self.heads):
            channels = self.features * 2**stage
            if channels % heads:
                raise ValueError(
                    f"heads is {tuple(self.heads)}; expected that {heads} divides the "
                    f"{channels} channels of stage {stage}"
                )

    def _hidden_states(self, x):
        """The patch embedding and the output of each stage, normalised."""
        axes = x.ndim - 2
        patches = blocks.Convolution(
            features=self.features,
            kernel_size=(2,) * axes,
            strides=(2,) * axes,
            padding="VALID",
            use_bias=True,
            dtype=self.dtype,
            name="embedding",
        )
        x = patches(x)
        states = [_layer_norm(self.dtype, "norm", learnt=False)(x)]
        for stage, (depth, heads) in enumerate(
            zip(self.depths, self.heads, strict=True)
        ):
            for index in range(depth):
                x = _SwinBlock(
                    heads=heads,
                    window_size=self.window_size,
                    shifted=index % 2 == 1,
                    dtype=self.dtype,
                    name=f"stage_{stage}_{index}",
                )(x)
            x = _Merge(dtype=self.dtype, name=f"merge_{stage}")(x)
            states.append(_layer_norm(self.dtype, f"norm_{stage}", learnt=False)(x))
        return states

    def _residual(self, features, name):
        """A residual block of convolutions."""
        return _Residual(features=features, dtype=self.dtype, name=name)


def _layer_norm(dtype, name, *, learnt=True):
    """Layer norm over the channels, with or without scale and bias."""
    return nn.LayerNorm(
        epsilon=1e-5,
        dtype=dtype,
        use_scale=learnt,
        use_bias=learnt,
        use_fast_variance=False,
        name=name,
    )


def _linear(features, dtype, name, *, use_bias=True):
    """A linear layer with the initial weights of the Swin transformer."""
    return nn.Dense(
        features,
        use_bias=use_bias,
        dtype=dtype,
        kernel_init=nn.initializers.truncated_normal(0.02),
        name=name,
    )


class _Residual(nn.Module):
    """Two convolutions with instance norm, and the input added to their output."""

    features: int
    dtype: Any

    @nn.compact
    def __call__(self, x):
        y = nn.leaky_relu(self._normed(x, 3, "convolution_0"), 0.01)
        y = self._normed(y, 3, "convolution_1")
        if x.shape[-1] != self.features:
            x = self._normed(x, 1, "skip")
        return nn.leaky_relu(x + y, 0.01)

    def _normed(self, x, size, name):
        """A convolution, and instance norm without scale and bias."""
        x = blocks.Convolution(
            features=self.features,
            kernel_size=(size,) * (x.ndim - 2),
            dtype=self.dtype,
            name=name,
        )(x)
        scale, bias = jnp.ones(self.features), jnp.zeros(self.features)
        return ops.group_norm(x, scale, bias, groups=self.features)


class _Merge(nn.Module):
    """Halve the grid: the pixels of a block side by side, normalised, then mixed."""

    dtype: Any

    @nn.compact
    def __call__(self, x):
        axes, features = x.ndim - 2, 2 * x.shape[-1]
        # In the order of MONAI: by the number of steps, earlier axes first.
        corners = sorted(
            itertools.product((1, 0), repeat=axes),
            key=lambda corner: (sum(corner), [-step for step in corner]),
        )
        x = jnp.concatenate(
            [x[:, *(slice(step, None, 2) for step in corner)] for corner in corners],
            axis=-1,
        )
        x = _layer_norm(self.dtype, "norm")(x)
        return _linear(features, self.dtype, "reduction", use_bias=False)(x)


class _SwinBlock(nn.Module):
    """Window attention, then a perceptron, each with norm and residual path."""

    heads: int
    window_size: int
    shifted: bool
    dtype: Any

    @nn.compact
    def __call__(self, x):
        channels = x.shape[-1]
        y = _layer_norm(self.dtype, "norm_0")(x)
        x = x + self._attended(y)
        y = _layer_norm(self.dtype, "norm_1")(x)
        y = _linear(MLP_RATIO * channels, self.dtype, "expand")(y)
        y = jax.nn.gelu(y, approximate=False)
        return x + _linear(channels, self.dtype, "compress")(y)

    def _attended(self, x):
        """Attention within each window of the grid."""
        grid = x.shape[1:-1]
        axes = tuple(range(1, x.ndim - 1))
        window = tuple(min(self.window_size, size) for size in grid)
        pads = [(0, -size % extent) for size, extent in zip(grid, window, strict=True)]
        x = jnp.pad(x, ((0, 0), *pads, (0, 0)))
        padded = x.shape[1:-1]
        # A grid that one window covers is not shifted.
        shift = tuple(
            self.window_size // 2 if self.shifted and size > self.window_size else 0
            for size in grid
        )
        mask = None
        if any(shift):
            x = jnp.roll(x, [-step for step in shift], axes)
            mask = shift_mask(padded, window, shift)
        attention = _WindowAttention(
            heads=self.heads,
            window_size=self.window_size,
            dtype=self.dtype,
            name="attention",
        )
        x = from_windows(
            attention(to_windows(x, window), mask, len(axes)), window, padded
        )
        if any(shift):
            x = jnp.roll(x, shift, axes)
        return x[:, *map(slice, grid)]


class _WindowAttention(nn.Module):
    """Self-attention of the pixels of a window, with a bias for each offset."""

    heads: int
    window_size: int
    dtype: Any

    @nn.compact
    def __call__(self, x, mask, axes):
        pixels, channels = x.shape[-2:]
        size = channels // self.heads
        table = self.param(
            "relative_position_bias",
            nn.initializers.truncated_normal(0.02),
            ((2 * self.window_size - 1) ** axes, self.heads),
        )
        mixed = _linear(3 * channels, self.dtype, "query_key_value")(x)
        mixed = mixed.reshape(*x.shape[:-1], 3, self.heads, size)
        query, key, value = (mixed[..., part, :, :] for part in range(3))
        wide = jnp.promote_types(self.dtype, jnp.float32)
        scores = jnp.einsum("bwqhc,bwkhc->bwhqk", query / math.sqrt(size), key)
        # A window on a small grid has the first rows of the whole window's table, as in
        # the published code: these are not its pixels' own relative positions.
        index = relative_positions(self.window_size, axes)[:pixels, :pixels]
        scores = scores.astype(wide) + jnp.moveaxis(table[index], -1, 0)
        if mask is not None:
            scores = scores + mask[:, None]
        weights = jax.nn.softmax(scores, axis=-1).astype(self.dtype)
        x = jnp.einsum("bwhqk,bwkhc->bwqhc", weights, value)
        return _linear(channels, self.dtype, "projection")(x.reshape(*x.shape[:3], -1))


def relative_positions(window_size: int, axes: int) -> np.ndarray:
    """Return the row of the table of biases for each pair of pixels of a window.

    Returns:
        Integers ``(pixels, pixels)``, in ``[0, (2 * window_size - 1) ** axes)``.

    Source: Liu et al. 2021, arXiv:2103.14030, eq. 4.
    """
    places = np.indices((window_size,) * axes).reshape(axes, -1)
    offsets = places[:, :, None] - places[:, None, :] + window_size - 1
    return np.ravel_multi_index(tuple(offsets), (2 * window_size - 1,) * axes)


def shift_mask(
    grid: Sequence[int], window: Sequence[int], shift: Sequence[int]
) -> np.ndarray:
    """Return what keeps pixels apart that the shift of the grid brought together.

    The grid, a multiple of the window, was rolled backwards by ``shift`` pixels.

    Returns:
        float32 ``(windows, pixels, pixels)``, 0 or `OTHER_REGION`, to be added.
    """
    region = np.zeros(tuple(grid), np.int32)
    for axis, (size, extent, step) in enumerate(zip(grid, window, shift, strict=True)):
        if step:
            along = np.zeros(size, np.int32)
            along[-extent:] = 1
            along[-step:] = 2
            region = 3 * region + np.expand_dims(
                along, tuple(other for other in range(len(grid)) if other != axis)
            )
    regions = to_windows(region[None, ..., None], window)[0, ..., 0]
    apart = regions[:, :, None] != regions[:, None, :]
    return np.where(apart, np.float32(OTHER_REGION), np.float32(0))


def to_windows(
    x: Shaped[Array | np.ndarray, "batch *grid channels"], window: Sequence[int]
) -> Shaped[Array | np.ndarray, "batch windows pixels channels"]:
    """Cut a grid, which the window divides, into windows; all in C order."""
    batch, *grid, channels = x.shape
    axes = len(grid)
    split = itertools.chain(
        *((size // extent, extent) for size, extent in zip(grid, window, strict=True))
    )
    x = x.reshape(batch, *split, channels)
    order = (*range(1, 2 * axes, 2), *range(2, 2 * axes + 1, 2))
    x = x.transpose(0, *order, 2 * axes + 1)
    return x.reshape(batch, -1, math.prod(window), channels)


def from_windows(
    x: Shaped[Array | np.ndarray, "batch windows pixels channels"],
    window: Sequence[int],
    grid: Sequence[int],
) -> Shaped[Array | np.ndarray, "batch *grid channels"]:
    """Put the windows of `to_windows` back together."""
    axes = len(grid)
    counts = [size // extent for size, extent in zip(grid, window, strict=True)]
    x = x.reshape(x.shape[0], *counts, *window, x.shape[-1])
    order = itertools.chain(*((1 + axis, 1 + axes + axis) for axis in range(axes)))
    x = x.transpose(0, *order, 2 * axes + 1)
    return x.reshape(x.shape[0], *grid, x.shape[-1])
