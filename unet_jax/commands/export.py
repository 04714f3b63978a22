"""Writes a finished run as a bundle that needs neither jax nor this package."""

import datetime
import importlib.util
import json
import pathlib
import shutil
import tempfile
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from ml_collections import ConfigDict

from unet_jax.errors import InputError, RunError
from unet_jax.experiment.distance import DISTANCE
from unet_jax.experiment.ensemble import (
    is_crossvalidation,
    load_folds,
    mean_segmenter,
    read_crossvalidation,
)
from unet_jax.experiment.finished import load_run
from unet_jax.experiment.folds import fold_folder
from unet_jax.experiment.inference import flipped_axes
from unet_jax.experiment.network import create_network, input_channels
from unet_jax.experiment.record import read_finished_record
from unet_jax.experiment.trained_run import TrainedRun
from unet_jax.export.bundle import bundle_of, copy_programs
from unet_jax.export.card import model_card
from unet_jax.export.features import with_features
from unet_jax.export.stablehlo import expiry, network_to_stablehlo
from unet_jax.inference.segmenter import Segmenter
from unet_jax.models.network import outputs_of

_LARGEST_WINDOW = 64
"""Pixels of an axis of a volume's window with which a written network is checked."""

_TOLERANCE = 1e-3
"""Largest difference of logits, of their standard deviation."""


def export_run(workdir: pathlib.Path, output: pathlib.Path) -> None:
    """Write a bundle: networks as ONNX, bundle.json, run.py and a model card.

    Args:
        workdir: folder of a finished run, or of a cross-validation, whose folds are
            the members of an ensemble.
        output: folder to make; it appears whole or not at all.

    Raises:
        InputError: the folder exists, a package is missing, there is no finished run,
            or the run uses what run.py cannot do.
    """
    _check(output)
    runs, folders, segmenter = _opened(workdir)
    output.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=output.parent, prefix=".export-") as made:
        folder = pathlib.Path(made) / output.name
        folder.mkdir()
        _write(folder, workdir, runs, folders, segmenter)
        folder.rename(output)
    size = sum(file.stat().st_size for file in output.iterdir())
    print(
        f"exported {workdir} to {output} ({size / 2**20:.1f} MiB); try: python "
        f"{output / 'run.py'} IMAGE -o LABELS"
    )


def _check(output: pathlib.Path) -> None:
    """Refuse an output that is there, and missing packages."""
    if output.exists():
        raise InputError(f"--output {output}: exists, expected a new folder")
    for package in ("onnx", "onnxruntime"):
        if importlib.util.find_spec(package) is None:
            raise InputError(
                f"--mode=export needs {package}, which is not installed; run: pip "
                "install 'unet_jax[export]'"
            )


def _opened(
    workdir: pathlib.Path,
) -> tuple[list[TrainedRun], list[pathlib.Path], Segmenter]:
    """Load the run of each member, its folder, and the mean of all."""
    if not is_crossvalidation(workdir):
        run = load_run(workdir)
        return [run], [workdir], run.predict_fn
    runs, steps = load_folds(workdir)
    content = read_crossvalidation(workdir)
    assert content is not None, "load_folds has read it"
    folders = [fold_folder(workdir, one["fold"]) for one in content["folds"]]
    return runs, folders, mean_segmenter(runs, steps)


def _write(
    folder: pathlib.Path,
    workdir: pathlib.Path,
    runs: Sequence[TrainedRun],
    folders: Sequence[pathlib.Path],
    segmenter: Segmenter,
) -> None:
    """Write every file of a bundle."""
    first, notes, files = runs[0], [], {}
    names = ["model.onnx"]
    if len(runs) > 1:
        names = [f"model_{index}.onnx" for index in range(len(runs))]
    reading, axes = first.reading, _mirrored(first.config)
    described: dict[str, Any] = dict(
        models=names,
        mirror_axes=axes,
        class_names=tuple(first.config.data.class_names),
        class_colors=tuple(first.config.data.class_colors),
        reading={
            "orientation": reading.orientation,
            "known_spacing": list(reading.known_spacing),
        },
    )
    bundle_of(segmenter, trust=None, **described)  # refuses before the work
    trust = _trust(first)
    for index, (run, name) in enumerate(zip(runs, names, strict=True)):
        model, difference, program, shape = _written_network(run)
        files[name] = "the network, ONNX"
        compiled = name.replace(".onnx", ".stablehlo")
        (folder / compiled).write_bytes(program)
        files[compiled] = expiry(shape, datetime.date.today())
        notes.append(
            f"{name}: its logits differ from JAX's by {difference:.1e} at most."
        )
        if index == 0 and trust is not None:
            featured = _with_features(run, model)
            if featured is None:
                trust = None
                notes.append(
                    "The do-not-trust measure of the run is left out: the features it "
                    "reads are no arrays of model.onnx."
                )
                print(f"warning: {notes[-1]}")
            model = featured or model
        (folder / name).write_bytes(model.SerializeToString())
    if trust is not None:
        shutil.copyfile(folders[0] / DISTANCE, folder / DISTANCE)
    bundle = bundle_of(segmenter, trust=trust, **described)
    text = json.dumps(bundle, indent=1, allow_nan=False)
    (folder / "bundle.json").write_text(text + "\n", encoding="utf-8")
    copy_programs(folder)
    card = _card(workdir, folders[0], first.config, bundle, files, notes)
    (folder / "MODEL_CARD.md").write_text(card, encoding="utf-8")


