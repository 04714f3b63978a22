"""Completes and checks the config of a run that is trained on overlapping regions."""

from collections.abc import Mapping
from typing import Any

from ml_collections import ConfigDict

from unet_jax.data.regions import Regions, regions_from
from unet_jax.errors import InputError, setting
from unet_jax.evaluation.metric_table import LOSS_PREFIX
from unet_jax.losses.terms import find_loss, reads_labels


def regions_of(config: ConfigDict) -> Regions | None:
    """Return the regions of a run; None for none, as in records of earlier versions."""
    data = config.data
    return regions_from(data.get("regions"), class_names=data.class_names)


def scored_names(config: ConfigDict) -> tuple[str, ...]:
    """Return the names of what is scored: of classes, or of regions."""
    regions = regions_of(config)
    return tuple(config.data.class_names if regions is None else regions.groups)


def score_groups(config: ConfigDict) -> dict[str, tuple[int, ...]] | None:
    """Return the classes of each region for `evaluate`; None without regions."""
    regions = regions_of(config)
    return None if regions is None else regions.groups


def with_regions(
    config: ConfigDict, found: Any = (), recorded: Mapping[str, Any] | None = None
) -> ConfigDict:
    """Return a config whose head and losses fit its regions, locked.

    Args:
        found: regions that the data state, for a config that leaves them to the data.
        recorded: config of a run to resume; its regions are kept.
    """
    filled = config.copy_and_resolve_references()
    if recorded is not None:
        found = recorded.get("data", {}).get("regions") or ()
    with filled.unlocked(), filled.ignore_type():
        if found and filled.data.get("regions") is None:
            filled.data.regions = tuple(found)
        if filled.data.get("regions"):
            filled.model.head = "sigmoid"
            filled.loss = tuple(_with_sigmoid(*entry) for entry in filled.loss)
    return filled.lock()


def _with_sigmoid(name: str, weight: float, given: Any) -> tuple[str, float, Any]:
    """Return the term of a loss that computes with sigmoids."""
    loss = find_loss(name)
    if loss.head != "softmax":
        return name, weight, given
    smoothed = dict(given).get("label_smoothing")
    if loss.instead != "bce" or smoothed:
        raise InputError(
            f"loss: {name!r}{' with label_smoothing' if smoothed else ''} compares "
            "classes that exclude each other, and data.regions overlap; expected "
            f"{loss.instead!r} or 'dice'. To train each value as a class, give "
            f"{setting('data.regions', ())}"
        )
    return "bce", weight, {k: v for k, v in given.items() if k != "label_smoothing"}


def check_regions(config: ConfigDict) -> None:
    """Refuse settings that do not go with ``data.regions``.

    Raises:
        InputError: a setting does not, or the regions have another form.
    """
    if regions_of(config) is None:
        return
    metrics = [one for one in config.eval.metrics if str(one).startswith(LOSS_PREFIX)]
    for wrong, key, value, expected in (
        (not reads_labels(config.loss), "loss", config.loss, "losses that read labels"),
        (
            config.data.include_background,
            "data.include_background",
            True,
            "False: the background is no region",
        ),
        (
            config.data.get("labelled_classes"),
            "data.labelled_classes",
            config.data.get("labelled_classes"),
            "'': all classes of a region have to be labelled",
        ),
        (config.eval.get("risk"), "eval.risk", config.eval.get("risk"), "None"),
        (metrics, "eval.metrics", metrics, "no losses"),
    ):
        if wrong:
            raise InputError(
                f"{key}: found {value!r} with data.regions, expected {expected}; set "
                f"that, or train each value as a class: {setting('data.regions', ())}"
            )
