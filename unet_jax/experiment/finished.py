"""Loads a finished run from its workdir: network, preprocessing, postprocessing."""

import dataclasses
import json
import pathlib
import zipfile
from collections.abc import Callable, Mapping
from typing import Any

import flax.linen as nn
import jax
import numpy as np
from ml_collections import ConfigDict

from unet_jax.data.preprocess import Preprocessing
from unet_jax.errors import InputError, listed_lines
from unet_jax.experiment.check import check_config
from unet_jax.experiment.data import (
    Dataset,
    check_same_spacing,
    open_dataset,
    recorded_splits,
)
from unet_jax.experiment.distance import DISTANCE, Describer
from unet_jax.experiment.inference import (
    CompiledNetwork,
    compile_network,
    create_predict_fn_maker,
)
from unet_jax.experiment.network import create_network, input_channels
from unet_jax.experiment.previous_stage import previous_stage_of
from unet_jax.experiment.record import as_tuples, check_same_data, read_finished_record
from unet_jax.experiment.trained_run import TrainedRun
from unet_jax.inference.distance import Familiar
from unet_jax.inference.features import make_features
from unet_jax.inference.postprocess import Step, apply_steps
from unet_jax.inference.risk import Threshold
from unet_jax.models.network import adapted_params
from unet_jax.runtime.compilation import use_compilation_cache
from unet_jax.runtime.shown_path import shown
from unet_jax.training.checkpoint import Checkpoints
from unet_jax.training.devices import local_copy, on_local_devices
from unet_jax.training.named_arrays import check_fit, transfer
from unet_jax.training.other_data import Form, fitted_to
from unet_jax.training.step import TrainState, averaged_variables

TEMPERATURE = "temperature.json"
"""File of a workdir with the temperature that was fitted on validation."""

RISK = "risk.json"
"""File of a workdir with the threshold of the class that must not be missed."""


def read_run(workdir: pathlib.Path) -> tuple[ConfigDict, Preprocessing]:
    """Read config and preprocessing from the record of a run."""
    record, path = read_finished_record(workdir), workdir / "config.json"
    try:
        config = ConfigDict(as_tuples(record["config"]))
        check_config(config, complete=True)
        return config, Preprocessing.from_dict(record["preprocessing"])
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        # A key is missing or has another type: an edit, or another version.
        found = " ".join(str(error).split())
        raise InputError(
            f"{path}: does not describe a run ({found}); restore the file, or use the "
            "version of unet_jax that wrote it"
        ) from error


def open_run_data(workdir: pathlib.Path) -> Dataset:
    """Open the data of a run without its network; refuse data that have changed."""
    config, _ = read_run(workdir)
    record = read_finished_record(workdir)
    dataset = open_dataset(config, workdir, recorded=recorded_splits(record))
    check_same_data(workdir, record, dataset.fingerprint)
    check_same_spacing(workdir, record, dataset)
    return dataset


def _check_weights(
    path: pathlib.Path,
    network: nn.Module,
    size: tuple[int, ...],
    variables: dict[str, Any],
) -> None:
    """Refuse weights that do not fit the network."""
    patch = jax.ShapeDtypeStruct((1, *size), np.float32)
    # The key is made inside: outside it would be a program of its own.
    expected = jax.eval_shape(lambda x: network.init(jax.random.key(0), x), patch)
    check_fit(path, saved=variables, template={"batch_stats": {}, **expected})


