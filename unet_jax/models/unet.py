"""The U-Net (Ronneberger et al. 2015, arXiv:1505.04597) for pictures and volumes."""

from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float, Key

from unet_jax.models import blocks, ops
from unet_jax.models.network import Outputs, check_rank, pad_to_multiple
from unet_jax.models.sizes import Counts, Pyramid, Sizes, stage_counts, stage_sizes

DOWNSAMPLES = ("max_pool", "strided", "centred")
PADDINGS = ("SAME", "VALID")


class UNet(nn.Module):
    """Encoder, decoder and skips; 2-D or 3-D by the rank of its input.

    Stage ``i`` works on a coarser grid than stage ``i - 1``. ``decoder_i`` works on the
    grid of ``encoder_i``: it reads the skip beside what ``upsample_i`` brings up from
    below. The skip's rows come first in ``decoder_i/convolution_0/kernel``.

    Attributes:
        num_classes: channels of the logits.
        features: channels of each stage, finest first.
        convolutions_per_stage: convolutions in each stage on either side, or one number
            per stage; residual blocks of two where ``block`` is not ``"plain"``.
        decoder_convolutions: the same for the stages on the way up; None for those on
            the way down.
        kernel_sizes: None for 3, or one entry per stage, each a number or one per axis.
        strides: None for 2, or one such entry per transition between stages.
        block: ``"plain"``, ``"residual"`` or ``"residual_d"``, see `blocks.Stage`.
        decoder_block: block of the stages on the way up; None for ``block``.
        stem: one plain convolution before the first stage.
        downsample: ``"max_pool"``, or strided first convolutions of the stages:
            ``"centred"`` ones with zeros before and behind the image, as in PyTorch and
            nnU-Net, or ``"strided"`` ones with zeros behind it.
        attention: gates on the skips.
        deep_supervision: how many coarser stages of the decoder give logits too, in
            training.
        dropout: fraction of channels left out after each activation, in training; one
            number, or one for each stage.
        padding: ``"SAME"``, or ``"VALID"`` for no padding: logits of those pixels alone
            whose surroundings the input holds.
        norm: ``"instance"``, ``"group"``, ``"batch"`` or ``"none"``; follows each
            convolution.
        norm_groups: groups of group norm; divides every entry of ``features``.
        activation: ``"leaky_relu"`` or ``"relu"``.
        upsample: ``"transposed"`` or ``"resize"``.
        upsample_bias: add a bias to what is upsampled, also before a norm, as nnU-Net's
            plans do; near the edges of the image the norm does not cancel it. It is
            always added where there is no norm.
        dtype: compute dtype; parameters are float32, logits float32 or better.
        axis_name: mapped axis over which batch norm is synchronised; None for none.
    """

    num_classes: int
    features: Sequence[int]
    convolutions_per_stage: Counts = 2
    decoder_convolutions: Counts | None = None
    kernel_sizes: Sequence[Sizes] | None = None
    strides: Sequence[Sizes] | None = None
    block: str = "plain"
    decoder_block: str | None = None
    stem: bool = False
    downsample: str = "max_pool"
    attention: bool = False
    deep_supervision: int = 0
    dropout: float | Sequence[float] = 0.0
    padding: str = "SAME"
    norm: str = "instance"
    norm_groups: int = 8
    activation: str = "leaky_relu"
    upsample: str = "transposed"
    upsample_bias: bool = False
    dtype: Any = jnp.float32
    axis_name: str | None = None

    @nn.compact
    def __call__(
        self,
        x: Float[Array, "batch *spatial channels"],
        *,
        train: bool = False,
        keys: Key[Array, " batch"] | None = None,
    ) -> Float[Array, "batch *_ classes"] | Outputs:
        """Return the logits of every pixel.

        Args:
            x: image, channels last, of any size: the last pixel of an axis is repeated
                up to a multiple of the total stride, and the logits are cropped back.
                Without padding only some sizes fit, see `sizes`.
            train: batch norm uses, and records, the statistics of this batch; dropout
                and deep supervision are on.
            keys: a random key for each example, for dropout.

        Returns:
            Logits ``(batch, *spatial, num_classes)``, smaller without padding. In
            training with deep supervision `Outputs`, whose deep logits are on
            ``ceil(spatial / total stride of their stage)``.

        Raises:
            ValueError: an attribute has a wrong length or an unknown name, or the input
                is neither 2-D nor 3-D, or of a size that does not fit.
        """
        self._check(x)
        sizes = self.sizes(x.ndim - 2)
        grids = [sizes.output_size(x.shape[1:-1])]
        for step in sizes.strides[: self.deep_supervision]:
            grids.append(
                tuple(-(-n // k) for n, k in zip(grids[-1], step, strict=True))
            )
        x = x.astype(self.dtype)
        first: ops.Pixels = x
        if self.padding == "SAME":
            padded = pad_to_multiple(x, sizes.total_stride)
            first = ops.arranged(padded, features=self.features[0])
        outputs = self._encode(first, sizes, train, keys)
        decoded = self._decode(outputs, sizes, train, keys)
        supervised = train or self.is_initializing()
        logits = [
            self._logits(x, index, sizes.axes)[:, *map(slice, grid)]
            for index, (x, grid) in enumerate(zip(decoded, grids, strict=False))
            if supervised or index == 0
        ]
        if train and self.deep_supervision:
            return Outputs(logits[0], tuple(logits[1:]))
        return logits[0]

    def sizes(self, axes: int) -> Pyramid:
        """Return which input sizes fit, by the number of spatial axes.

        Raises:
            ValueError: an attribute has a wrong length.
        """
        stages = len(self.features)
        down, up = (
            tuple(count if block == "plain" else 2 * count for count in counts)
            for block, counts in zip(self._blocks(), self._counts(), strict=True)
        )
        down = (down[0] + int(self.stem), *down[1:])
        return Pyramid(
            kernel_sizes=stage_sizes(
                "kernel_sizes", self.kernel_sizes, 3, stages, axes
            ),
            strides=stage_sizes("strides", self.strides, 2, stages - 1, axes),
            down=down,
            up=up,
            padding=self.padding,
        )

    def _blocks(self):
        """Kind of the blocks on the way down and up."""
        return self.block, self.decoder_block or self.block

    def _counts(self):
        """Convolutions, or residual blocks, of each stage on the way down and up."""
        stages, up = len(self.features), self.decoder_convolutions
        down = stage_counts(
            "convolutions_per_stage", self.convolutions_per_stage, stages
        )
        if up is None:
            return down, down[:-1]
        return down, stage_counts("decoder_convolutions", up, stages - 1)

    def _check(self, x):
        """Refuse attributes that do not go together, and inputs of another rank."""
        check_rank(x)
        for name, value, known in (
            ("downsample", self.downsample, DOWNSAMPLES),
            ("padding", self.padding, PADDINGS),
        ):
            if value not in known:
                raise ValueError(f"Unknown {name} {value!r}; expected one of {known}")
        for name in (
            "features",
            "convolutions_per_stage",
            "decoder_convolutions",
            "kernel_sizes",
            "strides",
        ):
            value = getattr(self, name)
            if not all(isinstance(one, int) and one > 0 for one in _numbers(value)):
                raise ValueError(f"{name} is {value}; expected whole numbers above 0")
        if not all(0 <= rate < 1 for rate in _numbers(self.dropout)):
            raise ValueError(
                f"dropout is {self.dropout}; expected a fraction from 0 to below 1, or "
                "one for each stage"
            )
        coarser = max(0, len(self.features) - 2)
        if not 0 <= self.deep_supervision <= coarser:
            raise ValueError(
                f"deep_supervision is {self.deep_supervision}; expected at most "
                f"{coarser}, the coarser decoder stages of {len(self.features)} stages"
            )
        if self.padding == "VALID" and (
            self.deep_supervision or self.downsample != "max_pool"
        ):
            raise ValueError(
                "padding 'VALID' goes with max_pool and without deep_supervision"
            )

    def _encode(self, x, sizes, train, keys):
        """The output of each stage on the way down."""
        outputs = []
        if self.stem:
            x = self._stage("stem", 0, sizes, None)(x, train=train, keys=keys)
        for index in range(len(self.features)):
            step = sizes.strides[index - 1] if index else None
            if step is not None and self.downsample == "max_pool":
                x, step = ops.max_pool(x, window=step), None
            x = self._stage("encoder", index, sizes, step)(x, train=train, keys=keys)
            outputs.append(x)
        return outputs

    def _decode(self, outputs, sizes, train, keys):
        """The output of each stage on the way up, finest first."""
        x, decoded = outputs[-1], []
        for index in reversed(range(len(self.features) - 1)):
            upsampled = self._upsample(index, sizes.strides[index])(x)
            skip = ops.centre_crop(outputs[index], upsampled)
            if self.attention:
                skip = blocks.AttentionGate(
                    dtype=self.dtype, name=f"attention_{index}"
                )(skip, upsampled)
            stage = self._stage("decoder", index, sizes, None)
            x = stage(skip, upsampled, train=train, keys=keys)
            decoded.insert(0, x)
        return decoded or [x]

    def _stage(self, side, index, sizes, strides):
        """The stem, or the stage of one resolution, on the way down or up."""
        stages = len(self.features)
        dropout = self.dropout
        if not isinstance(dropout, int | float):
            if len(dropout) != stages:
                raise ValueError(
                    f"dropout has {len(dropout)} entries; expected {stages}, one for "
                    "each entry of features"
                )
            # Per stage it is that of the way down: the paper's end of the contraction.
            dropout = dropout[index] if side == "encoder" else 0.0
        (down, up), (block, decoder_block) = self._counts(), self._blocks()
        match side:
            case "stem":
                block, convolutions = "plain", 1
            case "encoder":
                convolutions = down[index]
            case _:
                block, convolutions = decoder_block, up[index]
        return blocks.Stage(
            features=self.features[index],
            convolutions=convolutions,
            kernel_size=sizes.kernel_sizes[index],
            norm=self.norm,
            norm_groups=self.norm_groups,
            block=block,
            activation=self.activation,
            strides=strides,
            padding="CENTRED" if self.downsample == "centred" else self.padding,
            dropout=dropout,
            dtype=self.dtype,
            axis_name=self.axis_name,
            name="stem" if side == "stem" else f"{side}_{index}",
        )

    def _upsample(self, index, factors):
        """What brings the stage below onto the grid of this one."""
        return blocks.Upsample(
            features=self.features[index],
            factors=factors,
            kind=self.upsample,
            use_bias=self.upsample_bias or self.norm == "none",
            dtype=self.dtype,
            name=f"upsample_{index}",
        )

    def _logits(self, x, index, axes):
        """The logits of one stage of the decoder."""
        head = blocks.Convolution(
            features=self.num_classes,
            kernel_size=(1,) * axes,
            use_bias=True,
            # Logits in bfloat16 would have two digits left for the loss.
            dtype=jnp.promote_types(self.dtype, jnp.float32),
            name="head" if index == 0 else f"head_{index}",
        )
        return ops.as_array(head(x))


def _numbers(value):
    """All numbers of nested tuples; none of None."""
    if isinstance(value, list | tuple):
        return [number for one in value for number in _numbers(one)]
    return [] if value is None else [value]
