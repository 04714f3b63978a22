"""Times the segmentation of a volume window by window, as prediction does it."""

import pathlib
from typing import Any

import jax
import numpy as np

from benchmarks.memory import peak_of
from benchmarks.ours import nets
from benchmarks.ours.augmentation import phantom
from benchmarks.worker import Task
from unet_jax.experiment.inference import compile_network, create_predict_fn_maker
from unet_jax.experiment.network import create_network


def prepare(*, folder: pathlib.Path, work: dict[str, Any]) -> Task:
    """Make the task: one call is one volume, from its array to its labels.

    Args:
        folder: shared with the peer.
        work: description for ``nets.config_of``, and the shape of the ``volume``.
    """
    config = nets.config_of(work)
    image = phantom(tuple(work["volume"]))[0][..., None]
    network = create_network(config, axis_name=None)
    patch = np.zeros((1, *work["patch"], 1), np.float32)
    variables = jax.jit(network.init)(jax.random.key(0), patch)
    nets.hand_over(folder, variables, {"image": image})
    maker = create_predict_fn_maker(
        config,
        compile_network(config, network),
        nets.preprocessing_of(work),
        validation=False,
    )
    predict = maker(variables)

    def outputs() -> dict[str, np.ndarray]:
        found = np.empty((*work["volume"], work["classes"]), np.float32)
        predict(image, None, probabilities=found)
        return {"probabilities": found[::3, ::3, ::3]}

    def repeat(calls: int) -> dict[str, float]:
        with peak_of() as memory:
            for _ in range(calls):
                labels = predict(image, None)
        assert labels.shape == tuple(work["volume"])
        return memory

    return Task(
        run=repeat,
        facts={
            "parameters": nets.parameters(variables),
            "overlap": config.eval.overlap,
        },
        outputs=outputs,
        packages=nets.PACKAGES,
    )
