"""Which sizes a U-Net takes, and what is left of them without padding."""

import itertools
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from unet_jax.models.unet import UNet


def stage_strides(network: "UNet", axes: int) -> list[tuple[int, ...]]:
    """Return the stride between each stage and the next.

    Args:
        network: the network.
        axes: spatial axes of its input.

    Returns:
        A number for each axis, for each transition.
    """
    return stage_sizes("strides", network.strides, 2, len(network.features) - 1, axes)


def total_stride(network: "UNet", axes: int) -> tuple[int, ...]:
    """Return how many pixels a pixel of the coarsest stage stands for.

    Args:
        network: the network.
        axes: spatial axes of its input.

    Returns:
        A number for each axis.
    """
    strides = stage_strides(network, axes)
    return tuple(math.prod(step[axis] for step in strides) for axis in range(axes))


def output_size(network: "UNet", size: Sequence[int]) -> tuple[int, ...]:
    """Return the spatial size of the logits.

    Args:
        network: the network.
        size: spatial size of the input.

    Returns:
        ``size`` itself, or what is left of it without padding.

    Raises:
        ValueError: the size does not fit a network without padding: a stage would have
            an odd rest, or nothing.
    """
    if network.padding == "SAME":
        return tuple(size)
    found = []
    for axis, extent in enumerate(size):
        left = _valid_output(network, axis, extent, len(size))
        if left is None:
            raise ValueError(
                f"An input of {tuple(size)} does not fit a network without padding; "
                f"the next size that does is {tiling_size(network, size)}"
            )
        found.append(left)
    return tuple(found)


def fitting_size(network: "UNet", size: Sequence[int]) -> tuple[int, ...]:
    """Return the smallest input size that fits and is not smaller than ``size``.

    Args:
        network: the network.
        size: wanted spatial size.

    Returns:
        ``size`` itself with padding, as any size fits then.
    """
    return _next_size(network, size, (1,) * len(size))


def tiling_size(network: "UNet", size: Sequence[int]) -> tuple[int, ...]:
    """Return the smallest input size whose logits can tile an image.

    Windows of a network without padding start at multiples of its total stride, so that
    all of them see one coarse grid: logits of fewer pixels would leave gaps.

    Args:
        network: the network.
        size: wanted spatial size.

    Returns:
        A size that fits and is not smaller; ``size`` itself with padding.
    """
    return _next_size(network, size, total_stride(network, len(size)))


def _next_size(
    network: "UNet", size: Sequence[int], least: Sequence[int]
) -> tuple[int, ...]:
    """Next size on each axis that fits and leaves so many logits."""
    if network.padding == "SAME":
        return tuple(size)
    return tuple(
        next(
            candidate
            for candidate in itertools.count(start)
            if (_valid_output(network, axis, candidate, len(size)) or 0) >= least[axis]
        )
        for axis, start in enumerate(size)
    )


def largest_size(network: "UNet", limit: Sequence[int]) -> tuple[int, ...] | None:
    """Return the largest input size within a limit of which at least half is left.

    Args:
        network: the network.
        limit: largest size of each axis.

    Returns:
        A size that fits and can tile; None where there is none. ``limit`` itself with
        padding.
    """
    if network.padding == "SAME":
        return tuple(limit)
    strides = total_stride(network, len(limit))
    found = []
    for axis, most in enumerate(limit):
        for candidate in range(most, 0, -1):
            left = _valid_output(network, axis, candidate, len(limit)) or 0
            if left >= max(candidate / 2, strides[axis]):
                found.append(candidate)
                break
        else:
            return None
    return tuple(found)


def margin(network: "UNet", axes: int) -> tuple[int, ...]:
    """Return how many pixels the logits lack on each side of an axis.

    Args:
        network: the network.
        axes: spatial axes of its input.

    Returns:
        A number for each axis; 0 with padding.
    """
    size = fitting_size(network, (1,) * axes)
    left = output_size(network, size)
    return tuple((n - k) // 2 for n, k in zip(size, left, strict=True))


def _valid_output(network: "UNet", axis: int, size: int, axes: int) -> int | None:
    """Size of the logits along one axis; None where the input does not fit."""
    stages = len(network.features)
    strides = stage_strides(network, axes)
    windows = stage_sizes("kernel_sizes", network.kernel_sizes, 3, stages, axes)
    down = stage_counts(
        "convolutions_per_stage", network.convolutions_per_stage, stages
    )
    up = network.decoder_convolutions
    up = (
        down[:-1]
        if up is None
        else stage_counts("decoder_convolutions", up, stages - 1)
    )
    per = 2 if network.block == "residual" else 1

    def lost(counts, index):
        return per * counts[index] * (windows[index][axis] - 1)

    for index in range(stages):
        if index:
            if size % strides[index - 1][axis]:
                return None
            size //= strides[index - 1][axis]
        size -= lost(down, index)
        if size < 1:
            return None
    for index in reversed(range(stages - 1)):
        size = size * strides[index][axis] - lost(up, index)
        if size < 1:
            return None
    return size


def stage_counts(
    name: str, counts: int | Sequence[int], stages: int
) -> tuple[int, ...]:
    """Return a number for each stage.

    Args:
        name: of the attribute, for the message.
        counts: one number for all stages, or one each.
        stages: how many there are.

    Returns:
        One each.

    Raises:
        ValueError: there are too few or too many.
    """
    if isinstance(counts, int):
        return (counts,) * stages
    if len(counts) != stages:
        raise ValueError(
            f"{name} has {len(counts)} entries; expected {stages}, one for each stage"
        )
    return tuple(counts)


def stage_sizes(
    name: str,
    sizes: Sequence[int | Sequence[int]] | None,
    default: int,
    entries: int,
    axes: int,
) -> list[tuple[int, ...]]:
    """Return a size an axis for each entry.

    Args:
        name: of the attribute, for the message.
        sizes: a number, or one for each axis, of each entry; None for the default.
        default: where none are given.
        entries: how many there are: stages, or transitions between them.
        axes: spatial axes.

    Returns:
        A tuple for each entry.

    Raises:
        ValueError: too few or too many entries, or axes in one.
    """
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


def fit_stages(
    network: "UNet", patch: Sequence[int], *, fixed: bool
) -> tuple["UNet", tuple[int, ...]]:
    """Leave out coarse stages until a patch suits a network without padding.

    Args:
        network: with as many stages as a network with padding would have.
        patch: its patch.
        fixed: whether the patch has to stay; else it may become smaller or, where even
            two stages need more, larger.

    Returns:
        The network with as many of its stages as leave half of the patch, and the
        patch; with two stages where none do.
    """
    patch = tuple(patch)
    if network.padding == "SAME":
        return network, patch
    shorter = network
    for stages in range(len(network.features), 1, -1):
        shorter = network.clone(
            features=network.features[:stages],
            kernel_sizes=network.kernel_sizes and network.kernel_sizes[:stages],
            strides=network.strides and network.strides[: stages - 1],
        )
        size = largest_size(shorter, patch)
        if size is not None and (size == patch or not fixed):
            return shorter, size
    return shorter, patch if fixed else tiling_size(shorter, patch)
