"""Cases that are hard to segment."""

import numpy as np

from unet_jax.data.case import Case
from unet_jax.labels import IGNORE


def noisy_squares(count):
    """Cases with a noisy square, and an ignored corner."""
    cases = []
    for seed in range(count):
        rng = np.random.default_rng(seed)
        label = np.zeros((16, 12), np.int32)
        label[4:12, 2:8] = 1
        image = (label + rng.normal(0, 0.8, label.shape)).astype(np.float32)
        label[:2] = IGNORE
        cases.append(Case(str(seed), image[..., None], label, None, str(seed)))
    return cases
