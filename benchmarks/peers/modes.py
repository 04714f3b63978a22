"""Runs a network in PyTorch in several modes, for every benchmark."""

import os
import pathlib

import numpy as np
import torch
from torch import nn

MODES = ("eager", "channels_last", "compile", "compile_channels_last")
"""Modes to run a network in; the fastest counts."""


def begin(mode: str, folder: pathlib.Path) -> dict[str, np.ndarray]:
    """Use the cores of this process, and read the arrays that our side wrote.

    Args:
        mode: mode of PyTorch, one of ``MODES``.
        folder: shared with ours.
    """
    if mode not in MODES:
        raise ValueError(f"mode: found {mode!r}, expected one of {MODES}")
    use_cores()
    with np.load(folder / "given.npz") as given:
        return dict(given)


def use_cores() -> None:
    """Let PyTorch use all cores of this process, which it does not by itself."""
    torch.set_num_threads(len(os.sched_getaffinity(0)))


def layout(mode: str, dims: int) -> torch.memory_format:
    """Memory layout of a mode.

    Args:
        mode: mode of PyTorch, one of ``MODES``.
        dims: 2 or 3.
    """
    if not mode.endswith("channels_last"):
        return torch.contiguous_format
    return torch.channels_last if dims == 2 else torch.channels_last_3d


def compiled(model: nn.Module, mode: str) -> nn.Module:
    """Compile a network if the mode says so.

    Args:
        model: the network.
        mode: mode of PyTorch, one of ``MODES``.
    """
    return torch.compile(model) if mode.startswith("compile") else model


def tensor(array: np.ndarray, memory_format: torch.memory_format) -> torch.Tensor:
    """Turn a channels-last array into a channels-first tensor of some layout.

    Args:
        array: ``(batch, *spatial, channels)``.
        memory_format: result of `layout`.
    """
    moved = np.ascontiguousarray(np.moveaxis(array, -1, 1))
    return torch.from_numpy(moved).contiguous(memory_format=memory_format)


def parameters(model: nn.Module) -> int:
    """Count the parameters.

    Args:
        model: the network.
    """
    return sum(parameter.numel() for parameter in model.parameters())
