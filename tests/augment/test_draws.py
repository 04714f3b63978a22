"""Random numbers: fixed for ever by key and name, whatever else is drawn."""

import os
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np

from unet_jax.augment.draws import around_one, draw_all, example_keys
from unet_jax.augment.policy import AUGMENTATIONS
from unet_jax.experiment.record import DRAWS_VERSION

KEY = jax.random.key(11)
NAMES = [name for name, _ in AUGMENTATIONS]
ROTATION, NOISE = (0.90414393, 0.25467670), (1.2055513, 1.4787707)
PRINT_DRAWS = """
import jax
from unet_jax.augment.draws import draw_all
counts = {"noise": 3, "elastic": 7, "lab:cut_out": 0}
for name, draw in draw_all(jax.random.key(5), counts, dtype="float32").items():
    print(name, draw.numbers.tolist(), jax.random.key_data(draw.key).tolist())
"""


def _same(one, other):
    np.testing.assert_array_equal(one.numbers, other.numbers)
    np.testing.assert_array_equal(
        jax.random.key_data(one.key), jax.random.key_data(other.key)
    )


def test_two_processes_draw_the_same_bits():
    printed = [
        subprocess.run(
            [sys.executable, "-c", PRINT_DRAWS],
            env={**os.environ, "PYTHONHASHSEED": seed, "JAX_PLATFORMS": "cpu"},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in ("1", "2")
    ]
    assert printed[0] == printed[1]
    assert printed[0].count("\n") == 3


def test_one_more_augmentation_moves_no_draw():
    counts = dict.fromkeys(NAMES, 4)
    before = draw_all(KEY, counts, dtype=jnp.float32)
    # The first, and one that needs far more numbers than the others.
    after = draw_all(KEY, {"new": 5000, **counts, "x:y": 0}, dtype=jnp.float32)
    for name in NAMES:
        _same(after[name], before[name])
    _same(draw_all(KEY, {"blur": 4}, dtype=jnp.float32)["blur"], before["blur"])


def test_augmentations_and_their_keys_are_independent():
    drawn = draw_all(KEY, dict.fromkeys(NAMES, 100), dtype=jnp.float32)
    numbers = [draw.numbers for draw in drawn.values()]
    numbers += [jax.random.uniform(draw.key, (100,)) for draw in drawn.values()]
    assert len({array.tobytes() for array in map(np.asarray, numbers)}) == 2 * len(
        NAMES
    )
    correlation = np.corrcoef(np.stack(numbers)) - np.eye(2 * len(NAMES))
    assert np.abs(correlation).max() < 0.4  # 4 standard errors


def test_draws_are_those_of_their_version():
    """Where draws change, raise VERSION, so that half-trained runs are refused."""
    drawn = draw_all(jax.random.key(0), {"rotation": 2, "noise": 2}, dtype=jnp.float32)
    assert DRAWS_VERSION == 3
    np.testing.assert_allclose(drawn["rotation"].numbers, ROTATION, rtol=1e-6)
    np.testing.assert_allclose(
        jax.random.normal(drawn["noise"].key, (2,)), NOISE, rtol=1e-5
    )


def test_example_keys_depend_on_the_index_alone():
    data = jax.random.key_data
    keys = data(example_keys(KEY, jnp.array([3, 9, 4])))
    np.testing.assert_array_equal(keys[1], data(jax.random.fold_in(KEY, 9)))
    assert len(np.unique(keys, axis=0)) == 3
    raw = example_keys(jax.random.PRNGKey(11), jnp.array([3, 9, 4]))
    np.testing.assert_array_equal(raw, keys)


def test_factors_fall_as_often_below_one_as_above():
    uniform = jnp.linspace(0, 1, 101)
    factors = around_one(uniform, (0.7, 1.5))
    np.testing.assert_allclose(factors[::25], [0.7, 0.85, 1, 1.25, 1.5])
    np.testing.assert_allclose(around_one(uniform, (1.1, 1.3))[50], 1.2, rtol=1e-6)