def _mirrored(config: ConfigDict) -> tuple[int, ...]:
    """Return the axes whose mirrored images a prediction averages."""
    return flipped_axes(config) if config.eval.mirror else ()


def _trust(run: TrainedRun) -> dict[str, Any] | None:
    """Describe the do-not-trust measure; None where the run has none."""
    describer = run.describer
    if describer is None or describer.familiar is None:
        return None
    window = list(describer.window)
    return {"reference": DISTANCE, "window": window, "windows": describer.count}


def _windows(run: TrainedRun) -> np.ndarray:
    """Return windows of noise with which networks are compared."""
    size, channels = run.config.train.patch_size, run.preprocessing.input_channels
    (member,) = run.predict_fn.members
    size, count = tuple(size), 2
    if len(size) == 3:
        count = 1
        if not any(member.margin):
            size = tuple(min(one, _LARGEST_WINDOW) for one in size)
    noise = np.random.default_rng(0).normal(size=(count, *size, channels))
    return noise.astype(np.float32)


def _written_network(run: TrainedRun) -> tuple[Any, float, bytes, str]:
    """Write the network of a run as ONNX and StableHLO, and check its logits.

    Returns:
        The ONNX model, the largest difference of its logits, the StableHLO program, and
        the shape that it takes.
    """
    import onnxruntime

    from unet_jax.export.onnx_network import network_to_onnx

    (member,) = run.predict_fn.members
    network = create_network(run.config, axis_name=None, implementation="plain")
    variables = jax.device_get(member.variables)
    channels = input_channels(run.config, run.preprocessing)
    size = tuple(run.config.train.patch_size)
    model = network_to_onnx(
        network, variables, channels=channels, spatial_dims=len(size)
    )
    windows = _windows(run)
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    (made,) = session.run(["logits"], {"image": windows})
    apply = jax.jit(lambda v, x: outputs_of(network.apply(v, x, train=False)).logits)
    expected = np.asarray(apply(variables, windows), np.float32)
    difference = float(np.abs(made - expected).max())
    exact = run.config.model.dtype == "float32"
    if exact and difference > _TOLERANCE * max(1.0, float(expected.std())):
        raise RunError(
            f"--mode=export: the logits of model.onnx differ by {difference:.2g} from "
            "those of the network; expected rounding alone; please report this network"
        )
    program, shape = network_to_stablehlo(
        network, variables, channels=channels, size=size
    )
    return model, difference, program, shape


def _with_features(run: TrainedRun, model: Any) -> Any | None:
    """Return the model with the features of the do-not-trust measure as outputs."""
    assert run.describer is not None, "the measure is there"
    windows = _windows(run)
    wanted = run.describer.features(run.describer.variables, windows)
    arrays = {name: np.asarray(value) for name, value in wanted.items()}
    return with_features(model, windows, arrays)


def _card(
    workdir: pathlib.Path,
    folder: pathlib.Path,
    config: ConfigDict,
    bundle: dict[str, Any],
    networks: dict[str, str],
    notes: list[str],
) -> str:
    """Write the model card from what the workdir states."""
    scores, split = None, "the test split"
    content = read_crossvalidation(workdir) if len(bundle["members"]) > 1 else None
    if content is not None:
        scores, split = content["postprocess"], "all cases, each by its held-out fold"
    elif (workdir / "test_metrics.json").exists():
        scores = json.loads((workdir / "test_metrics.json").read_text())
    if config.model.dtype != "float32":
        notes.append(
            f"The run computes in {config.model.dtype}, run.py in float32; labels may "
            "differ where two classes are about as likely."
        )
    train = read_finished_record(folder)["dataset"].get("train") or {}
    cases = train.get("records", len(train.get("ids", ())) or "an unknown number of")
    files = networks | {
        "bundle.json": "preprocessing, windows, classes, postprocessing",
        "run.py": "the program; run_*.py are its parts",
    }
    if bundle["trust"] is not None:
        files[DISTANCE] = "what images the network knows, numpy arrays"
    return model_card(
        name=config.name,
        data={"name": config.data.name or config.data.path, "train": cases},
        scores=scores,
        split=split,
        bundle=bundle,
        files=files,
        notes=notes,
    )
