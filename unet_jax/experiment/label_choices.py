"""Fits what a trained network leaves open on labelled splits, and writes it down.

A network that learnt from images alone gets its clusters matched with the classes; the
postprocessing of labels and the temperature of probabilities are chosen. `finished`
reads the files back.
"""

import base64
import dataclasses
import json
import pathlib
from collections.abc import Iterator, Sequence

import numpy as np
from ml_collections import ConfigDict

from unet_jax.data.case import Case, Source
from unet_jax.data.labelled_classes import with_all_labelled
from unet_jax.experiment.finished import TEMPERATURE
from unet_jax.experiment.trained_run import TrainedRun
from unet_jax.hosts import agree
from unet_jax.inference.postprocess import choose_steps
from unet_jax.inference.segmenter import Segmenter
from unet_jax.inference.temperature import Sample, drawn_pixels, fit_temperature
from unet_jax.losses.terms import reads_labels
from unet_jax.runtime.atomic import atomic_path
from unet_jax.unsupervised.naming import ClusterNaming, Segmented

CUT = "soft_ncut"
"""The loss whose weights decide which clusters are merged."""


def with_named_clusters(
    workdir: pathlib.Path, run: TrainedRun, train: Source
) -> Segmenter:
    """Match clusters with the training labels, and write clusters.json."""
    class_names = tuple(run.config.data.class_names)
    plain = run.predict_fn.of_clusters()

    # The intensities that the network saw, on the grid of the labels.
    scaling = dataclasses.replace(
        run.preprocessing, crop_nonzero=False, spacing=None, size=None
    )

    def segmented() -> Iterator[Segmented]:
        for index in range(len(train)):
            case = train[index]
            clusters = plain(case.image, case.spacing, reference=case.reference)
            image, _ = scaling.apply(case.image, None, reference=case.reference)
            assert case.label is not None, "training cases have labels"
            yield Segmented(clusters, image, case.label)

    naming = ClusterNaming(
        num_clusters=plain.num_classes,
        num_classes=len(class_names),
        slice_axis=run.config.data.slice_axis,
        weights=next((how for name, _, how in run.config.loss if name == CUT), {}),
    )
    groups = naming.groups(segmented())
    with atomic_path(workdir / "clusters.json") as temporary:
        found = {"checkpoint_step": run.step, "clusters_of_class": groups}
        temporary.write_text(json.dumps(found) + "\n")
    named = ", ".join(
        f"{name} {' '.join(map(str, group))}"
        for name, group in zip(class_names, groups, strict=True)
    )
    print(f"clusters of each class, matched on the training split: {named}")
    return run.predict_fn.named(groups)


def with_validation_choices(
    workdir: pathlib.Path,
    segmenter: Segmenter,
    validation: Source,
    *,
    step: int | None,
    steps: bool,
    temperature: bool,
) -> Segmenter:
    """Choose postprocessing and temperature in one pass over the validation split.

    Args:
        workdir: folder for postprocess.json and temperature.json.
        segmenter: network, or several.
        validation: labelled cases; those in which all classes are labelled choose.
        step: step of the checkpoint.
        steps: choose the postprocessing.
        temperature: fit the temperature.

    Returns: The segmenter with what was chosen.
    """
    if not (steps or temperature):
        return segmenter
    validation = with_all_labelled(validation)
    if not len(validation):
        print(
            "postprocessing and temperature: none is fitted, because no validation "
            "case has all classes labelled"
        )
        return segmenter
    plain = dataclasses.replace(segmenter, steps=())
    samples: list[Sample] = []
    pairs = []
    # Steps are chosen by all processes, from all cases; pixels are sent around.
    every = range(len(validation))
    for index in every if steps else agree.indices_here(len(every)):
        case = validation[index]
        assert case.label is not None, "validation has labels"
        labels, sample = _segmented(plain, case, index, len(every))
        samples.append(sample)
        if steps:
            pairs.append((labels, case.label))
    if steps:
        segmenter = _with_chosen_steps(workdir, segmenter, pairs)
    if temperature:
        samples = samples if steps else _gathered(samples)
        segmenter = _with_fitted_temperature(workdir, step, segmenter, samples)
    return segmenter


