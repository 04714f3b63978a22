"""SegResNet (Myronenko 2018, arXiv:1810.11654): a large encoder and a small decoder."""

from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float, Key

from unet_jax.models import blocks
from unet_jax.models.network import check_rank, pad_to_multiple

NORM_GROUPS = 8
"""Groups of every norm."""


class SegResNet(nn.Module):
    """Residual blocks with norm and activation first; 2-D or 3-D by its input.

    Stage ``i`` has ``features * 2**i`` channels on a grid ``2**i`` times as coarse.
    Skips are added, not concatenated. The variational branch of the paper is left out.
    Parameters and values are those of MONAI 1.6.1.

    Attributes:
        num_classes: channels of the logits.
        features: channels of the finest stage, a multiple of 8.
        encoder_blocks: number of residual blocks in each stage on the way down.
        decoder_blocks: number of residual blocks in each stage on the way up, finest
            first; one entry fewer.
        dropout: fraction of channels left out after the first convolution, in training.
        dtype: compute dtype; parameters are float32, logits float32 or better.
    """

    num_classes: int
    features: int = 32
    encoder_blocks: Sequence[int] = (1, 2, 2, 4)
    decoder_blocks: Sequence[int] = (1, 1, 1)
    dropout: float = 0.0
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
        total stride, and the logits are cropped back.

        Raises:
            ValueError: an attribute has a wrong length or value, or the input is
                neither 2-D nor 3-D.
        """
        self._check(x)
        spatial, stride = x.shape[1:-1], 2 ** (len(self.encoder_blocks) - 1)
        x = pad_to_multiple(x, (stride,) * len(spatial)).astype(self.dtype)
        x = self._decode(self._encode(x, train, keys))
        x = nn.relu(_norm("norm")(x, train=False))
        return blocks.pixel_logits(x, self.num_classes, spatial, self.dtype)

    def _encode(self, x, train, keys):
        """The output of each stage on the way down."""
        x = _convolution(self.features, x.ndim - 2, self.dtype, "stem")(x)
        dropout = blocks.ChannelDropout(rate=self.dropout, name="dropout")
        x = dropout(x, train=train, keys=keys)
        skips = []
        for stage, count in enumerate(self.encoder_blocks):
            if stage:
                x = self._down(x, stage)
            x = self._blocks(x, "encoder", stage, count)
            skips.append(x)
        return skips

    def _decode(self, skips):
        """The output of the finest stage on the way up."""
        *skips, x = skips
        for stage, skip in reversed(list(enumerate(skips))):
            x = blocks.Upsample(
                features=skip.shape[-1],
                factors=(2,) * (x.ndim - 2),
                kind="resize",
                dtype=self.dtype,
                name=f"upsample_{stage}",
            )(x)
            x = self._blocks(x + skip, "decoder", stage, self.decoder_blocks[stage])
        return x

    def _check(self, x):
        """Refuse attributes and inputs that do not go together."""
        check_rank(x)
        if self.features % NORM_GROUPS:
            raise ValueError(
                f"features is {self.features}; expected a multiple of {NORM_GROUPS}, "
                "the groups of the norm"
            )
        if len(self.decoder_blocks) != len(self.encoder_blocks) - 1:
            raise ValueError(
                f"decoder_blocks has {len(self.decoder_blocks)} entries; expected "
                f"{len(self.encoder_blocks) - 1}, one fewer than encoder_blocks"
            )

    def _down(self, x, stage):
        """A strided convolution to the next coarser grid."""
        axes = x.ndim - 2
        # "SAME" would leave out the first plane of zeros, and read one more at the end.
        x = jnp.pad(x, ((0, 0), *((1, 0),) * axes, (0, 0)))
        return blocks.Convolution(
            features=self.features * 2**stage,
            kernel_size=(3,) * axes,
            strides=(2,) * axes,
            padding="VALID",
            dtype=self.dtype,
            name=f"down_{stage}",
        )(x)

    def _blocks(self, x, side, stage, count):
        """The residual blocks of one stage."""
        for index in range(count):
            x = _Residual(dtype=self.dtype, name=f"{side}_{stage}_{index}")(x)
        return x


class _Residual(nn.Module):
    """Norm, activation and convolution, twice, and the input added."""

    dtype: Any

    @nn.compact
    def __call__(self, x):
        y = x
        for index in range(2):
            y = nn.relu(_norm(f"norm_{index}")(y, train=False))
            name = f"convolution_{index}"
            y = _convolution(x.shape[-1], x.ndim - 2, self.dtype, name)(y)
        return x + y


def _norm(name):
    """Group norm with 8 groups."""
    return blocks.Norm(kind="group", groups=NORM_GROUPS, name=name)


def _convolution(features, axes, dtype, name):
    """A convolution of kernel size 3 that keeps the grid."""
    return blocks.Convolution(
        features=features, kernel_size=(3,) * axes, dtype=dtype, name=name
    )
