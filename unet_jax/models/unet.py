"""The U-Net (Ronneberger et al. 2015, arXiv:1505.04597) for pictures and volumes."""

from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp
from flax import linen as nn
from jax import lax
from jaxtyping import Array, Float, Key

from unet_jax.models import blocks, ops
from unet_jax.models.ops import packed_ops
from unet_jax.models.ops.packing import Packed, pack, stage_layouts, unpack
from unet_jax.models.sizes import (
    output_size,
    stage_counts,
    stage_sizes,
    stage_strides,
    total_stride,
)

DOWNSAMPLES = ("max_pool", "strided")
PADDINGS = ("SAME", "VALID")

Sizes = int | Sequence[int]
"""One whole number for every spatial axis, or one each."""


class UNet(nn.Module):
    """Encoder, decoder and skips; 2-D or 3-D by the rank of its input.

    Stage ``i`` works on a coarser grid than stage ``i - 1``. ``decoder_i`` works on the
    grid of ``encoder_i``: it reads the skip beside what ``upsample_i`` brings up from
    below. The skip's rows come first in ``decoder_i/convolution_0/kernel``.

    Attributes:
        num_classes: channels of the logits.
        features: channels of each stage, finest first.
        convolutions_per_stage: convolutions in each stage on either side, or one number
            per stage; residual blocks of two where ``block`` is ``"residual"``.
        decoder_convolutions: the same for the stages on the way up; None for those on
            the way down.
        kernel_sizes: None for 3, or one entry per stage, each a number or one per axis.
        strides: None for 2, or one entry per transition between stages, likewise.
        block: ``"plain"`` or ``"residual"``.
        downsample: ``"max_pool"``, or ``"strided"`` first convolutions of the stages.
        attention: gates on the skips.
        deep_supervision: how many coarser stages of the decoder give logits too, in
            training.
        dropout: share of channels left out after each activation, in training; one
            number, or one for each stage.
        padding: ``"SAME"``, or ``"VALID"`` for logits of the pixels alone whose
            surroundings the input holds.
        norm: ``"instance"``, ``"group"``, ``"batch"`` or ``"none"``; follows each
            convolution.
        norm_groups: groups of group norm; divides every entry of ``features``.
        activation: ``"leaky_relu"`` or ``"relu"``.
        upsample: ``"transposed"`` or ``"resize"``.
        dtype: compute dtype; parameters are float32, logits float32 or better.
        axis_name: mapped axis over which batch norm is synchronised; None for none.
        implementation: see ``ops.choose_implementation``.
    """

    num_classes: int
    features: Sequence[int]
    convolutions_per_stage: int | Sequence[int] = 2
    decoder_convolutions: int | Sequence[int] | None = None
    kernel_sizes: Sequence[Sizes] | None = None
    strides: Sequence[Sizes] | None = None
    block: str = "plain"
    downsample: str = "max_pool"
    attention: bool = False
    deep_supervision: int = 0
    dropout: float | Sequence[float] = 0.0
    padding: str = "SAME"
    norm: str = "instance"
    norm_groups: int = 8
    activation: str = "leaky_relu"
    upsample: str = "transposed"
    dtype: Any = jnp.float32
    axis_name: str | None = None
    implementation: str | None = None

    @nn.compact
    def __call__(
        self,
        x: Float[Array, "batch *spatial channels"],
        *,
        train: bool = False,
        keys: Key[Array, " batch"] | None = None,
    ) -> Float[Array, "batch *_ classes"] | tuple[Float[Array, "..."], ...]:
        """Return the logits of every pixel.

        Args:
            x: image, channels last, of any size: the last pixel of an axis is repeated
                up to a multiple of the total stride, and the logits are cropped back.
                Without padding only some sizes fit, see `sizes.fitting_size`.
            train: batch norm uses, and records, the statistics of this batch; dropout
                and deep supervision are on.
            keys: a random key for each example, for dropout.

        Returns:
            Logits ``(batch, *spatial, num_classes)``, of `output_size` without padding.
            In training with deep supervision a tuple of them, finest first, the coarser
            ones on ``ceil(spatial / total stride of their stage)``.

        Raises:
            ValueError: an attribute has a wrong length or an unknown name, or the input
                is neither 2-D nor 3-D, or of a size that does not fit.
        """
        spatial, axes = x.shape[1:-1], x.ndim - 2
        strides = self._checked(x)
        x = x.astype(self.dtype)
        if self.padding == "SAME":
            x = _pad_to_multiple(x, total_stride(self, axes))
        layouts = self._layouts(x, strides)
        first = x if layouts[0] is None else pack(x, layouts[0])
        outputs = self._encode(first, axes, strides, layouts, train, keys)
        decoded = self._decode(outputs, strides, layouts, train, keys)
        grids = [spatial]
        if self.padding == "VALID":
            grids = [output_size(self, spatial)]
        for step in strides[: self.deep_supervision]:
            grids.append(
                tuple(-(-n // k) for n, k in zip(grids[-1], step, strict=True))
            )
        supervised = train or self.is_initializing()
        count = 1 + self.deep_supervision if supervised else 1
        logits = [
            self._logits(decoded[index], index, axes)[:, *map(slice, grids[index])]
            for index in range(count)
        ]
        return tuple(logits) if train and self.deep_supervision else logits[0]

    def _checked(self, x):
        """The strides, if the attributes and the input go together."""
        if x.ndim not in (4, 5):
            raise ValueError(
                f"The input has shape {x.shape}; expected (batch, *spatial, channels) "
                "with 2 or 3 spatial axes"
            )
        for name, value, known in (
            ("downsample", self.downsample, DOWNSAMPLES),
            ("padding", self.padding, PADDINGS),
        ):
            if value not in known:
                raise ValueError(f"Unknown {name} {value!r}; expected one of {known}")
        coarser = max(0, len(self.features) - 2)
        if self.deep_supervision > coarser:
            raise ValueError(
                f"deep_supervision is {self.deep_supervision}; expected at most "
                f"{coarser}, the coarser decoder stages of {len(self.features)} stages"
            )
        if self.padding == "VALID":
            if self.deep_supervision or self.downsample == "strided":
                raise ValueError(
                    "padding 'VALID' goes with max_pool and without deep_supervision"
                )
            output_size(self, x.shape[1:-1])
        return stage_strides(self, x.ndim - 2)

    def _layouts(self, x, strides):
        """How each stage is packed; None where arrays stay as they are."""
        packed = ops.choose_implementation(self.implementation) == "tpu"
        if not packed or self.padding == "VALID":
            return [None] * len(self.features)
        return stage_layouts(x.shape[1:-1], features=self.features, strides=strides)

    def _encode(self, x, axes, strides, layouts, train, keys):
        """The output of each stage on the way down."""
        stages = len(self.features)
        counts = stage_counts(
            "convolutions_per_stage", self.convolutions_per_stage, stages
        )
        outputs = []
        for index in range(stages):
            step = strides[index - 1] if index else None
            if step is not None and self.downsample == "max_pool":
                if isinstance(x, Packed):
                    x = packed_ops.max_pool(x, window=step)
                else:
                    x = ops.max_pool(x, window=step, implementation=self.implementation)
                step = None
            stage = self._stage("encoder", index, counts[index], axes, step)
            x = stage(x, train=train, keys=keys, layout=layouts[index])
            outputs.append(x)
        return outputs

    def _decode(self, outputs, strides, layouts, train, keys):
        """The output of each stage on the way up, finest first."""
        stages = len(self.features)
        counts = self.decoder_convolutions
        if counts is None:
            counts = stage_counts(
                "convolutions_per_stage", self.convolutions_per_stage, stages
            )[:-1]
        else:
            counts = stage_counts("decoder_convolutions", counts, stages - 1)
        x, decoded = outputs[-1], []
        for index in reversed(range(stages - 1)):
            layout, step = layouts[index], strides[index]
            upsampled = self._upsample(index, step)(x, layout=layout)
            skip = blocks.centre_crop(outputs[index], upsampled)
            if self.attention:
                skip = blocks.AttentionGate(
                    dtype=self.dtype,
                    implementation=self.implementation,
                    name=f"attention_{index}",
                )(skip, upsampled)
            stage = self._stage("decoder", index, counts[index], len(step), None)
            x = stage(skip, upsampled, train=train, keys=keys, layout=layout)
            decoded.insert(0, x)
        return decoded or [x]

    def _stage(self, side, index, convolutions, axes, strides):
        """The stage of one resolution, on the way down or up."""
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
        windows = stage_sizes("kernel_sizes", self.kernel_sizes, 3, stages, axes)
        return blocks.Stage(
            features=self.features[index],
            convolutions=convolutions,
            window=windows[index],
            norm=self.norm,
            norm_groups=self.norm_groups,
            block=self.block,
            activation=self.activation,
            strides=strides,
            padding=self.padding,
            dropout=dropout,
            dtype=self.dtype,
            axis_name=self.axis_name,
            implementation=self.implementation,
            name=f"{side}_{index}",
        )

    def _upsample(self, index, factors):
        """What brings the stage below onto the grid of this one."""
        return blocks.Upsample(
            features=self.features[index],
            factors=factors,
            kind=self.upsample,
            use_bias=self.norm == "none",
            dtype=self.dtype,
            implementation=self.implementation,
            name=f"upsample_{index}",
        )

    def _logits(self, x, index, axes):
        """The logits of one stage of the decoder."""
        head = blocks.Convolution(
            features=self.num_classes,
            window=(1,) * axes,
            use_bias=True,
            # Logits in bfloat16 would have two digits left for the loss.
            dtype=jnp.promote_types(self.dtype, jnp.float32),
            implementation=self.implementation,
            name="head" if index == 0 else f"head_{index}",
        )
        logits = unpack(head(x, layout=x.layout if isinstance(x, Packed) else None))
        if ops.choose_implementation(self.implementation) != "tpu":
            return logits
        # The loss is to read pixels side by side in the lanes of the last axis. Left to
        # itself the compiler puts examples there, or blocks, which are few.
        classes_first = lax.optimization_barrier(jnp.moveaxis(logits, -1, 1))
        return jnp.moveaxis(classes_first, 1, -1)


def _pad_to_multiple(x, multiples):
    """Repeat the last pixel of each axis until its size divides.

    Zeros would be an edge that the image does not have, and move the norms' statistics.
    """
    sizes = x.shape[1:-1]
    pads = [(0, -size % step) for size, step in zip(sizes, multiples, strict=True)]
    return jnp.pad(x, ((0, 0), *pads, (0, 0)), mode="edge")
