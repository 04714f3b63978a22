"""Writes the data of configs/brain_slab.py for the peer."""

import pathlib

import numpy as np

from benchmarks.ours import nets
from unet_jax.configs import brain_slab
from unet_jax.experiment import run
from unet_jax.experiment.data import create_prepared_cases


def opened(folder: pathlib.Path) -> run.Run:
    """Prepare the main job as its command does.

    Args:
        folder: folder for the files of a run.
    """
    config = brain_slab.get_config()
    config.lock()
    return run.create_run(config, folder / "run")


def hand_over(folder: pathlib.Path, made: run.Run) -> None:
    """Write the training and validation slices as the network gets them.

    Each slab of the scan is an array ``(slices, height, width)``: ``train_image_0``
    float32 and ``train_label_0``, and so on; slabs have sizes of their own.

    Args:
        folder: shared with the peer.
        made: result of `opened`.
    """
    arrays = {}
    for split in ("train", "validation"):
        source = made.sources[split]
        cases = create_prepared_cases(
            made.config, source, made.preprocessing, folder / split
        )
        for index in range(len(source)):
            image, label = cases.case(index)
            arrays[f"{split}_image_{index}"] = image[..., 0]
            arrays[f"{split}_label_{index}"] = label
    np.savez(folder / nets.GIVEN, **arrays)
