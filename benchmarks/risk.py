"""Measures what conformal risk control keeps and costs, on synthetic heads.

    python -m benchmarks.risk [WORKDIR]

Trains configs/lesion.py in WORKDIR (runs/risk) for 1000 steps on 250 synthetic heads,
which take 70 MB beside it, with losses that fear a missed pixel; a workdir with a
checkpoint is used as it is. Segments 60 other heads, and draws 200 times which 30 of
them choose the threshold; the others are scored. Prints a table of docs/trust.md.
"""

import dataclasses
import pathlib
import sys
from collections.abc import Iterator, Sequence

import nibabel
import numpy as np

from unet_jax import load, train
from unet_jax.configs import lesion
from unet_jax.data.case import Case
from unet_jax.datasets.mni152_lesion.mni152_lesion_dataset_builder import (
    SPACING,
    SUBJECTS,
    make_subject,
)
from unet_jax.datasets.mni152_tissue.mni152_tissue_dataset_builder import load_template
from unet_jax.experiment.risk import levels_of_case
from unet_jax.inference.risk import Levels, choose_threshold, level_of

HEADS, CALIBRATE, RESPLITS = 60, 30, 200
TRAINING = 250
LIMITS = (0.05, 0.1, 0.2)


def new_heads(*, after: int = 0, count: int = HEADS) -> Iterator[Case]:
    """Make heads that are in no split of the data set, from the number ``after`` on."""
    template, first = load_template("t1"), sum(SUBJECTS.values()) + after
    for number in range(first, first + count):
        image, label, _ = make_subject(template, number)
        name = f"head{number}"
        yield Case(name, image[..., None], label, SPACING, name)


def train_on_heads(workdir: pathlib.Path) -> None:
    """Train on heads that follow those that are scored."""
    folder = workdir.with_name(f"{workdir.name}_heads")
    for case in new_heads(after=HEADS, count=TRAINING):
        for part, array in (("images", case.image[..., 0]), ("masks", case.label)):
            file = folder / part / f"{case.id}.nii.gz"
            file.parent.mkdir(parents=True, exist_ok=True)
            nibabel.save(nibabel.Nifti1Image(array, np.diag([*SPACING, 1])), file)
    config = lesion.get_config()
    config.data.update(
        path=str(folder), dims=2, test_fraction=0.04, validation_fraction=0.06
    )
    config.loss = (
        ("tversky", 1.0, {"alpha": 0.2, "beta": 0.8, "batch_dice": True}),
        ("cross_entropy", 1.0, {"class_weights": (1.0, 5.0)}),
    )
    config.optimizer.update(name="muon", learning_rate=6e-3, weight_decay=0.1)
    config.train.steps = 1000
    config.eval.update(
        every_steps=250, postprocess=None, metrics=("dice",), distance=False
    )
    train(config, workdir)


def measure(levels: Sequence[Levels], *, alpha: float) -> dict[str, float]:
    """Draw the heads that choose the threshold again and again, and score the others.

    Args:
        levels: pixels of each head by the threshold that marks them.
        alpha: limit of the missed fraction.

    Returns:
        Over the draws: the mean fraction that a head misses, its 95th percentile, the
        mean pixels marked beside the class in a head, how many times those without a
        threshold these are, and the median threshold.
    """
    rng, rows = np.random.default_rng(0), []
    half = len(levels) * CALIBRATE // HEADS
    for _ in range(RESPLITS):
        order = rng.permutation(len(levels))
        chosen = {str(head): levels[head] for head in order[:half]}
        threshold = choose_threshold(chosen, alpha=alpha).threshold
        below, scored = level_of(threshold), [levels[head] for head in order[half:]]
        missed = [one.labelled[:below].sum() / one.labelled.sum() for one in scored]
        beside = [(one.beside[below:].sum(), one.beside[-1]) for one in scored]
        rows.append((np.mean(missed), *np.mean(beside, axis=0), threshold))
    missed, beside, without, thresholds = np.transpose(rows)
    return {
        "missed": missed.mean(),
        "most": np.percentile(missed, 95),
        "beside": beside.mean(),
        "ratio": beside.sum() / max(without.sum(), 1),
        "threshold": np.median(thresholds),
    }


def main() -> None:
    """Print the table."""
    workdir = pathlib.Path(sys.argv[1] if len(sys.argv) > 1 else "runs/risk")
    if not (workdir / "checkpoints").exists():
        train_on_heads(workdir)
    plain = dataclasses.replace(load(workdir).predict_fn, steps=(), threshold=None)
    levels = [levels_of_case(plain, case, 1) for case in new_heads()]
    print(
        "| limit | mean missed | 95 % of draws below | beside, pixels a head | times "
        "those of the likeliest class | threshold |\n"
        "| --- | --- | --- | --- | --- | --- |"
    )
    missed = np.mean([1 - one.labelled[-1] / one.labelled.sum() for one in levels])
    beside = np.mean([one.beside[-1] for one in levels])
    print(f"| none | {missed:.3f} | | {beside:.0f} | 1 | |")
    for alpha in LIMITS:
        row = measure(levels, alpha=alpha)
        print(
            f"| {alpha} | {row['missed']:.3f} | {row['most']:.3f} | "
            f"{row['beside']:.0f} | {row['ratio']:.2f} | {row['threshold']:.3g} |"
        )


if __name__ == "__main__":
    main()
