"""Compiles the network for inference: windows, mirroring and batches of windows."""

import dataclasses
import math
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
from ml_collections import ConfigDict

from unet_jax.data.preprocess import Preprocessing
from unet_jax.experiment.network import score_channels
from unet_jax.experiment.regions import regions_of
from unet_jax.inference.forward import WindowForward, make_forward
from unet_jax.inference.member import Previous
from unet_jax.inference.segmenter import Segmenter, make_predict_fn
from unet_jax.models.network import sizes_of


@dataclasses.dataclass(frozen=True, eq=False)
class CompiledNetwork:
    """A network, compiled once for the windows of validation and of the test split.

    Attributes:
        forward: probabilities of windows, see `make_forward`.
        mirrored: mean over mirrored windows, or `forward` without ``eval.mirror``.
    """

    network: nn.Module
    forward: WindowForward
    mirrored: WindowForward


def compile_network(config: ConfigDict, network: nn.Module) -> CompiledNetwork:
    """Compile a network for windows, at the first window of each size."""
    forward = create_forward(config, network)
    mirrored = forward
    if config.eval.mirror:
        mirrored = create_forward(config, network, mirrored=True)
    return CompiledNetwork(network, forward, mirrored)


def create_forward(
    config: ConfigDict,
    network: nn.Module,
    *,
    mirrored: bool = False,
    disagreement: bool = False,
) -> WindowForward:
    """Compile the network for windows, mirrored as training did if asked for.

    With ``disagreement`` it gives that of the mirrored images too.
    """
    return make_forward(
        network,
        head=config.model.head,
        mirror_axes=flipped_axes(config) if mirrored else (),
        in_turn=_in_turn(config),
        disagreement=disagreement,
        logits=_averages_logits(config),
    )


def _averages_logits(config: ConfigDict) -> bool:
    """Return whether windows and mirrored images are averaged by their logits."""
    return config.eval.get("average") == "logits"  # not in earlier records


def _in_turn(config: ConfigDict) -> bool:
    """Return whether windows go through the network one after the other in a call.

    On a CPU several windows of a volume at once are no faster and take more memory. In
    a call for each window the system would clear that memory each time.
    """
    return len(config.train.patch_size) == 3 and jax.default_backend() == "cpu"


def create_predict_fn_maker(
    config: ConfigDict,
    compiled: CompiledNetwork,
    preprocessing: Preprocessing,
    *,
    validation: bool,
    previous: Previous | None = None,
) -> Callable[[dict[str, Any]], Segmenter]:
    """Build a function ``variables -> predict_fn``.

    Validation during training has its own overlap and no mirrored images, which would
    take several times as long.
    """
    mirrored = config.eval.mirror and not validation
    forward = compiled.mirrored if mirrored else compiled.forward
    voting = None
    if mirrored and flipped_axes(config) and not _averages_logits(config):
        # Nothing is compiled until `--uncertainty` asks for it.
        voting = create_forward(
            config, compiled.network, mirrored=True, disagreement=True
        )
    overlap = config.eval.validation_overlap if validation else config.eval.overlap
    sizes = sizes_of(compiled.network, len(config.train.patch_size))
    # A patch may leave logits that suffice to learn from, but not to tile.
    patch = sizes.tiling_size(tuple(config.train.patch_size))

    def with_variables(variables: dict[str, Any]) -> Segmenter:
        predict_fn = make_predict_fn(
            forward,
            variables,
            preprocessing,
            num_classes=score_channels(config),
            patch_size=patch,
            overlap=overlap,
            window_batch=_window_batch(config),
            margin=sizes.margin,
            multiple=sizes.multiple,
            head=config.model.head,
            voting=voting,
            logits=_averages_logits(config),
            previous=previous,
        )
        return dataclasses.replace(
            predict_fn, strict=not validation, regions=regions_of(config)
        )

    return with_variables


_BATCH_BYTES, _BATCH_BYTES_IN_TURN = 2**25, 2**24
"""Most bytes of the scores of a batch; a large volume needs the memory itself."""


def _window_batch(config: ConfigDict) -> int:
    """Return the windows in a call: ``eval.window_batch``, or fewer if large."""
    patch = tuple(config.train.patch_size)
    most = _BATCH_BYTES_IN_TURN if _in_turn(config) else _BATCH_BYTES
    fitting = most // (4 * math.prod(patch) * score_channels(config))
    return max(1, min(config.eval.window_batch, fitting))


def flipped_axes(config: ConfigDict) -> tuple[int, ...]:
    """Return the spatial axes that training flipped, and that predictions mirror."""
    augment = config.augment
    if not (augment.enabled and augment.flip_probability > 0):
        return ()
    axes = len(config.train.patch_size)
    return tuple(axis for axis in augment.flip_axes if axis < axes)
