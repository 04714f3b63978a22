"""Builds the network, the augmentation and the optimizer of a config."""

import inspect
from collections.abc import Mapping
from typing import Any

import optax
from ml_collections import ConfigDict

from unet_jax.augment.policy import Extra, resolve_options, source_size
from unet_jax.data.preprocess import Preprocessing
from unet_jax.errors import InputError
from unet_jax.experiment.options import given_options
from unet_jax.experiment.previous_stage import previous_channels
from unet_jax.experiment.regions import regions_of
from unet_jax.experiment.renamed import RENAMED
from unet_jax.losses.terms import reads_labels
from unet_jax.method import Spacing
from unet_jax.models.network import Implemented, Outputs, output_shapes
from unet_jax.models.presets import create_model
from unet_jax.runtime.compilation import onednn_options
from unet_jax.runtime.user_code import load_function
from unet_jax.training.images_alone import check_losses_of_network
from unet_jax.training.optimizer import Schedule, create_optimizer, create_schedule
from unet_jax.training.stage_rates import with_stage_rates


def score_channels(config: ConfigDict) -> int:
    """Return the channels of the scores: classes, regions, or clusters of images."""
    classes, clusters = len(config.data.class_names), config.model.get("clusters")
    if (regions := regions_of(config)) is not None:
        return regions.channels
    if clusters is None:
        return classes
    if reads_labels(config.loss) or clusters < classes:
        raise InputError(
            f"model.clusters: found {clusters}; expected None where a loss reads "
            f"labels, else at least {classes}, the number of classes"
        )
    return int(clusters)


def input_channels(config: ConfigDict, preprocessing: Preprocessing) -> int:
    """Return the channels that the network sees: also of slices beside, or a stage."""
    return preprocessing.input_channels + previous_channels(config)


def create_network(
    config: ConfigDict, *, axis_name: str | None, implementation: str | None = None
) -> Implemented:
    """Build the network of a config; see `create_network_with_shapes`."""
    return create_network_with_shapes(
        config, axis_name=axis_name, implementation=implementation
    )[0]


def create_network_with_shapes(
    config: ConfigDict, *, axis_name: str | None, implementation: str | None = None
) -> tuple[Implemented, Outputs]:
    """Build the network of a config, and trace what it makes of a patch.

    Args:
        axis_name: of the mapped devices in training; None in inference.
        implementation: implementation of the operations, to compile for another
            platform; None for the best one on this platform.

    Returns:
        A linen module ``(batch, *spatial, channels) -> logits``, and the shapes of its
        outputs in training.

    Raises:
        InputError: the network or an option of it is unknown, or the network does not
            fit the patch or the losses.
    """
    try:
        network = create_model(
            name=config.model.name,
            num_classes=score_channels(config),
            dtype=config.model.dtype,
            axis_name=axis_name,
            **given_options(config),
        )
        # Shapes alone, on no device: what does not fit together shows here.
        outputs = output_shapes(network, tuple(config.train.patch_size))
    except InputError:
        raise
    except (ValueError, TypeError) as error:
        first_line = str(error).partition("\n")[0]
        raise InputError(f"model.options: {first_line}") from error
    check_losses_of_network(config.loss, outputs, size=tuple(config.train.patch_size))
    return Implemented(network, implementation or _implementation(config)), outputs


def _implementation(config: ConfigDict) -> str | None:
    """What suits this platform, and the options that networks are compiled with."""
    if config.model.dtype == "float32" and onednn_options() is not None:
        return "onednn"
    return None


def create_augmentation(config: ConfigDict) -> dict[str, Any] | None:
    """Check the options of augmentation, and load augmentations of the user's own.

    Returns:
        Options of ``augment_batch``; None where augmentation is off.

    Raises:
        InputError: an option is unknown or out of bounds, or a function of the user
            cannot be loaded.
    """
    known = config.augment.to_dict().items()
    # Those of a first stage are applied where crops are drawn.
    options = {
        k: v for k, v in known if v is not None and not k.startswith("previous_")
    }
    if not options.pop("enabled"):
        return None
    extra = _extra_augmentations(options.pop("extra", ()))
    synthesis = options.pop("synthesis", False)  # not in records of 0.1
    for key in options:
        if new := RENAMED.get(f"augment.{key}"):
            raise InputError(f"augment.{key}: is now {new}; rename it in your config")
    try:
        resolve_options(options)
    except ValueError as error:
        raise InputError(f"augment: {error}") from None
    return options | {"extra": extra, "synthesis": synthesis}


def crop_size(config: ConfigDict, spacing: Spacing) -> tuple[int, ...]:
    """Return the pixels of the crops that the step augments: at least a patch."""
    options, patch = create_augmentation(config), tuple(config.train.patch_size)
    if options is None:
        return patch
    return source_size(options, patch_size=patch, spacing=spacing)


def _extra_augmentations(given: Any) -> tuple[Extra, ...]:
    """Load the functions that ``augment.extra`` names."""
    extra: dict[str, Extra] = {}
    for entry in given:
        match entry:
            case [str() as name, Mapping() as options] if name not in extra:
                pass
            case _:
                raise InputError(
                    f"augment.extra: found {entry!r}, expected ('package.module:"
                    "function', {options}), each function once"
                )
        try:
            function = load_function(name)
            inspect.signature(function).bind("key", "image", "label", **options)
        except (InputError, TypeError) as error:
            raise InputError(f"augment.extra: {name}: {error}") from None
        extra[name] = Extra(name, function, dict(options))
    return tuple(extra.values())


def create_optimizer_and_schedule(
    config: ConfigDict,
) -> tuple[optax.GradientTransformation, Schedule]:
    """Build both; InputError for an unknown name or a warm-up longer than the run."""
    options = config.optimizer
    schedule = create_schedule(
        name=options.schedule,
        learning_rate=options.learning_rate,
        warmup_steps=options.warmup_steps,
        total_steps=config.train.steps,
        final_fraction=options.final_fraction,
        power=options.power,
    )
    optimizer = create_optimizer(
        name=options.name,
        weight_decay=options.weight_decay,
        momentum=options.momentum,
        gradient_clip=options.gradient_clip,
    )
    return with_stage_rates(
        optimizer,
        freeze=config.train.get("freeze", ()),
        factors=options.get("rate_factors", ()),
    ), schedule
