"""Draws the stages of planned networks: channels, pixels, kernels and strides."""

import dataclasses
import math
import os
from collections.abc import Sequence
from typing import TYPE_CHECKING

from unet_jax.report.figure import write_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_ENCODER, _DECODER = "#457b9d", "#e9a23b"
_APART = 12.0  # between the middles of encoder and decoder; widths are log2 of channels


@dataclasses.dataclass(frozen=True)
class DrawnNetwork:
    """A network as it is drawn; one entry a stage, finest first.

    Attributes:
        patch_size: pixels of the input on each axis.
        strides: strides between the stages.
        blocks: convolutions, or residual blocks, of each stage of the encoder.
    """

    title: str
    patch_size: Sequence[int]
    features: Sequence[int]
    kernel_sizes: Sequence[Sequence[int]]
    strides: Sequence[Sequence[int]]
    blocks: Sequence[int]


def write_stages(
    path: str | os.PathLike[str], networks: Sequence[DrawnNetwork]
) -> None:
    """Draw networks side by side as a PNG: encoder, decoder and skips of each stage."""
    from matplotlib.figure import Figure

    most = max(len(one.features) for one in networks)
    figure = Figure(figsize=(6.0 * len(networks), 1.0 + 0.8 * most), layout="tight")
    panels = figure.subplots(1, len(networks), squeeze=False)[0]
    for axes, network in zip(panels, networks, strict=True):
        _draw(axes, network)
        axes.set_ylim(0.6 - most, 0.6)
    write_figure(path, figure)


def _draw(axes: "Axes", network: DrawnNetwork) -> None:
    """Draw one network."""
    axes.set_title(network.title, fontsize=9)
    axes.set_axis_off()
    axes.set_xlim(-_APART / 2, 1.5 * _APART)
    size, last = list(network.patch_size), len(network.features) - 1
    for stage, channels in enumerate(network.features):
        if stage:
            step = network.strides[stage - 1]
            size = [-(-n // k) for n, k in zip(size, step, strict=True)]
            _label(axes, 0.0, 0.5 - stage, f"stride {_times(step)}", "#555555")
        width = math.log2(channels)
        text = f"{channels} x {_times(size)}"
        kernel = f"{network.blocks[stage]} of {_times(network.kernel_sizes[stage])}"
        _box(axes, 0.0, -stage, width, f"{text}\n{kernel}", _ENCODER)
        if stage < last:
            axes.plot([width / 2, _APART - width / 2], [-stage] * 2, color="#999999")
            _box(axes, _APART, -stage, width, text, _DECODER)


def _box(
    axes: "Axes", middle: float, row: float, width: float, text: str, color: str
) -> None:
    """Draw what a stage gives."""
    axes.barh(row, width, left=middle - width / 2, height=0.55, color=color)
    _label(axes, middle, row, text, "black")


def _label(axes: "Axes", x: float, y: float, text: str, color: str) -> None:
    """Write a small centred text."""
    axes.text(x, y, text, ha="center", va="center", fontsize=6, color=color)


def _times(sizes: Sequence[int]) -> str:
    """Write sizes of axes."""
    return "x".join(map(str, sizes))
