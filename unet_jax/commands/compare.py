"""Scores a run's network and every other method on the same test cases."""

import dataclasses
import json
import pathlib
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from ml_collections import ConfigDict

from unet_jax.classical.channels import stored_channel
from unet_jax.classical.given import plan_search
from unet_jax.classical.methods import METHODS, fit_method
from unet_jax.classical.samples import Sample, thinned
from unet_jax.commands.compare_w_net import train_w_net
from unet_jax.commands.evaluate import held_out_losses
from unet_jax.commands.report import refresh_page
from unet_jax.data.case import Case, Source
from unet_jax.data.files.label_table import write_csv
from unet_jax.data.labelled_classes import with_all_labelled
from unet_jax.errors import InputError, Stopped
from unet_jax.evaluation.case_table import CASE_TABLE, case_rows
from unet_jax.evaluation.scorer import evaluate
from unet_jax.experiment.finished import load_run, open_run_data
from unet_jax.experiment.labels_only import DRAWN_SCORES, labels_only
from unet_jax.experiment.regions import score_groups, scored_names
from unet_jax.experiment.trained_run import TrainedRun
from unet_jax.method import Method, Spacing
from unet_jax.report.comparison import comparison_figure, comparison_markdown
from unet_jax.report.figure import write_figure
from unet_jax.report.histogram import histogram_figure
from unet_jax.runtime.atomic import atomic_path
from unet_jax.runtime.shown_path import shown
from unet_jax.runtime.stop import Stop
from unet_jax.unsupervised.matching import named_by_label
from unet_jax.unsupervised.methods import feature_clusters, fit_feature_clustering

if TYPE_CHECKING:
    from matplotlib.figure import Figure

NETWORK = "network"
"""Name of the trained network in ``compare.methods``."""

W_NET = "w_net"
CLUSTERING, CLUSTERING_MATCHED = "feature_clustering", "feature_clustering_matched"
UNSUPERVISED = (W_NET, CLUSTERING, CLUSTERING_MATCHED)
"""Methods with networks that learn from images without labels."""

FITTED, MATCHED = "fitted on training", "oracle-matched"
"""Blocks of the table. The segments of an oracle-matched method are named with the
labels of the same image, so its scores are too good."""


@dataclasses.dataclass(frozen=True)
class Ready:
    """A fitted method.

    Attributes:
        method: method that gives labels, or clusters in the oracle-matched block.
        chosen: values that were fitted on the training split, for the table.
        block: block of the table.
    """

    method: Method
    chosen: dict[str, Any]
    block: str = FITTED


def compare_methods(
    workdir: pathlib.Path, *, stop: Stop | None = None
) -> dict[str, Any]:
    """Score every method and a run's network on the run's test split.

    Args:
        workdir: folder of a finished run, whose config names the methods.
        stop: request to stop the W-Net's training; None for no such request.

    Returns: The content of comparison.json; comparison.md, comparison_per_case.csv,
        figures/comparison.png and figures/histogram.png are written beside it.
    Raises: InputError: there is no run, its data is gone, or a method or a parameter of
        one is unknown.
    """
    dataset = open_run_data(workdir)
    run = load_run(workdir)
    names = method_names(run.config.compare.methods)
    sources = {split: dataset.source(split) for split in ("train", "test")}
    if labels_only(run.config):
        print(DRAWN_SCORES)
    # A class that nobody labelled in a case would be background to these methods.
    train = with_all_labelled(sources["train"])
    samples = _samples(train if len(train) else sources["train"])
    _check_given(run.config, samples)
    rows: list[dict[str, Any]] = []
    pictures: list[np.ndarray | None] = []
    for number, name in enumerate(names, start=1):
        print(f"[{number}/{len(names)}] {name} ...", flush=True)
        began = time.perf_counter()
        try:
            ready = _make(name, run, samples, workdir, stop)
            fitted = time.perf_counter() - began
            row, picture = _score(ready, run.config, sources)
            row = {"method": name, "fit_seconds": round(fitted, 3), **row}
        except Stopped:
            raise
        except Exception as error:  # the other methods can still be scored
            reason = " ".join(f"{type(error).__name__}: {error}".split())
            row, picture = {"method": name, "failed": reason}, None
        print(f"[{number}/{len(names)}] {_summary(row)}", flush=True)
        rows.append(row)
        pictures.append(picture)
    results = {"class_names": list(scored_names(run.config)), "methods": rows}
    _write(workdir, results, sources["test"][0], pictures, run.config)
    figure = _histogram(results, samples, run.config)
    write_figure(workdir / "figures" / "histogram.png", figure)
    made = shown(workdir)
    print(f"table: {made}/comparison.md, figures: {made}/figures")
    refresh_page(workdir)
    return results


