"""The data of configs/brain.py, for the peer to have the same."""

import pathlib

import numpy as np
from ml_collections import ConfigDict

from benchmarks.ours import nets
from configs import brain
from unet_jax import run
from unet_jax.data.case import read_case
from unet_jax.experiment import create_prepared_cases


def opened(folder: pathlib.Path) -> run.Run:
    """Prepare the main job as its command does.

    Args:
        folder: for what a run leaves behind.
    """
    config = brain.get_config()
    config.lock()
    return run.prepare(config, folder / "run", None)


def hand_over(folder: pathlib.Path, made: run.Run) -> None:
    """Write the slices of training and validation as the network sees them.

    Args:
        folder: shared with the peer.
        made: from `opened`.
    """
    arrays = {}
    for split in ("train", "validation"):
        images, labels = slices(made.config, made, split, folder)
        arrays[f"{split}_image"], arrays[f"{split}_label"] = images, labels
    np.savez(folder / nets.GIVEN, **arrays)


def slices(
    config: ConfigDict, made: run.Run, split: str, folder: pathlib.Path
) -> tuple[np.ndarray, np.ndarray]:
    """Collect the prepared examples of a split.

    Args:
        config: of the run.
        made: the run.
        split: "train", "validation" or "test".
        folder: for what does not fit into memory.

    Returns:
        Images ``(slices, height, width)`` float32 and labels int64.
    """
    source = made.sources[split]
    assert len(source) == 1, "one slab a split; the peer scores its slices as one case"
    assert read_case(source, 0).label is not None
    cases = create_prepared_cases(config, source, made.preprocessing, folder / split)
    examples = [cases[index] for index in range(len(cases))]
    return (
        np.stack([example.image[..., 0] for example in examples]),
        np.stack([example.label for example in examples]).astype(np.int64),
    )