def load_run(
    workdir: pathlib.Path,
    *,
    compiled: CompiledNetwork | None = None,
    complete: bool = True,
) -> TrainedRun:
    """Load the best checkpoint of a run; only its workdir is needed.

    Args:
        compiled: network that this process has trained or resumed; None to build it,
            and to check that the weights fit it.
        complete: refuse a run that has not chosen the threshold of its ``eval.risk``.

    Raises:
        InputError: there is no run, or no checkpoint that can be read.
    """
    config, preprocessing = read_run(workdir)
    use_compilation_cache(config.compilation_cache_dir)
    with Checkpoints(workdir / "checkpoints", read_only=True) as checkpoints:
        step = checkpoints.best_step()
        if step is None:
            step = checkpoints.latest_step()
        state = checkpoints.restore_raw(step)
    variables = averaged_variables(state)
    if compiled is None:
        network = create_network(config, axis_name=None)
        path = workdir / "checkpoints" / str(step)
        size = (*config.train.patch_size, input_channels(config, preprocessing))
        _check_weights(path, network, size, variables)
        compiled = compile_network(config, network)
    previous = previous_stage_of(config, workdir, load_run)
    make_predict_fn = create_predict_fn_maker(
        config, compiled, preprocessing, validation=False, previous=previous
    )
    predict_fn = make_predict_fn(on_local_devices(variables))
    steps = read_steps(workdir, config.eval.postprocess)
    temperature = _read_temperature(workdir, config.eval.get("temperature"), step)
    predict_fn = dataclasses.replace(
        predict_fn,
        steps=steps,
        temperature=temperature,
        threshold=_read_threshold(workdir, config, step) if complete else None,
    )
    predict_fn = predict_fn.named(read_clusters_of_classes(workdir))
    describer = Describer(
        make_features(compiled.network),
        predict_fn.members[0].variables,
        preprocessing,
        tuple(config.train.patch_size),
        familiar=_read_familiar(workdir / DISTANCE, step),
        previous=previous,
    )
    return TrainedRun(config, preprocessing, step, predict_fn, describer)


def init_from(
    state: TrainState,
    workdir: pathlib.Path,
    network: nn.Module,
    form: Form | None = None,
) -> TrainState:
    """Take the weights of another run's best checkpoint, and print what does not fit.

    Args:
        workdir: folder of the other run.
        form: channels and classes of this run, for which the first kernel and the head
            are fitted (`other_data.fitted_to`); None for those of the other run.

    Raises:
        InputError: there is no such run, or no kernel of its network fits.
    """
    record = read_finished_record(workdir)
    with Checkpoints(workdir / "checkpoints", read_only=True) as checkpoints:
        step = checkpoints.best_step()
        source = averaged_variables(checkpoints.restore_raw(step))
    params = adapted_params(network, source["params"])
    fitted: list[str] = []
    if form is not None:
        config, preprocessing = read_run(workdir)
        there = form_of(record["config"], input_channels(config, preprocessing))
        params, fitted = fitted_to(
            params, local_copy(state.params), there_form=there, here_form=form
        )
    weights = transfer(state.params, params)
    if not weights.kernels:
        raise InputError(
            f"init_from: no kernel of {shown(workdir)} fits this network (such as "
            f"{weights.skipped[0]}), expected some of equal names and shapes; take "
            "model.name and model.options from the config.json there, or leave "
            "init_from empty"
        )
    stats = transfer(state.batch_stats, source["batch_stats"])
    skipped = [*weights.skipped, *(f"batch_stats/{line}" for line in stats.skipped)]
    print(
        f"init_from {shown(workdir)} (step {step or 'latest'}): "
        f"{weights.copied + stats.copied} arrays copied, {len(skipped)} skipped"
    )
    lines = [f"fitted {one}" for one in fitted]
    for line in listed_lines([*lines, *(f"skipped {one}" for one in skipped)]):
        print(f"  {line}")
    return state.starting_from(weights.params, stats.params)


def form_of(config: Mapping[str, Any], channels: int) -> Form:
    """Return what the ends of a run's network depend on."""
    clusters = config["model"].get("clusters") is not None
    data = config["data"]
    names = tuple(data["class_names"])
    if regions := data.get("regions"):
        names = (names[0], *(one[0] for one in regions))
    return Form(channels, () if clusters else names)


def read_clusters_of_classes(
    workdir: pathlib.Path,
) -> tuple[tuple[int, ...], ...] | None:
    """Read the clusters of each class; None where nothing was matched."""
    return _written_at_end(
        workdir / "clusters.json",
        lambda found: tuple(tuple(map(int, one)) for one in found["clusters_of_class"]),
    )


