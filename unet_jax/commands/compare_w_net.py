"""A W-Net beside a run: trained on the same images, named on the same split."""

import pathlib
from typing import Any

import jax
from ml_collections import ConfigDict

from unet_jax.commands.train import train_and_evaluate
from unet_jax.experiment.finished import load_run, read_clusters_of_classes
from unet_jax.method import Method
from unet_jax.runtime.stop import Stop

FEATURES = (8, 16)
"""Channels of each stage of its U-Nets. Two stages see some nine pixels around: with
more, clusters are told by their place, such as one half of the air from the other."""

CLUSTERS_A_CLASS = 4
"""Clusters that are learnt, a class; they are merged by the cut between them
afterwards, as the paper merges its over-segmentation. With as many as classes, one or
two of them went for parts of the air in most trials."""

LOSS: tuple[tuple[str, float, dict[str, float]], ...] = (
    ("soft_ncut", 0.3, {"intensity_sigma": 0.3}),
    ("reconstruction", 5.0, {}),
)
"""The sum that it is trained with."""

PATCH = 64
"""Pixels that no side of its crops exceeds."""

LEARNING_RATE = 1e-2
"""Of Adam, at the end of the warm-up."""

BATCH = 8
"""Crops an update."""


def train_w_net(
    config: ConfigDict, workdir: pathlib.Path, *, stop: Stop | None = None
) -> tuple[Method, dict[str, Any]]:
    """Train a W-Net on the images of a run, and name its clusters.

    It is a run like any other, in a folder of its own, by the same loop and step: it
    goes on where it was stopped, and a finished one is not trained again. Its labels
    come last: the clusters are matched with the classes, one to one, on the training
    split.

    Args:
        config: of the run, complete; ``compare.w_net_steps`` says for how long.
        workdir: of the run; the W-Net's is ``compare/w_net`` in it.
        stop: tells when the training is asked to stop; None for never.

    Returns:
        The trained W-Net, and what was chosen.

    Raises:
        InputError: the data, or what is in that folder, cannot be used.
    """
    folder = workdir / "compare" / "w_net"
    train_and_evaluate(make_w_net_config(config), folder, stop=stop)
    run = load_run(folder)
    chosen = {
        "checkpoint_step": run.step,
        "clusters_of_class": read_clusters_of_classes(folder),
    }
    return run.predict_fn.method, chosen


def make_w_net_config(config: ConfigDict) -> ConfigDict:
    """Turn the config of a run into that of a W-Net on its images.

    The W-Net is always 2-D: in 3-D the pairs of pixels that its loss compares are ten
    times as many. Volumes are seen slice by slice.

    Args:
        config: complete; it is not changed.

    Returns:
        A config with the same data, classes and seed.
    """
    changed = config.copy_and_resolve_references()
    with changed.unlocked():
        changed.name = f"{config.name}_w_net"
        changed.init_from = ""
        for key in changed.model:
            changed.model[key] = None
        changed.model.update(
            name="wnet",
            features=FEATURES,
            clusters=CLUSTERS_A_CLASS * len(config.data.class_names),
            norm="batch",
            head="softmax",
            dtype=config.model.dtype,
            base_features=config.model.base_features,
            max_features=config.model.max_features,
        )
        changed.loss = LOSS
        changed.data.foreground_oversampling = 0.0
        changed.augment.enabled = False
        in_plane = list(config.train.patch_size)
        if len(in_plane) == 3:
            del in_plane[config.data.slice_axis]
        changed.train.update(
            steps=config.compare.w_net_steps,
            max_minutes=0.0,
            batch_size=-(-BATCH // jax.device_count()) * jax.device_count(),
            patch_size=tuple(max(32, min(PATCH, size)) for size in in_plane),
            accumulation=1,
            ema_decay=0.0,
            early_stopping_patience=0,
        )
        changed.optimizer.update(
            name="adamw",
            learning_rate=LEARNING_RATE,
            schedule="cosine",
            warmup_steps=min(50, config.compare.w_net_steps // 5),
            final_fraction=0.0,
            weight_decay=1e-4,
            gradient_clip=1.0,
        )
        changed.eval.every_steps = max(1, config.compare.w_net_steps // 4)
        changed.eval.postprocess = None
    return changed.lock()
