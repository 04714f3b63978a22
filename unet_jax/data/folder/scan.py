"""Scans a folder: reads every file once and lists the problems."""

import dataclasses
import json
from collections import Counter
from collections.abc import Hashable, Sequence
from collections.abc import Set as AbstractSet
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from unet_jax.data.case_traits import CaseTraits, ImageTraits
from unet_jax.data.files.colors import ColorsError
from unet_jax.data.files.dicom import dicom_files
from unet_jax.data.folder.options import ReadOptions
from unet_jax.data.folder.pairing import Pair
from unet_jax.data.folder.read import used_slice_axis
from unet_jax.data.folder.traits import Examined, examine
from unet_jax.data.folder.watch import Watch
from unet_jax.data.memory import CaseMemory
from unet_jax.errors import InputError, SharedProblem, named_files
from unet_jax.runtime.atomic import atomic_path


@dataclasses.dataclass(frozen=True)
class Scan:
    """Facts of cases and images, problems, and pixels of each stored label value."""

    traits: tuple[CaseTraits, ...]
    images: tuple[ImageTraits, ...]
    problems: tuple[str, ...]
    values: dict[str, dict[int, int]]


def scan(
    pairs: Sequence[Pair],
    options: ReadOptions,
    *,
    num_threads: int,
    cache: Path | None,
    memory: CaseMemory,
    keep: AbstractSet[str],
    watch: Watch,
) -> Scan:
    """Read every case once.

    Args:
        cache: file that keeps the facts of cases whose files do not change; None for
            none.
        memory: memory for the cases that will be read again.
        keep: ids of these cases.
        watch: is told of each case that was read.
    """
    kept = _read_cache(cache, options)
    found: dict[str, Any] = {}

    def one(pair: Pair) -> Examined:
        stamp = _stamp(pair, options)
        entry = kept.get(pair.id)
        if entry is not None and entry["stamp"] == stamp:
            found[pair.id] = entry
            traits = CaseTraits.from_json(entry["traits"])
            return Examined(traits, traits, (), traits.values)
        result = examine(pair, options)
        if result.traits is not None:
            traits_json = dataclasses.asdict(result.traits)
            found[pair.id] = {"stamp": stamp, "traits": traits_json}
        if result.pixels is not None and pair.id in keep:
            memory.keep(memory_key(pair, options), result.pixels)
        return dataclasses.replace(result, pixels=None)

    with ThreadPoolExecutor(max(num_threads, 1)) as pool:
        results = []
        for pair, result in zip(pairs, pool.map(one, pairs), strict=True):
            results.append(result)
            watch.add(pair, result, len(pairs))
    if found != kept:
        _write_cache(cache, options, found)
    return Scan(
        tuple(result.traits for result in results if result.traits is not None),
        tuple(result.image for result in results if result.image is not None),
        tuple(_problem_lines([problem for one in results for problem in one.problems])),
        {
            pair.id: result.values
            for pair, result in zip(pairs, results, strict=True)
            if result.values is not None
        },
    )


def memory_key(case: Pair | ImageTraits, options: ReadOptions) -> Hashable:
    """Return the key of a case in the memory; pages have other axes on another axis."""
    return case.id, used_slice_axis(case.images, options, case.kind)


def _problem_lines(problems: Sequence[InputError]) -> list[str]:
    """Write one line per problem, or per config key that fixes several files."""
    colored, lines = [], []
    shared: dict[str, list[str]] = {}
    for problem in problems:
        if isinstance(problem, ColorsError) and problem.has_proposal:
            colored.append(problem)
        elif isinstance(problem, SharedProblem):
            shared.setdefault(problem.text, []).append(problem.file)
        else:
            lines.append(str(problem))
    if colored:
        counts: Counter[tuple[int, int, int]] = Counter()
        for problem in colored:
            counts.update(problem.counts)
        names = named_files([problem.name for problem in colored], "more masks")
        lines.append(str(ColorsError(names, counts)))
    for text, files in shared.items():
        lines.append(f"{named_files(files)}: {text}")
    return lines


def _stamp(pair: Pair, options: ReadOptions) -> list[Any] | None:
    """Return values that change with the files or their axes; None if one is gone."""
    files = [
        file
        for one in (*pair.images, *pair.masks)
        for file in (dicom_files(one) if one.is_dir() else [one])
    ]
    try:
        stats = [(file, file.stat()) for file in files]
    except OSError:
        return None
    stamp: list[Any] = [
        [str(file), stat.st_size, stat.st_mtime_ns] for file, stat in stats
    ]
    axis = used_slice_axis(pair.images, options, pair.kind)
    return stamp if axis is None else [*stamp, axis]


def _options_key(options: ReadOptions) -> Any:
    """Return the options that concern all files, as JSON returns them."""
    values = json.loads(json.dumps(dataclasses.asdict(options)))
    del values["slice_axis"]  # it concerns some files, and is in their stamps
    return values


def _read_cache(cache: Path | None, options: ReadOptions) -> dict[str, Any]:
    """Read the facts that an earlier start found; none if they do not apply."""
    if cache is None:
        return {}
    try:
        content = json.loads(cache.read_text())
        content["options"].pop("slice_axis", None)  # version 0.1 wrote it
        if content["options"] == _options_key(options):
            cases: dict[str, Any] = content["cases"]
            for entry in cases.values():
                CaseTraits.from_json(entry["traits"])
            return cases
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        pass  # the files are read again
    return {}


def _write_cache(
    cache: Path | None, options: ReadOptions, cases: dict[str, Any]
) -> None:
    """Keep the facts."""
    if cache is None:
        return
    content = {"options": _options_key(options), "cases": cases}
    try:
        with atomic_path(cache) as temporary:
            temporary.write_text(json.dumps(content) + "\n")
    except OSError as error:
        raise InputError(
            f"{cache}: cannot be written ({error.strerror}); name a --workdir that can "
            "be written"
        ) from None
