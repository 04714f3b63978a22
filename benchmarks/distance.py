"""Measures which images a run of the brain MRI flags as unlike training.

    python -m benchmarks.distance WORKDIR [IMAGE ...]

WORKDIR is a finished run of configs/lesion.py, brain.py or brain_slab.py. Counts the
false alarms among images that it was not trained on: its test split and, for lesions,
60 new heads. Then it changes up to three of them as other scanners might have given
them, and takes other images and the files that are named. Prints the table of
docs/trust.md.
"""

import dataclasses
import pathlib
import sys
from collections.abc import Iterator

import numpy as np
import skimage.data
from scipy import ndimage

from benchmarks.risk import new_heads
from benchmarks.unseen import bias, dice
from unet_jax import load
from unet_jax.data.case import Case
from unet_jax.datasets.mni152_tissue.mni152_tissue_dataset_builder import load_template
from unet_jax.experiment.finished import open_run_data
from unet_jax.experiment.trained_run import TrainedRun

CHANGED = 3


def changes(head: np.ndarray) -> Iterator[tuple[str, np.ndarray]]:
    """Yield a head ``(x, y, z)`` that is 0 outside as other scanners might give it."""
    inside, top = head > 0, float(head.max())

    def noisy(std: float) -> np.ndarray:
        return np.abs(head + np.random.default_rng(0).normal(0, top * std, head.shape))

    yield "as it is", head
    for std in (0.02, 0.05, 0.15):
        yield f"noise of {std:.0%} inside", np.where(inside, noisy(std), 0)
    yield "noise of 2% everywhere", noisy(0.02)
    for strength in (0.2, 0.5):
        yield f"bias field of {strength:.0%}", head * bias(head.shape, strength)
    for gamma in (1.3, 2.0):
        yield f"exponent {gamma}", top * (head / top) ** gamma
    for size in (1, 3):
        yield (
            f"blurred by {size} pixels",
            ndimage.gaussian_filter(head, (size, size, 0)),
        )
    yield "contrast inverted inside", np.where(inside, top + 1 - head, 0)
    yield "contrast inverted everywhere", top - head


def others() -> Iterator[tuple[str, np.ndarray]]:
    """Yield images that are no T1 scan of a brain."""
    grey = load_template("gm").astype(np.float32)
    yield "map of grey matter", grey
    yield "uniform noise", np.random.default_rng(1).uniform(1, 255, grey.shape)
    for name in ("camera", "coins", "astronaut"):
        picture = getattr(skimage.data, name)()
        picture = picture if picture.ndim == 2 else picture.mean(axis=-1)
        yield f"photograph ({name})", np.repeat(picture[..., None], 4, axis=-1)


def measure(run: TrainedRun, cases: list[Case], name: str, score: bool = True) -> None:
    """Print the row of some images: mean distances, number of flagged ones, Dice."""
    assert run.describer is not None
    found, dices = [], []
    for case in cases:
        one = run.describer.distance(case.image, case.spacing, reference=case.reference)
        assert one is not None, "the run has no distance.npz"
        found.append(one)
        if score and case.label is not None:
            labels = run.predict_fn(case.image, case.spacing, reference=case.reference)
            for index in range(1, run.predict_fn.num_classes):
                dices.append(dice(labels == index, case.label == index))
    features, intensities = np.mean(found, axis=0)
    quality = f"{np.mean(dices):.2f}" if dices else ""
    print(
        f"| {name} | {features:.2f} | {intensities:.2f} | "
        f"{sum(one.is_beyond for one in found)} of {len(found)} | {quality} |",
        flush=True,
    )


def main() -> None:
    """Print the table."""
    workdir = pathlib.Path(sys.argv[1])
    run, source = load(workdir), open_run_data(workdir).source("test")
    cases = [source[index] for index in range(len(source))]
    print("| images | features | intensities | flagged | Dice |")
    print("| --- | --- | --- | --- | --- |")
    measure(run, cases, "test split")
    if run.config.data.name == "mni152_lesion":
        measure(run, list(new_heads()), "new heads", score=False)
    rows: dict[str, list[Case]] = {}
    for case in cases[:CHANGED]:
        for name, image in changes(case.image[..., 0].astype(np.float32)):
            one = dataclasses.replace(case, image=image[..., None].astype(np.float32))
            rows.setdefault(name, []).append(one)
    for name, changed in rows.items():
        measure(run, changed, f"test split, {name}")
    for name, image in others():
        pixels = image[..., None].astype(np.float32)
        measure(run, [Case(name, pixels, None, (1.0, 1.0, 1.0), name)], name)
    for path in sys.argv[2:]:
        distance = run.distance(path)
        assert distance is not None
        print(
            f"| {pathlib.Path(path).name} | {distance.features:.2f} | "
            f"{distance.intensities:.2f} | {distance.is_beyond:d} of 1 | |"
        )


if __name__ == "__main__":
    main()
