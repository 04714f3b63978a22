"""Checks and validates runs whose losses read images alone, no labels."""

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import flax.linen as nn
import jax
import numpy as np

from unet_jax.errors import InputError
from unet_jax.losses.terms import WITHOUT_LABELS, LossTerm, reads_labels
from unet_jax.models.network import outputs_of
from unet_jax.runtime.compilation import jit_network
from unet_jax.training.objective import objective


def check_losses_of_images(
    spec: Sequence[tuple[str, float, dict[str, Any]]],
    *,
    model: str,
    padding: str | None,
    deep_supervision: int | None,
    foreground_oversampling: float,
) -> None:
    """Refuse losses of images that do not fit the network or the crops.

    Args:
        spec: name, weight and parameters of each loss.
        model: name of the network.
        padding: padding of the network; None for the preset's.
        deep_supervision: outputs of the network beside the finest; None likewise.
        foreground_oversampling: fraction of crops that are centred on a class.

    Raises:
        InputError: two options do not fit together.
    """
    names = [name for name, _, _ in spec]
    made = "reconstruction" in names
    if made != (model == "wnet"):
        raise InputError(
            f"loss: found {tuple(names)} with model.name={model!r}; the loss "
            "'reconstruction' and the model 'wnet' go together: give both or neither"
        )
    of_images = [name for name in names if name in WITHOUT_LABELS]
    if of_images and (padding == "VALID" or deep_supervision):
        raise InputError(
            f"loss: {of_images[0]!r} compares pixels with the whole image; set "
            "model.padding='SAME' and model.deep_supervision=0"
        )
    if not reads_labels(spec) and foreground_oversampling:
        raise InputError(
            f"data.foreground_oversampling: found {foreground_oversampling:g}, "
            "expected 0: no loss reads a label, and to centre crops on classes would; "
            "use --config.data.foreground_oversampling=0"
        )


def make_validation(
    model: nn.Module,
    loss_terms: Sequence[LossTerm],
    images: Iterable[np.ndarray],
) -> Callable[[dict[str, Any]], dict[str, float]]:
    """Build the validation of a run without labels: its own loss on held-out images.

    Args:
        model: the network.
        loss_terms: the summands of the loss, none of which reads a label.
        images: batches ``(batch, *patch, channels)`` of one shape.

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
