"""Every file of a folder read once: what each case is like, and what is wrong."""

import dataclasses
import hashlib
import itertools
import json
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from unet_jax.atomic import atomic_path
from unet_jax.data.colors import ColorsError
from unet_jax.data.preprocess import nonzero_statistics
from unet_jax.data.sources.case_files import (
    ReadOptions,
    read_case_image,
    read_case_label,
)
from unet_jax.data.sources.folder_layout import Pair
from unet_jax.data.stored import StoredImage
from unet_jax.errors import InputError


@dataclasses.dataclass(frozen=True)
class CaseTraits:
    """What is known of one case without its pixels.

    Attributes:
        id: of the case.
        patient: folder that it lies in; "" for none.
        images: the image, or one file a channel, or one a slice.
        masks: its mask, or one a slice, or one a class.
        kind: what several files are, one of ``case_files.KINDS``.
        painted: for "parts" the value that each mask stands for.
        shape: spatial shape on the case's axes (RAS for NIfTI).
        channels: of the image.
        dtype: stored dtype of the image.
        spacing: millimetres a pixel and axis; None if unknown.
        values: pixels of each stored label value.
        lowest: smallest value of the image.
        highest: largest one.
        reference: mean and deviation of each channel's non-zero pixels.
        digest: SHA-256 of the image's pixels, in hexadecimal.
        label_digest: of the mask's.
    """

    id: str
    patient: str
    images: tuple[str, ...]
    masks: tuple[str, ...]
    kind: str
    painted: tuple[int, ...]
    shape: tuple[int, ...]
    channels: int
    dtype: str
    spacing: tuple[float, ...] | None
    values: dict[int, int]
    lowest: float
    highest: float
    reference: tuple[tuple[float, float], ...]
    digest: str
    label_digest: str


def scan(
    pairs: Sequence[Pair],
    options: ReadOptions,
    *,
    num_threads: int,
    cache: Path | None,
) -> tuple[list[CaseTraits], list[str]]:
    """Read every case once.

    Args:
        pairs: the files of each case.
        options: how to read.
        num_threads: cases that are read at a time.
        cache: file that keeps what was found, for files that do not change.

    Returns:
        The traits of the sound cases, in the order of ``pairs``, and a line for each
        fault.
    """
    kept = _read_cache(cache, options)
    found: dict[str, Any] = {}

    def one(pair: Pair) -> CaseTraits | list[InputError]:
        stamp = _stamp(pair)
        entry = kept.get(pair.id)
        if entry is not None and entry["stamp"] == stamp:
            found[pair.id] = entry
            return _from_json(entry["traits"])
        result = _scan_case(pair, options)
        if isinstance(result, CaseTraits):
            found[pair.id] = {"stamp": stamp, "traits": dataclasses.asdict(result)}
        return result

    with ThreadPoolExecutor(max(num_threads, 1)) as pool:
        results = list(pool.map(one, pairs))
    if found != kept:
        _write_cache(cache, options, found)
    traits = [result for result in results if isinstance(result, CaseTraits)]
    faults = [
        fault for result in results if isinstance(result, list) for fault in result
    ]
    return traits, _fault_lines(faults)


def _fault_lines(faults: Sequence[InputError]) -> list[str]:
    """One line a fault; masks whose colours need a palette share one, and one line."""
    colored = [
        fault
        for fault in faults
        if isinstance(fault, ColorsError) and fault.has_proposal
    ]
    lines = [str(fault) for fault in faults if fault not in colored]
    if colored:
        counts: Counter[tuple[int, int, int]] = Counter()
        for fault in colored:
            counts.update(fault.counts)
        names = [fault.name for fault in colored]
        more = f" and {len(names) - 3} more masks" if len(names) > 3 else ""
        lines.append(str(ColorsError(", ".join(names[:3]) + more, counts)))
    return lines


