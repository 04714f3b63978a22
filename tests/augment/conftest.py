"""What every augmentation test looks at: one picture, one volume, three ways to run."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from unet_jax.augment.draws import Draw, draw_all
from unet_jax.augment.kinds import Augmentation, Value

IGNORE = -1


def example(shape: tuple[int, ...], *, channels: int = 2) -> tuple[Any, Any]:
    """Return a smooth image with noise, and a label of blocks with IGNORE in it."""
    random = np.random.default_rng(sum(shape))
    grid = np.meshgrid(*[np.linspace(0, 3, size) for size in shape], indexing="ij")
    smooth = np.sin(sum((axis + 1) * place for axis, place in enumerate(grid)))
    image = smooth[..., None] + 0.3 * random.standard_normal((*shape, channels))
    label = sum(np.floor(place) for place in grid).astype(np.int32) % 4
    label[(0,) * len(shape)] = IGNORE
    label[tuple(size // 2 for size in shape)] = IGNORE
    return jnp.asarray(image, jnp.float32), jnp.asarray(label)


def draw(key: jax.Array, augmentation: Augmentation, shape: tuple[int, ...]) -> Draw:
    """Draw the numbers of one augmentation for an image of a shape."""
    counts = {"it": augmentation.count(shape)}
    return draw_all(key, counts, dtype=jnp.float32)["it"]


def alone(augmentation: Value) -> Callable[..., jax.Array]:
    """Return a function (key, image) -> image that does nothing else."""
    return lambda key, image: augmentation.change(
        draw(key, augmentation, image.shape), image
    )


def _plain(function: Callable[..., Any]) -> Callable[..., Any]:
    return function


def _vmapped(function: Callable[..., Any]) -> Callable[..., Any]:
    """Run on a batch of two, the second one other than the first; give the first."""

    def run(key: jax.Array, *arrays: jax.Array) -> Any:
        keys = jnp.stack([key, jax.random.fold_in(key, 1)])
        batch = [jnp.stack([array, array[::-1]]) for array in arrays]
        return jax.tree.map(
            lambda leaf: leaf[0], jax.jit(jax.vmap(function))(keys, *batch)
        )

    return run


# For what depends on the shape: not every way with every shape, to save compilation.
WAYS_AND_SHAPES = pytest.mark.parametrize(
    ("variant", "shape"),
    [(_plain, (13, 10)), (jax.jit, (9, 8, 7)), (_vmapped, (13, 10))],
    ids=["plain-2d", "jit-3d", "vmap-2d"],
)


@pytest.fixture(params=[_plain, jax.jit, _vmapped], ids=["plain", "jit", "vmap"])
def variant(request: pytest.FixtureRequest) -> Any:
    """One way to run a function of (key, *arrays)."""
    return request.param
