"""Checks and validates runs whose losses read images alone, no labels."""

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import flax.linen as nn
import jax
import numpy as np

from unet_jax.errors import InputError, setting
from unet_jax.losses.terms import LossTerm, find_loss, reads_labels
from unet_jax.models.network import Outputs, outputs_of
from unet_jax.runtime.compilation import jit_network
from unet_jax.training.objective import objective


def check_losses_of_images(
    spec: Sequence[tuple[str, float, dict[str, Any]]], *, foreground_oversampling: float
) -> None:
    """Refuse crops that are centred on classes where no loss reads a label.

    ``spec`` has name, weight and parameters of each loss.

    Raises:
        InputError: the two do not go together.
    """
    if not reads_labels(spec) and foreground_oversampling:
        raise InputError(
            f"data.foreground_oversampling: found {foreground_oversampling:g}, "
            "expected 0: no loss reads a label, and to centre crops on classes would; "
            f"give {setting('data.foreground_oversampling', 0)}"
        )


def check_losses_of_network(
    spec: Sequence[tuple[str, float, dict[str, Any]]],
    outputs: Outputs,
    *,
    size: tuple[int, ...],
) -> None:
    """Refuse losses that do not fit what the network gives for an input of this size.

    ``spec`` has name, weight and parameters of each loss.

    Raises:
        InputError: two of them do not go together.
    """
    names = tuple(name for name, _, _ in spec)
    reads = {name: find_loss(name).reads for name in names}
    made = outputs.reconstruction is not None
    if made != any("reconstruction" in inputs for inputs in reads.values()):
        raise InputError(
            f"loss: found {names} with a network that "
            f"{'makes' if made else 'makes no'} reconstructions; the loss "
            "'reconstruction' and such a network, as with "
            f"{setting('model.name', 'wnet')}, go together: give both or neither"
        )
    of_images = [name for name, inputs in reads.items() if "images" in inputs]
    given = " and ".join(
        _text(one.shape[1:-1]) for one in (outputs.logits, *outputs.deep)
    )
    if of_images and (outputs.logits.shape[1:-1] != size or outputs.deep):
        raise InputError(
            f"loss: {of_images[0]!r} compares pixels with the whole image of "
            f"{_text(size)}, but the network gives {given}; expected one output of "
            "the image's size; change model.name or model.options"
        )


def _text(size: Sequence[int]) -> str:
    """Write a size such as 64 x 64."""
    return " x ".join(map(str, size))


def make_validation(
    model: nn.Module, loss_terms: Sequence[LossTerm], images: Iterable[np.ndarray]
) -> Callable[[dict[str, Any]], dict[str, float]]:
    """Build the validation of a run without labels: its own loss on held-out images.

    The terms read no label. Images are batches ``(batch, *patch, channels)``.

    Returns:
        A function of the network's variables: the mean ``loss`` of the batches, and
        each term as ``<name>_loss``, not weighted.
    """
    batches = list(images)

    @jit_network
    def losses(variables, images):
        outputs = outputs_of(model.apply(variables, images, train=False))
        loss, terms = objective(
            loss_terms,
            logits=outputs.logits,
            labels=None,
            totals={"samples": images.shape[0]},
            include_background=True,
            axis_name=None,
            images=images,
            reconstruction=outputs.reconstruction,
        )
        return {"loss": loss, **{f"{name}_loss": v for name, v in terms.items()}}

    def validate(variables: dict[str, Any]) -> dict[str, float]:
        rows = jax.device_get([losses(variables, batch) for batch in batches])
        return {
            name: float(np.mean([row[name] for row in rows], dtype=np.float64))
            for name in rows[0]
        }

    return validate
