"""From an image to its labels: preprocess, windows, network, and back.

This is the chain that validation, the test split and prediction on new files share.
"""

from collections.abc import Callable
from typing import Any, Protocol

import flax.linen as nn
import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from unet_jax.data.preprocess import Preprocessing
from unet_jax.errors import InputError
from unet_jax.inference.sliding_window import predict_probabilities


class PredictFn(Protocol):
    """What every method is to the scorer: an image in, its labels out."""

    def __call__(
        self,
        image: np.ndarray,
        spacing: tuple[float, ...] | None,
        *,
        name: str = "image",
        reference: tuple[tuple[float, float], ...] | None = None,
    ) -> np.ndarray:
        """Segment ``(*spatial, channels)`` into labels ``(*spatial)``.

        ``name`` is what messages call the image, ``reference`` that of its ``Case``.
        """
        ...


def stack_axis(preprocessing: Preprocessing, image_dims: int) -> int | None:
    """Say along which axis an image is a stack of what the network takes.

    Args:
        preprocessing: of the network.
        image_dims: spatial axes of the image.

    Returns:
        The axis of a volume's slices for a 2-D network; None where the network takes
        the image as it is.

    Raises:
        InputError: the network cannot take such an image.
    """
    if image_dims == preprocessing.network_dims:
        return None
    if image_dims == 3 and preprocessing.network_dims == 2:
        return preprocessing.slice_axis
    raise InputError(
        f"found an image with {image_dims} spatial axes, expected "
        f"{preprocessing.network_dims} as the network's; give it volumes, or train one "
        f"with a train.patch_size of {image_dims} numbers"
    )


def make_forward(
    model: nn.Module,
) -> Callable[[dict[str, Any], np.ndarray], jax.Array]:
    """Build ``forward(variables, windows) -> probabilities``, compiled once.

    The windows are shared among the local devices where their number allows it.

    Args:
        model: the network.

    Returns:
        A function of variables and ``(windows, *window, channels)`` float32.
    """
    devices = np.asarray(jax.local_devices())
    mesh = Mesh(devices, ("d",))

    @jax.jit
    def forward(variables, windows):
        logits = model.apply(variables, windows, train=False)
        return jax.nn.softmax(logits, axis=-1)

    def placed(variables, windows):
        split = len(windows) % len(devices) == 0
        spec = PartitionSpec("d") if split else PartitionSpec()
        return forward(variables, jax.device_put(windows, NamedSharding(mesh, spec)))

    return placed


def make_predict_fn(
    forward: Callable[[dict[str, Any], np.ndarray], jax.Array],
    variables: dict[str, Any],
    preprocessing: Preprocessing,
    *,
    num_classes: int,
    patch_size: tuple[int, ...],
    overlap: float,
    window_batch: int,
) -> PredictFn:
    """Bind a trained network to the preprocessing that it was trained with.

    Args:
        forward: from `make_forward`.
        variables: parameters and statistics of the network.
        preprocessing: learnt from the training split.
        num_classes: of the network.
        patch_size: pixels of a window, those of training.
        overlap: share of a window that its neighbour covers too.
        window_batch: windows in one pass of the network.

    Returns:
        A ``predict_fn(image, spacing) -> labels`` on the image's own grid.
    """

    def predict_fn(
        image: np.ndarray,
        spacing: tuple[float, ...] | None,
        *,
        name: str = "image",
        reference: tuple[tuple[float, float], ...] | None = None,
    ) -> np.ndarray:
        prepared, inverse = preprocessing.apply(
            image, spacing, name=name, reference=reference
        )
        axis = stack_axis(preprocessing, prepared.ndim - 1)
        stack = prepared[None] if axis is None else np.moveaxis(prepared, axis, 0)
        probabilities = predict_probabilities(
            lambda windows: np.asarray(forward(variables, windows)),
            np.ascontiguousarray(stack),
            window=patch_size,
            num_classes=num_classes,
            overlap=overlap,
            batch_size=window_batch,
        )
        scores = (
            probabilities[0] if axis is None else np.moveaxis(probabilities, 0, axis)
        )
        return inverse.labels(scores)

    return predict_fn