def _read_temperature(
    workdir: pathlib.Path, wanted: Any, step: int | None
) -> float | None:
    """Return the temperature of a run, from its config or from temperature.json.

    None where there is none, as in version 0.1, or where another checkpoint has it.
    """
    if wanted != "fit":
        return None if wanted is None else float(wanted)
    found = _written_at_end(
        workdir / TEMPERATURE,
        lambda found: (found["checkpoint_step"], float(found["temperature"])),
    )
    return found[1] if found is not None and found[0] == step else None


def _read_familiar(path: pathlib.Path, step: int | None) -> Familiar | None:
    """Return what the network knows; None where no run of this step wrote it."""
    try:
        return Familiar.load(path, step=step)
    except FileNotFoundError:  # version 0.1, or eval.distance=False
        return None
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise InputError(
            f"{path}: cannot be read ({type(error).__name__}: {error}); restore it, or "
            "move it away: predictions are then made without a distance"
        ) from error


@dataclasses.dataclass(frozen=True)
class Risk:
    """Class that must not be missed, and the largest fraction of it that may be."""

    index: int
    name: str
    alpha: float


def risk_of(config: ConfigDict) -> Risk | None:
    """Return what ``eval.risk`` asks for; None for nothing, as in version 0.1."""
    risk = config.eval.get("risk")
    if risk is None:
        return None
    wanted, alpha = risk
    names = tuple(config.data.class_names)
    index = names.index(wanted) if isinstance(wanted, str) else int(wanted)
    return Risk(index, names[index], float(alpha))


def _read_threshold(
    workdir: pathlib.Path, config: ConfigDict, step: int | None
) -> Threshold | None:
    """Return the threshold that ``eval.risk`` asks for; None for none.

    Raises:
        InputError: the run has not chosen it.
    """
    risk = risk_of(config)
    if risk is None:
        return None
    wanted = {"checkpoint_step": step, "class": risk.name, "alpha": risk.alpha}
    found = _written_at_end(
        workdir / RISK,
        lambda found: ({key: found[key] for key in wanted}, float(found["threshold"])),
    )
    if found is None or found[0] != wanted:
        raise InputError(
            f"{workdir / RISK}: found no threshold for eval.risk and the checkpoint of "
            f"step {step}; run the training command again, which chooses it"
        )
    return Threshold(risk.index, found[1])


def _written_at_end(path: pathlib.Path, parse: Callable[[Any], Any]) -> Any:
    """Read JSON that the end of a run wrote; None where it has not."""
    if not path.exists():
        return None
    try:
        return parse(json.loads(path.read_text()))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(
            f"{path}: cannot be read ({type(error).__name__}: {error}); restore it, or "
            "move it away and run the training command again, which writes it"
        ) from error


def _indices(given: Any) -> int | tuple[int, ...]:
    """Read a class index, or several."""
    return tuple(map(int, given)) if isinstance(given, list | tuple) else int(given)


def read_steps(workdir: pathlib.Path, wanted: Any) -> tuple[Step, ...]:
    """Return the postprocessing of a run, from its config or from postprocess.json.

    Args:
        wanted: value of ``eval.postprocess``: steps, or "auto" for the chosen ones.

    Returns:
        The steps; () for "auto" before steps are chosen.

    Raises:
        InputError: the steps have another form.
    """
    if wanted == "auto":
        path = workdir / "postprocess.json"
        wanted = _written_at_end(path, lambda found: found["steps"])
    return parse_steps(wanted)


def parse_steps(wanted: Any) -> tuple[Step, ...]:
    """Return the steps of a postprocessing as JSON or a config gives them.

    Raises:
        InputError: the steps have another form.
    """
    try:
        steps = tuple(
            (str(name), _indices(index), number) for name, index, number in wanted or ()
        )
        apply_steps(np.zeros((1, 1), np.uint8), steps)
    except (TypeError, ValueError) as error:
        raise InputError(
            f"eval.postprocess: {error}; expected 'auto', or steps such as "
            "(('largest_component', 1, None), ('min_size', 1, 20))"
        ) from None
    return steps
