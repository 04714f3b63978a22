"""Scores k-means on the embedded brain, beside the W-Net of docs/unsupervised.md.

    python -m benchmarks.brain_clusters

Mean IoU on the test slab. Clusters are named on the training slabs, by the class that
each overlaps most, or matched with the classes one to one. Half a minute.
"""

import numpy as np

from unet_jax.classical.clustering import find_centers, nearest_center
from unet_jax.classical.methods import fit_method
from unet_jax.classical.samples import Sample
from unet_jax.data.case import Case
from unet_jax.datasets.mni152_tissue import mni152_tissue_dataset_builder as brain
from unet_jax.evaluation.scorer import evaluate
from unet_jax.unsupervised.matching import match_over, renamed

CLASSES = len(brain.CLASS_NAMES)


def main() -> None:
    """Print a line a variant."""
    cases = brain_cases()
    for count in (CLASSES, 4 * CLASSES):
        score = named_by_overlap(cases, count=count)
        print(f"{count} clusters, named by overlap: {score:.4f}")
    print(f"{CLASSES} clusters, matched: {matched(cases, count=CLASSES):.4f}")
    for zeros in (True, False):
        score = matched(cases, count=4 * CLASSES, zeros=zeros)
        apart = "" if zeros else " without zeros"
        print(f"{4 * CLASSES} clusters{apart}, merged (Ward), matched: {score:.4f}")


def brain_cases() -> dict[str, list[Case]]:
    """The slabs of the embedded brain, without spacing, by split."""
    image = brain.load_template("t1")
    label = brain.tissue_labels(
        t1=image, grey=brain.load_template("gm"), white=brain.load_template("wm")
    )
    first = brain._ORIGIN_MM[brain.SLICE_AXIS]
    return {
        split: [
            Case(
                f"{split} {low}",
                image[..., low - first : high + 1 - first, None],
                label[..., low - first : high + 1 - first],
                None,
                split,
            )
            for low, high in slabs
        ]
        for split, slabs in brain.SLABS_MM.items()
    }


def named_by_overlap(cases: dict[str, list[Case]], *, count: int) -> float:
    """Mean IoU of the classical method: several clusters may be one class."""
    samples = [Sample(case.image, case.label) for case in cases["train"]]
    fixed = {"k": count, "scope": "training", "scale": "stored", "space": "rgb"}
    fitted = fit_method("kmeans", samples, num_classes=CLASSES, parameters=fixed)
    return _score(fitted.predict_fn, cases)


def matched(cases: dict[str, list[Case]], *, count: int, zeros: bool = True) -> float:
    """Mean IoU of clusters that are merged until they are as many as classes.

    Args:
        cases: result of `brain_cases`.
        count: clusters that k-means finds.
        zeros: cluster pixels of value 0, the masked air, with the others; else they
            are a cluster of their own from the start.
    """
    values = np.concatenate([case.image.reshape(-1, 1) for case in cases["train"]])
    values = values.astype(np.float32)
    found = values if zeros else values[values[:, 0] != 0]
    centers = find_centers(found, k=count, seed=0)[:, 0]
    if not zeros:
        centers = np.append(centers, 0.0)

    def clusters(image: np.ndarray) -> np.ndarray:
        rows = image.reshape(-1, 1).astype(np.float32)
        nearest = nearest_center(rows, (centers if zeros else centers[:-1])[:, None])
        if not zeros:
            nearest = np.where(rows[:, 0] == 0, len(centers) - 1, nearest)
        return nearest.reshape(image.shape[:-1])

    sizes = np.bincount(clusters(values[:, None]).ravel(), minlength=len(centers))
    group = merged_by_ward(centers, sizes)
    order = match_over(
        [(group[clusters(case.image)], case.label) for case in cases["train"]],
        num_classes=CLASSES,
    )
    return _score(lambda image, spacing: renamed(group[clusters(image)], order), cases)


def merged_by_ward(centers: np.ndarray, sizes: np.ndarray) -> np.ndarray:
    """Merge clusters so that the variance grows least; return the group of each."""
    groups = [[index] for index in range(len(centers))]
    while len(groups) > CLASSES:
        weights = [sizes[group].sum() for group in groups]
        means = [np.average(centers[g], weights=sizes[g]) for g in groups]
        costs = {
            (i, j): weights[i] * weights[j] / (weights[i] + weights[j])
            * (means[i] - means[j]) ** 2
            for i in range(len(groups)) for j in range(i)
        }  # fmt: skip
        i, j = min(costs, key=lambda pair: costs[pair])
        groups[j] += groups.pop(i)
    table = np.zeros(len(centers), int)
    for number, group in enumerate(groups):
        table[group] = number
    return table


def _score(predict_fn, cases: dict[str, list[Case]]) -> float:
    """Mean IoU over the classes of the test slab."""
    results = evaluate(
        predict_fn, cases["test"], class_names=brain.CLASS_NAMES, surface=False
    )
    return results["mean"]["iou"]


if __name__ == "__main__":
    main()
