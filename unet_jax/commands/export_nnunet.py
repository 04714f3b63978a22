"""Writes the network of a run as a trained model of nnU-Net."""

import pathlib
import shutil

from unet_jax.errors import InputError
from unet_jax.experiment.finished import load_run
from unet_jax.experiment.from_nnunet import imported_model
from unet_jax.experiment.network import input_channels
from unet_jax.experiment.options import given_options
from unet_jax.experiment.regions import regions_of, scored_names
from unet_jax.models.nnunet_weights import weights_from
from unet_jax.models.pytorch.read import read_torch_file
from unet_jax.models.pytorch.write import write_torch_file
from unet_jax.nnunet.model_folder import CHECKPOINT, DESCRIPTIONS, opened_model


def export_nnunet(
    workdir: pathlib.Path, model: pathlib.Path, output: pathlib.Path
) -> None:
    """Write a model folder that nnU-Net 2 predicts with.

    Args:
        workdir: folder of a run that was imported, or started from an imported one and
            has its network, classes and preprocessing.
        model: the model that was imported: its plans and description are copied, and
            its network decides the names of the weights.
        output: folder to make.

    Raises:
        InputError: the folder exists, or the run has another network than the model.
    """
    if output.exists():
        raise InputError(f"--output {output}: exists, expected a new folder")
    run = load_run(workdir)
    with opened_model(model) as files:
        checkpoint = read_torch_file(files.checkpoint)
        made = imported_model(files.plans, files.dataset, checkpoint)
        options, theirs = given_options(run.config), given_options(made.config)
        for key, value in theirs.items():
            if options.get(key) != value:
                raise InputError(
                    f"--workdir {workdir}: its network has {key}={options.get(key)!r}, "
                    f"the model {value!r}; expected the same network; name the model "
                    "that was imported"
                )
        channels = input_channels(run.config, run.preprocessing)
        if channels != made.preprocessing.channels:
            raise InputError(
                f"--workdir {workdir}: its network sees {channels} channels, the model "
                f"{made.preprocessing.channels}; expected as many"
            )
        names, expected = scored_names(run.config), scored_names(made.config)
        regions = regions_of(run.config)
        if names != expected or regions != regions_of(made.config):
            raise InputError(
                f"--workdir {workdir}: has the classes {', '.join(names)}, the model "
                f"{', '.join(expected)}; expected the same"
            )
        (member,) = run.predict_fn.members
        weights = weights_from(
            member.variables["params"],
            options,
            order=made.order,
            regions=regions is not None,
        )
        (output / "fold_0").mkdir(parents=True)
        for name in DESCRIPTIONS:
            shutil.copy(files.checkpoint.parents[1] / name, output / name)
        axes = checkpoint.get("inference_allowed_mirroring_axes")
        write_torch_file(
            output / "fold_0" / CHECKPOINT,
            {
                "network_weights": weights,
                "trainer_name": "nnUNetTrainer",
                "init_args": {
                    "configuration": checkpoint["init_args"]["configuration"],
                    "fold": 0,
                },
                "inference_allowed_mirroring_axes": axes and tuple(axes),
            },
        )
    print(f"exported {workdir} to {output}, fold_0")
