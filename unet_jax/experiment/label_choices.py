"""Fits what a trained network leaves open on labelled splits, and writes it down.

A network that learnt from images alone gets its clusters matched with the classes; the
postprocessing of labels is chosen. `finished` reads both files back.
"""

import dataclasses
import json
import pathlib
from collections.abc import Iterator

from unet_jax.data.case import Source
from unet_jax.experiment.trained_run import TrainedRun
from unet_jax.inference.postprocess import choose_steps
from unet_jax.inference.segmenter import Segmenter
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


def with_chosen_steps(
    workdir: pathlib.Path, segmenter: Segmenter, validation: Source
) -> Segmenter:
    """Choose the steps that raise validation Dice, and write postprocess.json."""
    plain = dataclasses.replace(segmenter, steps=())
    pairs = []
    for index in range(len(validation)):
        case = validation[index]
        assert case.label is not None, "validation has labels"
        labels = plain(case.image, case.spacing, reference=case.reference)
        pairs.append((labels, case.label))
    steps = choose_steps(pairs, num_classes=segmenter.num_classes)
    with atomic_path(workdir / "postprocess.json") as temporary:
        temporary.write_text(json.dumps({"steps": steps}) + "\n")
    print(f"postprocessing chosen on the validation split: {steps or 'none'}")
    return dataclasses.replace(segmenter, steps=steps)