def _scan_case(pair: Pair, options: ReadOptions) -> CaseTraits | list[InputError]:
    """Read one case; a list of faults where it has some."""
    faults = []
    image = label = None
    try:
        image, spacing, stored = read_case_image(pair.images, options, kind=pair.kind)
    except InputError as error:
        faults.append(error)
    if not pair.masks:
        faults.append(
            InputError(
                f"{pair.images[0]}: has no mask; expected one of its name; add it or "
                "move the image away"
            )
        )
    elif image is not None or pair.kind != "parts":
        try:
            label, stored_label = read_case_label(
                pair.masks,
                options,
                kind=pair.kind,
                painted=pair.painted,
                shape=() if image is None else image.shape[:-1],
            )
        except InputError as error:
            faults.append(error)
    if image is None or label is None:
        return faults
    if label.shape != image.shape[:-1]:
        return [
            InputError(
                f"{pair.masks[0]}: size {label.shape}; expected {image.shape[:-1]} as "
                f"{pair.images[0].name}; export both from one grid"
            )
        ]
    # Slices lie at different places by nature.
    others = () if pair.kind == "slices" else (*stored[1:], stored_label)
    faults = [
        InputError(
            f"{other.path}: its affine differs from {pair.images[0].name}'s, voxels "
            f"lie up to {away:.3g} mm apart; expected the same place; resample it, or "
            "copy the header if the voxels do match"
        )
        for other in others
        if (away := _apart(stored[0], other))
    ]
    if faults:
        return faults
    values, counts = _counted(label)
    return CaseTraits(
        id=pair.id,
        patient=pair.patient,
        images=tuple(map(str, pair.images)),
        masks=tuple(map(str, pair.masks)),
        kind=pair.kind,
        painted=pair.painted,
        shape=tuple(label.shape),
        channels=image.shape[-1],
        dtype=str(image.dtype),
        spacing=spacing,
        values=dict(zip(values, counts, strict=True)),
        lowest=float(image.min()),
        highest=float(image.max()),
        reference=tuple(
            nonzero_statistics(image[..., index]) for index in range(image.shape[-1])
        ),
        digest=_digest(image),
        label_digest=_digest(label),
    )


def _apart(one: StoredImage, two: StoredImage) -> float:
    """Millimetres between the same corner of two volumes; 0 within a tenth voxel."""
    if one.affine is None or two.affine is None or one.spacing is None:
        return 0.0
    ends = [(0, size) for size in one.image.shape[:3]]
    corners = np.array([(*corner, 1) for corner in itertools.product(*ends)])
    away = np.linalg.norm((corners @ (one.affine - two.affine).T)[:, :3], axis=1).max()
    return float(away) if away > 0.1 * min(one.spacing) else 0.0


def _counted(label: np.ndarray) -> tuple[list[int], list[int]]:
    """Count the pixels of each value."""
    if label.dtype in (np.uint8, np.uint16):
        counts = np.bincount(label.ravel())
        values = np.flatnonzero(counts)
        return values.tolist(), counts[values].tolist()
    values, counts = np.unique(label, return_counts=True)
    return values.tolist(), counts.tolist()


def _digest(array: np.ndarray) -> str:
    """Hash shape, dtype and pixels."""
    digest = hashlib.sha256(f"{array.shape} {array.dtype}".encode())
    digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()


def _stamp(pair: Pair) -> list[list[Any]]:
    """Return what changes when a file does."""
    files = [*pair.images, *pair.masks]
    stats = [(file, file.stat()) for file in files]
    return [[str(file), stat.st_size, stat.st_mtime_ns] for file, stat in stats]


def _options_key(options: ReadOptions) -> Any:
    """Return the options as JSON gives them back."""
    return json.loads(json.dumps(dataclasses.asdict(options)))


def _read_cache(cache: Path | None, options: ReadOptions) -> dict[str, Any]:
    """Read what an earlier start found; nothing where it does not apply."""
    if cache is None:
        return {}
    try:
        content = json.loads(cache.read_text())
        if content["options"] == _options_key(options):
            cases: dict[str, Any] = content["cases"]
            for entry in cases.values():
                _from_json(entry["traits"])
            return cases
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        pass  # it is only a cache: the files are read again
    return {}


def _write_cache(
    cache: Path | None, options: ReadOptions, cases: dict[str, Any]
) -> None:
    """Keep what was found."""
    if cache is None:
        return
    content = {"options": _options_key(options), "cases": cases}
    try:
        with atomic_path(cache) as temporary:
            temporary.write_text(json.dumps(content) + "\n")
    except OSError as error:
        raise InputError(
            f"{cache}: cannot be written ({error.strerror}); name a --workdir that can"
        ) from None


def _from_json(values: dict[str, Any]) -> CaseTraits:
    """Restore traits."""
    parts = dict(values)
    for name in ("images", "masks", "painted", "shape"):
        parts[name] = tuple(parts[name])
    parts["spacing"] = None if parts["spacing"] is None else tuple(parts["spacing"])
    parts["reference"] = tuple((pair[0], pair[1]) for pair in parts["reference"])
    parts["values"] = {int(key): count for key, count in parts["values"].items()}
    return CaseTraits(**parts)
