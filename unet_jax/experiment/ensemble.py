"""Joins finished runs to one network: the mean of their probabilities."""

from collections.abc import Sequence

from unet_jax.experiment.trained_run import TrainedRun
from unet_jax.inference.postprocess import Step
from unet_jax.inference.segmenter import Segmenter


def mean_segmenter(runs: Sequence[TrainedRun], steps: tuple[Step, ...]) -> Segmenter:
    """Return the mean of the networks of several runs, with a postprocessing.

    Args:
        runs: runs of one data set, with the same classes.
        steps: postprocessing of the labels.
    """
    heads = {run.predict_fn.head for run in runs}
    return Segmenter(
        tuple(one for run in runs for one in run.predict_fn.members),
        steps,
        # That of sigmoid keeps the order of any probabilities.
        head="softmax" if heads == {"softmax"} else "sigmoid",
    )
