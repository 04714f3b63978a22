"""Checks the cases of a folder against each other."""

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from unet_jax.data.case_traits import ImageTraits
from unet_jax.data.folder.splits import SPLITS, Part, Splits
from unet_jax.data.label_map import Entry, LabelMap
from unet_jax.errors import named_files, setting


def mixed_problems(images: Sequence[ImageTraits]) -> list[str]:
    """Describe each kind of case that does not fit into one network with the others."""
    problems = []
    for what, of, fix in (
        ("channels", lambda case: case.channels, "convert or remove them"),
        ("spatial axes", lambda case: len(case.shape), "convert or remove them"),
        (
            "a known spacing",
            lambda case: case.spacing is not None,
            "set data.known_spacing to the mm on each axis of the files without a "
            "spacing, or convert or remove them",
        ),
    ):
        kinds: dict[Any, list[ImageTraits]] = {}
        for case in images:
            kinds.setdefault(of(case), []).append(case)
        if len(kinds) > 1:
            most = max(kinds, key=lambda kind: len(kinds[kind]))
            for kind, cases in kinds.items():
                if kind != most:
                    files = named_files([case.images[0] for case in cases])
                    problems.append(
                        f"{files}: {what}: {kind} in {len(cases)} cases; expected "
                        f"{most} as in the others; {fix}"
                    )
    return problems


def same_images(
    images: Sequence[ImageTraits], splits: Splits
) -> list[tuple[str, ImageTraits, str, ImageTraits]]:
    """Find images that are in two splits; blank ones have nothing in common.

    Returns:
        Split and facts of each such image, and of the first one that is the same.
    """
    # Images that can be read; slices outside of the body are all equal.
    by_id = {case.id: case for case in images if not case.blank}
    same = []
    seen: dict[str, tuple[str, Part]] = {}
    for split in SPLITS:
        if split == "test" and splits.parts[split] == splits.parts["validation"]:
            continue  # there is no test split: the validation split is scored
        for part in splits.parts[split]:
            if part.id not in by_id:
                continue
            case = by_id[part.id]
            other, first = seen.setdefault(case.digest, (split, part))
            if other != split and first.id != part.id:
                same.append((split, case, other, by_id[first.id]))
    return same


def same_image_problems(images: Sequence[ImageTraits], splits: Splits) -> list[str]:
    """Refuse images that are in two splits."""
    return [
        f"{case.images[0]}: the same image as {first.images[0]}, which is in {other}, "
        f"while it is in {split}; remove one, or put both into one group; to reproduce "
        f"a published split, set {setting('data.allow_duplicates', True)}"
        for split, case, other, first in same_images(images, splits)
    ]


def missing_class_problems(
    trained: Iterable[int], *, names: Sequence[str], label_map: Sequence[Entry]
) -> list[str]:
    """Find classes that none of the stored values of the training split stands for."""
    values = sorted(set(trained))
    classes = LabelMap(label_map, num_classes=len(names))
    known = sorted(set(values) - set(classes.unknown(values)))
    present = set(classes(np.array(known, np.int64), where="masks").tolist())
    return [
        f"class {index} ({name}): no training case has it; expected at least one; fix "
        "data.class_names, data.label_map or the split"
        for index, name in enumerate(names)
        if index not in present
    ]
