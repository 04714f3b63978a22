"""Describes a segmenter for run.py, as plain values of bundle.json."""

import math
import pathlib
import shutil
from collections.abc import Mapping, Sequence
from typing import Any

from unet_jax.data.preprocess import Preprocessing
from unet_jax.errors import InputError
from unet_jax.inference.member import Member
from unet_jax.inference.segmenter import Segmenter

FORMAT = 1
"""Version of bundle.json, which run.py checks."""

FILES = ("run.py", "run_grids.py", "run_network.py", "run_steps.py")
"""Programs of a bundle; `run_*.py` are parts of run.py."""

WARNING = (
    "the image is unlike those that the network learnt from; do not trust its labels "
    "before you have looked at them"
)


def copy_programs(folder: pathlib.Path) -> None:
    """Copy run.py and its parts into a bundle."""
    here = pathlib.Path(__file__).parent
    for name in FILES:
        shutil.copyfile(here / name, folder / name)


def bundle_of(
    segmenter: Segmenter,
    *,
    models: Sequence[str],
    mirror_axes: Sequence[int],
    class_names: Sequence[str],
    class_colors: Sequence[Sequence[int]],
    reading: Mapping[str, Any],
    trust: Mapping[str, Any] | None,
) -> dict[str, Any]:
    """Return everything that run.py needs beside the networks.

    Args:
        segmenter: networks with preprocessing, postprocessing and calibration.
        models: file name of the network of each member.
        mirror_axes: spatial axes whose mirrored images are averaged.
        class_names: name of each class.
        class_colors: RGB of each class.
        reading: how files are read: "orientation" and "known_spacing".
        trust: "reference" (file name), "window" and "windows" (their number) of the
            do-not-trust measure; None for none.

    Returns:
        Plain values for JSON, without NaN or infinity.

    Raises:
        InputError: the run uses what run.py cannot do.
    """
    members = [
        _member(one, model, segmenter, mirror_axes)
        for one, model in zip(segmenter.members, models, strict=True)
    ]
    regions, threshold = segmenter.regions, segmenter.threshold
    return {
        "format": FORMAT,
        "class_names": list(class_names),
        "class_colors": [list(map(int, color)) for color in class_colors],
        "reading": {**reading, "sizes_matter": _sizes_matter(segmenter)},
        "members": members,
        "ensemble": "mean of the probabilities of all members on the image's grid",
        "head": segmenter.head,
        "regions": None
        if regions is None
        else [
            {"name": name, "classes": list(classes), "written": written}
            for name, classes, written in regions.entries
        ],
        "postprocess": [
            [name, index if isinstance(index, int) else list(index), number]
            for name, index, number in segmenter.steps
        ],
        "threshold": None
        if threshold is None
        else {"class": threshold.index, "probability": threshold.value},
        "temperature": segmenter.temperature,
        "trust": None if trust is None else {**trust, "warning": WARNING},
        "needs": needs(segmenter),
    }


def needs(segmenter: Segmenter) -> list[str]:
    """Return the packages that run.py imports for this segmenter."""
    packages = ["numpy", "onnxruntime", "nibabel for NIfTI", "pillow for pictures"]
    preprocessings = [one.preprocessing for one in segmenter.members]
    cubic = any(one.resampling == "nnunet" and one.resamples for one in preprocessings)
    filled = any("zscore_filled" in one.intensity for one in preprocessings)
    if segmenter.steps or cubic or filled:
        packages.append("scipy")
    # A radius leaves several markers, which a watershed joins.
    if any(
        name == "largest_component" and number for name, _, number in segmenter.steps
    ):
        packages.append("scikit-image")
    return packages


def _sizes_matter(segmenter: Segmenter) -> bool:
    """Return whether labels depend on the size of a pixel."""
    resampled = (one.preprocessing.spacing is not None for one in segmenter.members)
    radii = (
        number for name, _, number in segmenter.steps if name.startswith("largest")
    )
    return any(resampled) or any(radii)


def _member(
    member: Member, model: str, segmenter: Segmenter, mirror_axes: Sequence[int]
) -> dict[str, Any]:
    """Describe one network."""
    if member.previous is not None:
        raise InputError(
            "--mode=export: the run takes the labels of a previous stage, which run.py "
            "cannot compute; expected a network by itself; export the first stage"
        )
    return {
        "model": model,
        "preprocessing": _preprocessing(member.preprocessing),
        "window": list(member.window),
        "margin": list(member.margin),
        "multiple": list(member.multiple),
        "overlap": member.overlap,
        "batch": 1 if len(member.window) == 3 else member.window_batch,
        "blending": "gaussian, sigma 1/8 of the window",
        "average": "probabilities" if member.logits_head is None else "logits",
        "head": member.logits_head or segmenter.head,
        "mirror_axes": list(mirror_axes),
        "groups": None
        if member.groups is None
        else [list(group) for group in member.groups],
    }


def _preprocessing(preprocessing: Preprocessing) -> dict[str, Any]:
    """Return the preprocessing with None for an infinite limit."""
    values = preprocessing.to_dict()
    values["statistics"] = [
        [None if math.isinf(one) else one for one in row]
        for row in values["statistics"]
    ]
    return values