def fits_temperature(config: ConfigDict) -> bool:
    """Whether the temperature is fitted: with labels that the network learnt from."""
    # Version 0.1 had no such key.
    return config.eval.get("temperature") == "fit" and reads_labels(config.loss)


_SAMPLED = 2**20
"""Largest number of probabilities that a temperature is fitted to."""


def _segmented(
    segmenter: Segmenter, case: Case, index: int, cases: int
) -> tuple[np.ndarray, Sample]:
    """Segment a case; return its labels, and pixels of it with their probabilities.

    The draw depends on the number of the case alone, not on the process.
    """
    assert case.label is not None
    label, axis = case.label, segmenter.band_axis(case.label.shape)
    planes = np.moveaxis(label, axis, 0)
    count = max(1, _SAMPLED // (segmenter.num_classes * cases))
    drawn = np.moveaxis(drawn_pixels(planes, count=count, seed=index), 0, axis)
    probabilities, classes = [], []

    def watch(place: tuple[slice | int, ...], scores: np.ndarray) -> None:
        probabilities.append(scores[drawn[place]].astype(np.float32))
        classes.append(label[place][drawn[place]])

    labels = segmenter(
        case.image, case.spacing, name=case.id, reference=case.reference, watch=watch
    )
    return labels, (np.concatenate(probabilities), np.concatenate(classes))


def _gathered(samples: Sequence[Sample]) -> list[Sample]:
    """Collect the samples of all processes, in the order of the cases."""
    mine = [
        [
            base64.b64encode(probabilities.tobytes()).decode(),
            probabilities.shape[-1],
            labels.tolist(),
        ]
        for probabilities, labels in samples
    ]
    return [
        (
            np.frombuffer(base64.b64decode(text), np.float32).reshape(-1, classes),
            np.array(labels, np.int64),
        )
        for text, classes, labels in agree.gather_items(mine)
    ]


def _with_fitted_temperature(
    workdir: pathlib.Path,
    step: int | None,
    segmenter: Segmenter,
    samples: Sequence[Sample],
) -> Segmenter:
    """Fit the temperature to the pixels of all cases, and write temperature.json."""
    probabilities, labels = (
        np.concatenate(part) for part in zip(*samples, strict=True)
    )
    members = None
    if (regions := segmenter.regions) is not None:
        inside = (index for one in regions.entries for index in one.classes)
        members = regions.members(1 + max(int(labels.max(initial=0)), *inside))
    fit = fit_temperature(
        probabilities=probabilities,
        labels=labels,
        head=segmenter.head,
        members=members,
    )
    with atomic_path(workdir / TEMPERATURE) as temporary:
        counts = {"cases": len(samples), "pixels": len(labels)}
        found = {"checkpoint_step": step, **fit._asdict(), **counts}
        temporary.write_text(json.dumps(found) + "\n")
    print(
        f"temperature {fit.temperature:.3f} fitted on {len(labels)} validation pixels: "
        f"negative log-likelihood {fit.nll_uncalibrated:.4f} -> {fit.nll:.4f}"
    )
    return dataclasses.replace(segmenter, temperature=fit.temperature)


def _with_chosen_steps(
    workdir: pathlib.Path,
    segmenter: Segmenter,
    pairs: Sequence[tuple[np.ndarray, np.ndarray]],
) -> Segmenter:
    """Choose the steps that raise validation Dice, and write postprocess.json."""
    steps = choose_steps(pairs, groups=segmenter.groups)
    with atomic_path(workdir / "postprocess.json") as temporary:
        temporary.write_text(json.dumps({"steps": steps}) + "\n")
    print(f"postprocessing chosen on the validation split: {steps or 'none'}")
    return dataclasses.replace(segmenter, steps=steps)
