"""Predicts one large volume, and prints the memory that it took."""

import dataclasses
import json
import sys
import time
from typing import Any

import jax
import numpy as np

from benchmarks.inference_memory import CLASSES
from benchmarks.memory import peak_of
from benchmarks.ours import nets
from unet_jax.experiment.inference import compile_network, create_predict_fn_maker
from unet_jax.experiment.network import create_network


def main(case: dict[str, Any]) -> None:
    """Print the memory of one prediction as JSON, and its seconds.

    Args:
        case: one of ``benchmarks.inference_memory.CASES``.
    """
    work = {
        "network": {"features": [8, 16]},
        "channels": 1,
        "classes": CLASSES,
        "patch": case["patch"],
        "batch": 1,
    }
    config = nets.config_of(work)
    config.eval.overlap = case["overlap"]
    network = create_network(config, axis_name=None)
    preprocessing = dataclasses.replace(
        nets.preprocessing_of(work),
        spacing=None if case["target"] is None else tuple(case["target"]),
    )
    patch = np.zeros((1, *case["patch"], 1), np.float32)
    variables = jax.jit(network.init)(jax.random.key(0), patch)
    compiled = compile_network(config, network)
    predict = create_predict_fn_maker(config, compiled, preprocessing, validation=False)
    segmenter = predict(variables)
    rng = np.random.default_rng(0)
    image = rng.integers(1, 2000, (*case["volume"], 1), np.int16)
    start = time.perf_counter()
    with peak_of() as memory:
        labels = segmenter(image, tuple(case["spacing"]))
    memory["seconds"] = time.perf_counter() - start
    assert labels.shape == tuple(case["volume"])
    assert len(np.unique(labels[::8, ::8, ::8])) > 1, "several classes"
    print(json.dumps(memory))


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
