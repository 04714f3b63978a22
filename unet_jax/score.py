"""The test split: its table, test_metrics.json, label maps and pictures."""

import pathlib
import re
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from unet_jax.data.case import Case, Source
from unet_jax.data.stored import StoredImage
from unet_jax.data.writing import write_label_map
from unet_jax.evaluate import evaluate, write_results
from unet_jax.experiment import load_run, open_dataset
from unet_jax.report.overlay import overlay, write_figure
from unet_jax.report.table import results_table


def evaluate_run(workdir: pathlib.Path) -> dict[str, Any]:
    """Score the test split of a finished run again.

    Args:
        workdir: folder of the run; nothing else is needed.

    Returns:
        The content of test_metrics.json, which is replaced.

    Raises:
        InputError: there is no run, or its data is gone.
    """
    return score_run(workdir, None)


def score_run(
    workdir: pathlib.Path, sources: Mapping[str, Source] | None
) -> dict[str, Any]:
    """Score the test split with the best checkpoint; write and print what came out.

    Args:
        workdir: folder of the run.
        sources: the cases of each split; None to open the data of the run's config.

    Returns:
        The content of test_metrics.json.

    Raises:
        InputError: there is no run, or its data is gone.
    """
    run = load_run(workdir)
    config = run.config
    if sources is None:
        dataset = open_dataset(config, workdir)
        source = dataset.source("test")
    else:
        source = sources["test"]
    class_names = tuple(config.data.class_names)
    class_colors = tuple(config.data.class_colors)
    print(f"test split with the checkpoint of step {run.step}:")
    current: list[Case] = []

    def cases() -> Iterator[Case]:
        for index in range(len(source)):
            current[:] = [source[index]]
            yield current[0]

    drawn = 0

    def recorded(
        image: np.ndarray,
        spacing: tuple[float, ...] | None,
        *,
        reference: tuple[tuple[float, float], ...] | None = None,
    ) -> np.ndarray:
        nonlocal drawn
        labels = run.predict_fn(image, spacing, reference=reference)
        case = current[0]
        stored = _as_stored(case)
        write_label_map(workdir / "predictions", stored, labels, class_colors)
        if drawn < config.log.overlays:
            drawn += 1
            figure = overlay(
                case.image,
                case.label,
                labels,
                slice_axis=config.data.slice_axis,
                spacing=case.spacing,
                class_names=class_names,
                class_colors=class_colors,
                title=case.id,
            )
            write_figure(workdir / "figures" / f"{_file_stem(case.id)}.png", figure)
        return labels

    results = evaluate(
        recorded,
        cases(),
        class_names=class_names,
        include_background=config.data.include_background,
        tolerance_mm=config.eval.tolerance_mm,
        tolerance_px=config.eval.tolerance_px,
        slice_axis=config.data.slice_axis,
    )
    results["checkpoint_step"] = run.step
    write_results(workdir / "test_metrics.json", results)
    print(results_table(results, class_names))
    print(f"scores: {workdir / 'test_metrics.json'}, pictures: {workdir / 'figures'}")
    return results


def _as_stored(case: Case) -> StoredImage:
    """Describe a case as the file that its label map is written like."""
    stem = _file_stem(case.id)
    if case.image.ndim == 3:
        path = pathlib.Path(f"{stem}.png")
        return StoredImage(path, case.image, None, case.spacing, "picture")
    return StoredImage(
        path=pathlib.Path(f"{stem}.nii.gz"),
        image=case.image,
        affine=np.diag([*(case.spacing or (1.0, 1.0, 1.0)), 1.0]),
        spacing=case.spacing,
        kind="volume",
    )


def _file_stem(case_id: str) -> str:
    """Turn an id into a file name."""
    return re.sub(r"[^\w.-]+", "_", case_id)
