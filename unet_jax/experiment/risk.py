"""Limits the fraction of a class that is missed, by a part of validation.

With ``eval.risk`` some groups of validation are held out of it. They choose neither the
checkpoint nor postprocessing nor temperature, and after training they choose the
threshold, which is written to the workdir.
"""

import dataclasses
import hashlib
import json
import math
import pathlib
from collections.abc import Mapping
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from unet_jax.data.case import Case, Source, read_case
from unet_jax.data.subset import Subset
from unet_jax.errors import InputError, setting
from unet_jax.experiment.data import SPLITS, Dataset
from unet_jax.experiment.finished import RISK, Risk, risk_of
from unet_jax.hosts import agree
from unet_jax.inference.risk import (
    Levels,
    Threshold,
    choose_threshold,
    count_levels,
    groups_needed,
)
from unet_jax.inference.segmenter import Segmenter
from unet_jax.labels import IGNORE
from unet_jax.runtime.atomic import atomic_path

CALIBRATION = "calibration"
"""Name of the part of validation that chooses the threshold."""


def sources_of(
    config: ConfigDict, dataset: Dataset, *, risk: bool = True
) -> dict[str, Source]:
    """Return the cases of each split, with those of `CALIBRATION` where there are any.

    Args:
        config: complete config.
        dataset: data set of the config.
        risk: whether ``eval.risk`` takes its part of validation.

    Raises:
        InputError: too few groups of the calibration part have the class.
    """
    sources = {split: dataset.source(split) for split in SPLITS}
    limit = risk_of(config) if risk else None
    if limit is None:
        return sources
    validation = sources["validation"]
    groups, having = [], set()
    for number in range(len(validation)):
        case = read_case(validation, number)
        groups.append(case.group)
        if case.label is not None and (case.label == limit.index).any():
            having.add(case.group)
    chosen = _chosen(set(groups), config)
    _check_groups(config, limit, len(chosen & having), len(having))
    parts = {
        split: tuple(i for i, group in enumerate(groups) if (group in chosen) == wanted)
        for split, wanted in (("validation", False), (CALIBRATION, True))
    }
    return sources | {
        split: Subset(validation, indices) for split, indices in parts.items()
    }


def _chosen(groups: set[str], config: ConfigDict) -> set[str]:
    """Draw the groups of the calibration part; at least one is left."""
    seed = config.data.split_seed

    def draw(group: str) -> bytes:
        return hashlib.sha256(f"{seed}:{group}".encode("utf-8", "replace")).digest()

    count = round(config.data.calibration_fraction * len(groups))
    return set(sorted(groups, key=draw)[: min(count, len(groups) - 1)])


def _check_groups(config: ConfigDict, risk: Risk, found: int, every: int) -> None:
    """Refuse a limit that no threshold can keep with this number of groups."""
    needed = groups_needed(risk.alpha)
    if found >= needed:
        return
    possible = math.ceil(1000 / (found + 1)) / 1000
    proposed = setting("eval.risk", (risk.name, possible))
    raise InputError(
        f"eval.risk: found {found} validation groups with the class {risk.name!r} for "
        f"the calibration part ({every} in all of validation; data.calibration_fraction"
        f"={config.data.calibration_fraction}), expected at least {needed} for a limit "
        f"of {risk.alpha}. Give more groups to validation or to this part"
        + (f", or a higher limit: {proposed}" if found else "")
    )


def with_risk_threshold(
    folder: pathlib.Path,
    segmenter: Segmenter,
    calibration: Source,
    config: ConfigDict,
    *,
    step: int | None,
) -> tuple[Segmenter, dict[str, Any]]:
    """Choose the threshold of ``eval.risk``, write risk.json and print it.

    Args:
        folder: folder for risk.json.
        segmenter: network, or several, with what validation chose.
        calibration: labelled cases that chose nothing.
        config: config with ``eval.risk``.
        step: step of the checkpoint.

    Returns: The segmenter with the threshold, and the content of risk.json.
    """
    risk = risk_of(config)
    assert risk is not None
    plain = dataclasses.replace(segmenter, threshold=None)
    mine = []
    for number in agree.indices_here(len(calibration)):
        case = calibration[number]
        mine.append([case.group, levels_of_case(plain, case, risk.index).packed()])
    groups: dict[str, Levels] = {}
    for group, packed in agree.gather_items(mine):
        one = Levels.unpacked(packed)
        groups[group] = groups[group] + one if group in groups else one
    choice = choose_threshold(groups, alpha=risk.alpha)
    found = {"checkpoint_step": step, "class": risk.name, "alpha": risk.alpha}
    found |= choice._asdict()
    with atomic_path(folder / RISK) as temporary:
        temporary.write_text(json.dumps(found) + "\n")
    print(_line(found))
    threshold = Threshold(risk.index, choice.threshold)
    return dataclasses.replace(segmenter, threshold=threshold), found


def levels_of_case(segmenter: Segmenter, case: Case, index: int) -> Levels:
    """Count the pixels of a case by the threshold that marks them.

    Those of a case in which the class was not labelled say nothing.
    """
    assert case.label is not None, "validation has labels"
    probability = np.zeros(case.label.shape, np.float32)

    def watch(place: tuple[slice | int, ...], scores: np.ndarray) -> None:
        probability[place] = scores[..., index]

    labels = segmenter(
        case.image, case.spacing, name=case.id, reference=case.reference, watch=watch
    )
    known = case.labelled_classes is None or index in case.labelled_classes
    return count_levels(
        probability=probability,
        prediction=labels == index,
        labels=case.label if known else np.full_like(case.label, IGNORE),
        index=index,
    )


def _line(found: Mapping[str, Any]) -> str:
    """Describe a threshold in one line."""
    more = found["beside"] / max(found["beside_without"], 1)
    return (
        f"eval.risk: {found['groups']} groups limit the missed fraction of "
        f"{found['class']!r} to {found['alpha']}: pixels of probability >= "
        f"{found['threshold']:.4g} get the class. These groups miss "
        f"{found['missed']:.3f} (before {found['missed_without']:.3f}), with "
        f"{found['beside']} pixels beside the class ({more:.2f} times as many)"
    )
