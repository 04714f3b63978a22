"""Plans a data set as nnU-Net does, and writes each network as a config and a picture.

The data are a folder, or what nnU-Net has written: ``dataset_fingerprint.json`` with
``dataset.json`` beside it, or ``plans.json``.
"""

import pathlib
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
from ml_collections import ConfigDict

from unet_jax.data.fingerprint import suggested_intensity
from unet_jax.errors import InputError
from unet_jax.experiment.check import check_config
from unet_jax.experiment.complete import fill_config, resolve_source
from unet_jax.experiment.config_writer import config_text
from unet_jax.experiment.data import open_dataset
from unet_jax.experiment.options import given_options
from unet_jax.experiment.planned import (
    plan_of_folder,
    planned_values,
    with_batch_dice,
)
from unet_jax.nnunet.files import read_fingerprint, read_plans
from unet_jax.nnunet.planner import Plan, plan_dataset
from unet_jax.nnunet.stages import PRESETS
from unet_jax.report.stages import DrawnNetwork, write_stages
from unet_jax.runtime.atomic import atomic_path

_ORDER = ("2d", "3d_fullres", "3d_lowres")
_CASCADE = "3d_cascade_fullres"
_PICTURE = "stages.png"


class _Planned(NamedTuple):
    """A plan, and the config of each of its configurations."""

    plan: Plan
    configs: dict[str, ConfigDict]


def plan_data(
    config: ConfigDict,
    *,
    file: pathlib.Path | None,
    output: pathlib.Path,
    overwrite: bool = False,
) -> None:
    """Plan a data set, print the plan, and write ``NAME.py`` and a picture.

    Args:
        config: config whose recipe the written ones have; its ``model.plan`` is the
            preset, "plain" if it has none.
        file: a file of nnU-Net; None to read ``data.path``.
        output: folder for the configs.
        overwrite: whether files of an earlier plan are replaced.

    Raises:
        InputError: there is nothing to plan, the folder has problems, or a file exists.
    """
    if file is None and not config.data.path:
        raise InputError(
            "--mode=plan: found neither data.path nor --topology; give "
            "--config.data.path=FOLDER to plan a data set, or --topology=v5e:4x4 to "
            "plan a training step on a TPU slice"
        )
    # As a plan of a slice: other processes may need the accelerator.
    jax.config.update("jax_platforms", "cpu")
    config = resolve_source(config)
    base = "nnunet" if config.model.plan else "folder"
    with (wanted := config.copy_and_resolve_references()).unlocked():
        wanted.model.plan = config.model.plan or "plain"
    check_config(wanted)
    gib = config.train.memory_gib or PRESETS[wanted.model.plan].gib
    planned = _of_file(wanted, file, gib) if file else _of_folder(wanted, gib)
    if {"3d_fullres", "3d_lowres"} <= set(planned.configs):
        planned.configs[_CASCADE] = _cascade(planned.configs, config.name)
    paths = [output / f"{name}.py" for name in planned.configs] + [output / _PICTURE]
    if not overwrite and (old := [path for path in paths if path.exists()]):
        raise InputError(
            f"--output {output}: {old[0].name} exists already; name another folder, or "
            "add --overwrite"
        )
    print(_plan_text(planned, gib))
    for name, one in planned.configs.items():
        path = output / f"{name}.py"
        about = (
            f"Trains {name} of the plan of {file or config.data.path}.\n\n"
            f"    unet-jax --config={path}\n\nEdit what you want to change."
        )
        with atomic_path(path) as temporary:
            temporary.write_text(config_text(one, base=base, about=about))
        print(f"written     {path}")
    drawn = [_drawn(name, one) for name, one in planned.configs.items()]
    write_stages(output / _PICTURE, drawn)
    print(f"written     {output / _PICTURE}")


