"""What thresholds reach on the test slab of configs/brain.py, by the same scorer.

    python -m benchmarks.brain_baseline

Multi-Otsu thresholds are fitted on the intensities of the training slices; the darkest
class inside the brain is CSF, the brightest white matter.
"""

import pathlib

import numpy as np
from skimage.filters import threshold_multiotsu

from configs import brain
from unet_jax.evaluate import evaluate
from unet_jax.experiment import open_dataset
from unet_jax.report.table import results_table


def main() -> None:
    """Fit, score and print."""
    config = brain.get_config()
    dataset = open_dataset(config, pathlib.Path("runs") / config.name)
    train = dataset.source("train")
    values = np.concatenate(
        [case.image[case.image > 0] for case in (train[i] for i in range(len(train)))]
    )
    thresholds = threshold_multiotsu(values, classes=3)

    def predict_fn(image: np.ndarray, spacing: object) -> np.ndarray:
        del spacing
        tissue = 1 + np.digitize(image[..., 0], thresholds, right=True)
        return np.where(image[..., 0] > 0, tissue, 0)

    names = tuple(config.data.class_names)
    test = dataset.source("test")
    cases = (test[index] for index in range(len(test)))
    results = evaluate(predict_fn, cases, class_names=names)
    print(f"multi-Otsu thresholds of the training slices: {thresholds.tolist()}")
    print(results_table(results, names))


if __name__ == "__main__":
    main()
