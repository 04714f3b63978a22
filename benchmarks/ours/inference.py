"""Times the network on batches in memory, as prediction runs it."""

import pathlib
from typing import Any

import jax
import numpy as np

from benchmarks.ours import nets
from benchmarks.worker import Task, repeated
from unet_jax.experiment.inference import create_forward
from unet_jax.experiment.network import create_network


def prepare(*, folder: pathlib.Path, work: dict[str, Any]) -> Task:
    """Make the task: one call is one batch, from host array to host array.

    Args:
        folder: shared with the peer.
        work: description of the work, see ``nets.config_of``.
    """
    config = nets.config_of(work)
    network = create_network(config, axis_name=None)
    image = nets.examples(work)["image"]
    variables = jax.jit(network.init)(jax.random.key(0), image[:1])
    nets.hand_over(folder, variables, {"image": image})
    forward = create_forward(config, network)

    def once() -> np.ndarray:
        return np.asarray(forward(variables, image))

    return Task(
        run=repeated(once),
        facts={
            "parameters": nets.parameters(variables),
            "output": list(once().shape),
        },
        outputs=lambda: {"probabilities": once()},
        packages=nets.PACKAGES,
    )
