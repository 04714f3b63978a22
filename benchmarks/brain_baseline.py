"""What thresholds reach on the test slab of configs/brain.py, by the same scorer.

    python -m benchmarks.brain_baseline

Multi-Otsu thresholds are fitted on the intensities of the training slices; the darkest
class inside the brain is CSF, the brightest white matter.
"""

import numpy as np
from skimage.filters import threshold_multiotsu

from configs import brain
from unet_jax.evaluate import evaluate
from unet_jax.experiment import create_source
from unet_jax.report.table import results_table


def main() -> None:
    """Fit, score and print."""
    config = brain.get_config()
    train = create_source(config, "train")
    values = np.concatenate([case.image[case.image > 0] for case in train])
    thresholds = threshold_multiotsu(values, classes=3)

    def predict_fn(image: np.ndarray, spacing: object) -> np.ndarray:
        del spacing
        tissue = 1 + np.digitize(image[..., 0], thresholds, right=True)
        return np.where(image[..., 0] > 0, tissue, 0)

    names = tuple(config.data.class_names)
    results = evaluate(predict_fn, create_source(config, "test"), class_names=names)
    print(f"multi-Otsu thresholds of the training slices: {thresholds.tolist()}")
    print(results_table(results, names))


if __name__ == "__main__":
    main()
