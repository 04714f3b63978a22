"""Makes a finished run of a trained nnU-Net."""

import pathlib
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from unet_jax.errors import InputError
from unet_jax.experiment.check import check_config
from unet_jax.experiment.data import open_dataset
from unet_jax.experiment.from_nnunet import imported_model
from unet_jax.experiment.network import create_network
from unet_jax.experiment.record import make_record, read_record, write_record
from unet_jax.models.nnunet_weights import check_params, params_from
from unet_jax.models.pytorch.read import read_torch_file
from unet_jax.nnunet.model_folder import opened_model
from unet_jax.runtime.shown_path import shown
from unet_jax.training.checkpoint import Checkpoints


def import_nnunet(
    model: pathlib.Path, workdir: pathlib.Path, config: ConfigDict | None = None
) -> None:
    """Make a finished run of a trained model of nnU-Net 2.

    Its predictions are those of nnU-Net (in float32, where nnU-Net adds up windows in
    float16). No PyTorch is needed, and nothing in the files is run.

    Args:
        model: folder of the model, a fold in it, or an exported zip; see
            `unet_jax.nnunet.model_folder.opened_model`.
        workdir: folder of the run to make.
        config: config that names the data that ``--mode=evaluate`` scores, such as
            configs/folder.py with ``data.path``; None for a run without data.

    Raises:
        InputError: the model cannot be read or has parts that are not known here, or
            the folder holds a run.
    """
    if read_record(workdir) is not None:
        raise InputError(
            f"--workdir {workdir}: holds a run, expected a new folder; name another"
        )
    with opened_model(model) as files:
        checkpoint = read_torch_file(files.checkpoint)
        if not isinstance(checkpoint, dict) or "network_weights" not in checkpoint:
            raise InputError(
                f"{files.checkpoint}: has no network_weights, expected a checkpoint of "
                "nnU-Net 2"
            )
        made = imported_model(files.plans, files.dataset, checkpoint, config)
        params = params_from(
            checkpoint["network_weights"],
            order=made.order,
            regions=bool(made.config.data.regions),
        )
    config = made.config
    check_config(config, complete=True)
    levels = len(config.model.options.features) - 1
    if levels > 1:
        params.pop(f"head_{levels - 1}", None)  # without a weight in nnU-Net's loss
    network = create_network(config, axis_name=None)
    size = (*config.train.patch_size, made.preprocessing.channels)
    check_params(params, network, size)
    dataset = None
    if config.data.path or config.data.source != "folder":
        dataset = open_dataset(config, workdir)
    record = make_record(
        config.to_dict(),
        preprocessing=made.preprocessing.to_dict(),
        dataset={} if dataset is None else dataset.fingerprint,
        splits=None if dataset is None else dataset.splits_record,
    )
    _save(workdir, params)
    write_record(workdir, record)
    for note in made.notes:
        print(f"unet_jax: {note}")
    patch = " x ".join(map(str, config.train.patch_size))
    print(
        f"imported {shown(model)}: a {len(config.train.patch_size)}-D network of "
        f"{len(config.data.class_names)} classes, patch {patch}, now in {workdir}"
    )


def _save(workdir: pathlib.Path, params: Any) -> None:
    """Write the parameters as the only checkpoint of the run."""
    workdir.mkdir(parents=True, exist_ok=True)
    with Checkpoints(workdir / "checkpoints") as checkpoints:
        checkpoints.save(
            0,
            {"step": np.int32(0), "params": params, "batch_stats": {}},
            iterator_state={},
            record={},
            score=None,
        )
        checkpoints.wait()
