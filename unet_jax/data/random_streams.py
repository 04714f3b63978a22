"""Makes independent random generators from one seed."""

import numpy as np

# A new use takes a new number, so that it changes no draw of the others.
SHUFFLE, COORDINATES, CROP, CHANGE = range(4)


def generator(seed: int, stream: int, index: int) -> np.random.Generator:
    """Make the generator of one use, such as CROP, and of one epoch, case or crop."""
    return np.random.default_rng(
        np.random.SeedSequence(entropy=seed, spawn_key=(stream, index))
    )