def _of_folder(config: ConfigDict, gib: float) -> _Planned:
    """Plan the cases of a folder."""
    data: Any = open_dataset(config, None)
    with config.unlocked():
        config.train.memory_gib = gib
    intensity = data.intensity or suggested_intensity(data.traits)
    plan = plan_of_folder(config, data, intensity)
    for line in data.notes:
        print(f"data        {line}")
    configs = {}
    for name in sorted(plan.configurations, key=_place):
        with (one := config.copy_and_resolve_references()).unlocked():
            one.data.dims = 2 if name == "2d" else 3
        configs[name] = _explicit(
            fill_config(one, data, gib=gib, resolution=name), config.name, name
        )
    return _Planned(plan, configs)


def _of_file(config: ConfigDict, file: pathlib.Path, gib: float) -> _Planned:
    """Plan what a file of nnU-Net describes."""
    if file.name == "dataset_fingerprint.json":
        data = read_fingerprint(file)
        plan = plan_dataset(data, preset=config.model.plan, gib=gib)
    else:
        plan = read_plans(file)
    axes = 3 if set(plan.configurations) - {"2d"} else 2
    configs = {}
    for name in sorted(plan.configurations, key=_place):
        found = planned_values(plan, plan.configurations[name], image_axes=axes)
        one = config.copy_and_resolve_references()
        with one.unlocked(), one.ignore_type():
            one.loss = with_batch_dice(one.loss, found.values.pop("loss.batch_dice"))
            for key, value in found.values.items():
                section, _, leaf = key.rpartition(".")
                if one[section][leaf] in (None, "median"):
                    one[section][leaf] = value
            one.model.options.update({**found.options, **given_options(one)})
        configs[name] = _explicit(one, config.name, name)
    return _Planned(plan, configs)


def _place(name: str) -> tuple[int, str]:
    """Return the place of a configuration: nnU-Net's own come first."""
    return (_ORDER.index(name) if name in _ORDER else len(_ORDER), name)


def _explicit(config: ConfigDict, name: str, resolution: str) -> ConfigDict:
    """Return a config that says what the planner would choose."""
    with (found := config.copy_and_resolve_references()).unlocked():
        found.model.plan = ""
        found.name = f"{name}_{resolution}"
    return found


def _cascade(configs: Mapping[str, ConfigDict], name: str) -> ConfigDict:
    """Return the config of full resolution on the predictions of low resolution."""
    found = configs["3d_fullres"].copy_and_resolve_references()
    with found.unlocked():
        found.name = f"{name}_{_CASCADE}"
        found.data.previous_stage = f"runs/{configs['3d_lowres'].name}"
    return found


def _plan_text(planned: _Planned, gib: float) -> str:
    """Write a plan for people; axes are those of the images."""
    plan = planned.plan
    lines = [f"plan        nnU-Net's rules, {plan.preset}, {gib:g} GiB"]
    for index, scheme in enumerate(plan.normalization):
        masked = ", its empty part stays zero" if plan.masked[index] else ""
        lines.append(f"channel {index}   {scheme}{masked}")
    for name, config in planned.configs.items():
        options = config.model.options
        spacing = config.data.spacing
        grid = "" if isinstance(spacing, str) else f", {_times(spacing)} mm"
        lines += [
            f"{name:<11} {config.train.batch_size} crops of "
            f"{_times(config.train.patch_size)}{grid}",
            f"            features {' '.join(map(str, options.features))}",
            f"            kernels {' '.join(map(_times, options.kernel_sizes))}",
            f"            strides {' '.join(map(_times, options.strides))}",
            f"            blocks {' '.join(map(str, options.convolutions_per_stage))}",
        ]
    if plan.cascade:
        lines.append(
            f"cascade     {_CASCADE} sees what 3d_lowres predicts: train that first"
        )
    return "\n".join(lines)


def _times(sizes: Any) -> str:
    """Write sizes of axes."""
    return "x".join(f"{size:.4g}" for size in sizes)


def _drawn(name: str, config: ConfigDict) -> DrawnNetwork:
    """Return what the picture shows of a network."""
    options, train = config.model.options, config.train
    return DrawnNetwork(
        f"{name}: {train.batch_size} crops of {_times(train.patch_size)}",
        train.patch_size,
        options.features,
        options.kernel_sizes,
        options.strides,
        options.convolutions_per_stage,
    )
