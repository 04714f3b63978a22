"""The U-Net (Ronneberger et al. 2015, arXiv:1505.04597) for pictures and volumes."""

import functools
import math
from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float

from unet_jax.models import blocks, ops

Sizes = int | Sequence[int]
"""One whole number for every spatial axis, or one each."""


class UNet(nn.Module):
    """Encoder, decoder and skips; 2-D or 3-D by the rank of its input.

    Stage ``i`` works on a coarser grid than stage ``i - 1``, by max-pooling.
    ``decoder_i`` works on the grid of ``encoder_i``: it reads the skip beside what
    ``upsample_i`` brings up from below. The skip's rows come first in
    ``decoder_i/convolution_0/kernel``.

    Attributes:
        num_classes: channels of the logits.
        features: channels of each stage, finest first.
        convolutions_per_stage: convolutions in each stage on either side, or one number
            per stage.
        kernel_sizes: None for 3, or one entry per stage, each a number or one per axis.
        strides: None for 2, or one entry per transition between stages, likewise.
        norm: ``"instance"``, ``"group"`` or ``"batch"``; follows each convolution.
        norm_groups: groups of group norm; divides every entry of ``features``.
        upsample: ``"transposed"`` or ``"resize"``.
        dtype: compute dtype; parameters are float32, logits float32 or better.
        axis_name: mapped axis over which batch norm is synchronised; None for none.
        formulation: see ``ops.choose_formulation``; to compile for another platform.
    """

    num_classes: int
    features: Sequence[int]
    convolutions_per_stage: int | Sequence[int] = 2
    kernel_sizes: Sequence[Sizes] | None = None
    strides: Sequence[Sizes] | None = None
    norm: str = "instance"
    norm_groups: int = 8
    upsample: str = "transposed"
    dtype: Any = jnp.float32
    axis_name: str | None = None
    formulation: str | None = None

    @nn.compact
    def __call__(
        self, x: Float[Array, "batch *spatial channels"], *, train: bool = False
    ) -> Float[Array, "batch *spatial classes"]:
        """Return the logits of every pixel.

        Args:
            x: image, channels last, of any size: the last pixel of an axis is repeated
                up to a multiple of the total stride, and the logits are cropped back.
            train: batch norm uses, and records, the statistics of this batch.

        Returns:
            Logits ``(batch, *spatial, num_classes)``.

        Raises:
            ValueError: an attribute has a wrong length or an unknown name, or the input
                is neither 2-D nor 3-D.
        """
        if x.ndim not in (4, 5):
            raise ValueError(
                f"The input has shape {x.shape}; expected (batch, *spatial, channels) "
                "with 2 or 3 spatial axes"
            )
        stages, axes, spatial = len(self.features), x.ndim - 2, x.shape[1:-1]
        strides = _per_stage("strides", self.strides, 2, stages - 1, axes)
        windows = _per_stage("kernel_sizes", self.kernel_sizes, 3, stages, axes)
        counts = self._convolutions(stages)
        total_stride = [math.prod(axis) for axis in zip(*strides, strict=True)]
        x = _pad_to_multiple(x.astype(self.dtype), total_stride or [1] * axes)

        outputs = []
        for index in range(stages):
            if index:
                window = strides[index - 1]
                x = ops.max_pool(x, window=window, formulation=self.formulation)
            stage = self._stage("encoder", index, counts[index], windows[index])
            x = stage(x, train=train)
            outputs.append(x)
        for index in reversed(range(stages - 1)):
            upsampled = self._upsample(index, strides[index])(x)
            stage = self._stage("decoder", index, counts[index], windows[index])
            x = stage(outputs[index], upsampled, train=train)
        logits = blocks.Convolution(
            features=self.num_classes,
            window=(1,) * axes,
            use_bias=True,
            # Logits in bfloat16 would have two digits left for the loss.
            dtype=jnp.promote_types(self.dtype, jnp.float32),
            formulation=self.formulation,
            name="head",
        )(x)
        return logits[:, *(slice(size) for size in spatial)]

    def _stage(self, side, index, convolutions, window):
        """The stage of one resolution, on the way down or up."""
        return blocks.Stage(
            features=self.features[index],
            convolutions=convolutions,
            window=window,
            norm=self.norm,
            norm_groups=self.norm_groups,
            dtype=self.dtype,
            axis_name=self.axis_name,
            formulation=self.formulation,
            name=f"{side}_{index}",
        )

    def _upsample(self, index, factors):
        """What brings the stage below onto the grid of this one."""
        return blocks.Upsample(
            features=self.features[index],
            factors=factors,
            kind=self.upsample,
            dtype=self.dtype,
            formulation=self.formulation,
            name=f"upsample_{index}",
        )

    def _convolutions(self, stages):
        """Number of convolutions of each stage."""
        counts = self.convolutions_per_stage
        if isinstance(counts, int):
            return (counts,) * stages
        if len(counts) != stages:
            raise ValueError(
                f"convolutions_per_stage has {len(counts)} entries; expected {stages}, "
                "one for each entry of features"
            )
        return tuple(counts)


def _per_stage(name, sizes, default, entries, axes):
    """One tuple of sizes per spatial axis for each entry."""
    if sizes is None:
        sizes = (default,) * entries
    if len(sizes) != entries:
        raise ValueError(
            f"{name} has {len(sizes)} entries; expected {entries} for the stages in "
            "features"
        )
    expanded = [
        (size,) * axes if isinstance(size, int) else tuple(size) for size in sizes
    ]
    for size in expanded:
        if len(size) != axes:
            raise ValueError(
                f"{name} has the entry {size}; expected a number, or one for each of "
                f"the {axes} spatial axes of the input"
            )
    return expanded


def _pad_to_multiple(x, multiples):
    """Repeat the last pixel of each axis until its size divides.

    Zeros would be an edge that the image does not have, and move the norms' statistics.
    """
    sizes = x.shape[1:-1]
    pads = [(0, -size % step) for size, step in zip(sizes, multiples, strict=True)]
    return jnp.pad(x, ((0, 0), *pads, (0, 0)), mode="edge")


UNetTiny = functools.partial(UNet, features=(8, 16, 32))
UNetSmall = functools.partial(UNet, features=(16, 32, 64, 128))
UNetBase = functools.partial(UNet, features=(32, 64, 128, 256, 512))


def create_model(
    *,
    name: str,
    num_classes: int,
    dtype: str = "float32",
    axis_name: str | None = None,
    **options: Any,
) -> UNet:
    """Make the named network.

    Args:
        name: ``"unet_tiny"``, ``"unet_small"`` or ``"unet_base"``.
        num_classes: channels of the logits.
        dtype: compute dtype, ``"float32"`` or ``"bfloat16"``.
        axis_name: mapped axis over which batch norm is synchronised.
        **options: other attributes of ``UNet``, which override the preset's; None
            leaves the preset's.

    Returns:
        The module; ``init`` and ``apply`` are its own.

    Raises:
        ValueError: the name is not known.
    """
    match name:
        case "unet_tiny":
            preset = UNetTiny
        case "unet_small":
            preset = UNetSmall
        case "unet_base":
            preset = UNetBase
        case _:
            raise ValueError(
                f"Unknown model {name!r}; expected one of "
                "('unet_tiny', 'unet_small', 'unet_base')"
            )
    return preset(
        num_classes=num_classes,
        dtype=jnp.dtype(dtype),
        axis_name=axis_name,
        **{key: value for key, value in options.items() if value is not None},
    )
