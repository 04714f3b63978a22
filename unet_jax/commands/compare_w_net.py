"""Trains a W-Net on the images of a run, as one more method of its comparison."""

import pathlib
from typing import Any

import jax
from ml_collections import ConfigDict

from unet_jax.commands.train import train_and_evaluate
from unet_jax.experiment.finished import load_run, read_clusters_of_classes
from unet_jax.method import Method
from unet_jax.runtime.stop import Stop

FEATURES = (8, 16)
"""Channels of each stage of its U-Nets. Two stages see about nine pixels around a
pixel. With more stages, clusters follow position: half of the air is one cluster."""

CLUSTERS_A_CLASS = 4
"""Clusters that are learnt for each class; they are merged afterwards by the cut
between them, as the paper merges its over-segmentation. With one cluster for each
class, one or two of the clusters became parts of the air in most trials."""

LOSS: tuple[tuple[str, float, dict[str, float]], ...] = (
    ("soft_ncut", 0.3, {"intensity_sigma": 0.3}),
    ("reconstruction", 5.0, {}),
)
"""Terms of its training loss."""

PATCH = 64
"""Longest side of its crops, in pixels."""

LEARNING_RATE = 1e-2
"""Learning rate of Adam at the end of the warm-up."""

BATCH = 8
"""Crops in an update."""


def train_w_net(
    config: ConfigDict, workdir: pathlib.Path, *, stop: Stop | None = None
) -> tuple[Method, dict[str, Any]]:
    """Train a W-Net on the images of a run, and name its clusters.

    The W-Net is trained as a run with its own workdir, by the same loop and step. It
    resumes where it was stopped, and is not trained again once it is finished. Labels
    are used only at the end: the clusters are matched with the classes on the training
    split.

    Args:
        config: complete config of the run; ``compare.w_net_steps`` is the number of
            training steps.
        workdir: workdir of the run; the W-Net's workdir is ``compare/w_net`` in it.
        stop: request to stop the training, see `Stop`; None for no such request.

    Returns: The trained W-Net, and what was chosen.
    Raises: InputError: the data, or the files in the W-Net's workdir, cannot be used.
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
    """Make the config of a W-Net that is trained on the images of a run.

    The W-Net is always 2-D, because its loss compares ten times as many pairs of pixels
    in 3-D. It sees volumes slice by slice.

    Args:
        config: complete config of the run; it is not changed.

    Returns: A config with the same data, classes and seed.
    """
    changed = config.copy_and_resolve_references()
    with changed.unlocked():
        changed.name = f"{config.name}_w_net"
        changed.init_from = ""
        changed.model.options = ConfigDict({"features": FEATURES, "norm": "batch"})
        changed.model.update(
            name="wnet",
            clusters=CLUSTERS_A_CLASS * len(config.data.class_names),
            head="softmax",
        )
        changed.loss = LOSS
        changed.data.foreground_oversampling = 0.0
        changed.augment.enabled = False
        changed.eval.risk = None
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