def method_names(wanted: Sequence[str]) -> tuple[str, ...]:
    """Return the names of the methods to compare.

    Args:
        wanted: ``compare.methods`` of a config; () for all.

    Returns: Names in the order of the table.
    Raises: InputError: an unknown name.
    """
    known = (*METHODS, *UNSUPERVISED, NETWORK)
    unknown = [name for name in wanted if name not in known]
    if unknown:
        raise InputError(
            f"compare.methods: unknown method {unknown[0]!r}; expected any of "
            f"{', '.join(known)}"
        )
    return tuple(wanted) or known


def _check_given(config: ConfigDict, samples: list[Sample]) -> None:
    """Refuse parameters in the config that a method does not have, before any work."""
    given = config.compare.parameters
    try:
        pairs = [(name, dict(values)) for name, values in given]
    except (TypeError, ValueError):
        raise InputError(
            f"compare.parameters: found {given!r}, expected pairs of a method and its "
            'values, such as (("manual_threshold", {"thresholds": (60,)}),)'
        ) from None
    for name, values in pairs:
        plan_search(
            name, samples, num_classes=len(config.data.class_names), parameters=values
        )


_SAMPLE_BYTES = 2**30
"""Memory in bytes for the training cases that methods are fitted on."""


def _samples(source: Source) -> list[Sample]:
    """Read as many training cases as fit in memory, spread evenly over the split."""
    first = source[0]
    assert first.label is not None, "training cases have labels"
    fitting = max(1, _SAMPLE_BYTES // (first.image.nbytes + first.label.nbytes))
    chosen = np.unique(
        np.linspace(0, len(source) - 1, min(fitting, len(source))).astype(int)
    )
    cases = (source[int(index)] for index in chosen)
    return [
        Sample(case.image, case.label, case.spacing, case.reference)
        for case in cases
        if case.label is not None
    ]


def _make(
    name: str,
    run: TrainedRun,
    samples: list[Sample],
    workdir: pathlib.Path,
    stop: Stop | None,
) -> Ready:
    """Fit one method on the training split."""
    config = run.config
    shared = {"num_classes": len(config.data.class_names), "seed": config.seed}
    if name == NETWORK:
        return Ready(run.predict_fn.method, {"checkpoint_step": run.step})
    if name == W_NET:
        return Ready(*train_w_net(config, workdir, stop=stop))
    axis = config.data.slice_axis
    if name == CLUSTERING:
        return Ready(*fit_feature_clustering(samples, slice_axis=axis, **shared))
    if name == CLUSTERING_MATCHED:
        return Ready(*feature_clusters(slice_axis=axis, **shared), block=MATCHED)
    parameters = dict(config.compare.parameters).get(name)
    fitted = fit_method(name, samples, parameters=parameters, **shared)
    return Ready(fitted.predict_fn, fitted.chosen)


def _score(
    ready: Ready, config: ConfigDict, sources: dict[str, Source]
) -> tuple[dict[str, Any], np.ndarray]:
    """Score a fitted method; return its row and its labels of the first case."""
    kept: list[np.ndarray] = []
    seconds: list[float] = []
    num_classes = len(config.data.class_names)

    def timed(image: np.ndarray, spacing: Spacing, **options: Any) -> np.ndarray:
        if not seconds:
            # Compiles what the method compiles, on a small piece.
            reference = options.get("reference")
            ready.method(_corner(image), spacing, reference=reference)
        began = time.perf_counter()
        labels = ready.method(image, spacing, **options)
        seconds.append(time.perf_counter() - began)
        return labels

    def named(case: Case, labels: np.ndarray) -> np.ndarray:
        if ready.block == MATCHED:
            assert case.label is not None, "test cases have labels"
            labels = named_by_label(labels, case.label, num_classes=num_classes)
        if not kept:
            kept.append(labels)
        return labels

    test = sources["test"]
    results = evaluate(
        dataclasses.replace(ready.method, function=timed),
        (test[index] for index in range(len(test))),
        class_names=tuple(config.data.class_names),
        regions=score_groups(config),
        include_background=config.data.include_background,
        metrics=tuple(config.eval.metrics),
        surface=config.eval.surface,
        losses=held_out_losses(config, sources),
        tolerance_mm=config.eval.tolerance_mm,
        tolerance_px=config.eval.tolerance_px,
        finish=named,
    )
    row = {
        "block": ready.block,
        "chosen": ready.chosen,
        "ms_per_image": round(1000 * float(np.median(seconds)), 2),
        **{key: results[key] for key in _SHOWN},
    }
    return row, kept[0]


_PIECE = 64
"""Pixels along each axis of the piece that a method is called with first."""

_SHOWN = ("mean", "ci95", "ci95_note", "per_class", "per_case", "n_cases", "n_groups")
"""Results of the scorer that a row keeps."""


def _corner(image: np.ndarray) -> np.ndarray:
    """Cut a small piece from the middle of an image."""
    middle = tuple(
        slice(max(0, size // 2 - _PIECE // 2), size // 2 + _PIECE // 2)
        for size in image.shape[:-1]
    )
    return image[middle]


def _summary(row: dict[str, Any]) -> str:
    """Write one line of progress."""
    if "failed" in row:
        return f"{row['method']} FAILED: {row['failed']}"
    chosen = ", ".join(f"{k} {_rounded(v)}" for k, v in row["chosen"].items())
    return (
        f"{row['method']}: Dice {row['mean']['dice']:.4f}, "
        f"{row['ms_per_image']:.0f} ms an image; {chosen}"
    )


def _rounded(value: Any) -> str:
    """Write a value with few digits."""
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, list):
        return f"({', '.join(_rounded(one) for one in value)})"
    return str(value)


def _write(
    workdir: pathlib.Path,
    results: dict[str, Any],
    first: Case,
    pictures: list[np.ndarray | None],
    config: ConfigDict,
) -> None:
    """Write the tables as JSON, CSV and Markdown, and the figure."""
    with atomic_path(workdir / "comparison.json") as temporary:
        temporary.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    if rows := _method_rows(results):
        write_csv(workdir / f"comparison_{CASE_TABLE}", rows)
    text = comparison_markdown(results)
    with atomic_path(workdir / "comparison.md") as temporary:
        temporary.write_text(text, encoding="utf-8")
    assert first.label is not None, "test cases have labels"
    figure = comparison_figure(
        first.image,
        first.label,
        results,
        pictures,
        slice_axis=config.data.slice_axis,
        spacing=first.spacing,
        class_colors=tuple(config.data.class_colors),
    )
    write_figure(workdir / "figures" / "comparison.png", figure)
    print(text)


def _method_rows(results: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the scores of each method, case and class, without methods that failed."""
    return [
        {"method": row["method"], **scores}
        for row in results["methods"]
        if "failed" not in row
        for scores in case_rows(row)
    ]


_HISTOGRAM_PIXELS = 2**22


def _histogram(
    results: dict[str, Any], samples: list[Sample], config: ConfigDict
) -> "Figure":
    """Draw the training intensities with the global thresholds of the methods."""
    chosen = {
        row["method"]: row["chosen"]
        for row in results["methods"]
        if row.get("chosen", {}).get("thresholds")
    }
    several = samples[0].image.shape[-1] > 1
    channels = [values["channel"] for values in chosen.values()]
    channel = channels[0] if channels else ("mean" if several else 0)
    shown = thinned(samples, pixels=_HISTOGRAM_PIXELS)
    return histogram_figure(
        [stored_channel(sample.image, channel) for sample in shown],
        [sample.label for sample in shown],
        {
            name: values["thresholds"]
            for name, values in chosen.items()
            if values["channel"] == channel
        },
        class_names=tuple(config.data.class_names),
        class_colors=tuple(config.data.class_colors),
    )
