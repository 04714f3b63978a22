"""Every file of a folder read once, and what is wrong with them in lines."""

import dataclasses
import json
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from unet_jax.data.files.colors import ColorsError
from unet_jax.data.folder.find import Pair
from unet_jax.data.folder.read import ReadOptions
from unet_jax.data.folder.traits import CaseTraits, Examined, ImageTraits, examine
from unet_jax.errors import InputError, SharedFault, named_files
from unet_jax.runtime.atomic import atomic_path


@dataclasses.dataclass(frozen=True)
class Scan:
    """What a folder holds.

    Attributes:
        traits: of the sound cases, in the order of their pairs.
        images: of all cases whose image is sound.
        problems: a line each.
        values: for the id of every case whose mask could be read, pixels of each stored
            label value.
    """

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
) -> Scan:
    """Read every case once.

    Args:
        pairs: the files of each case.
        options: how to read.
        num_threads: cases that are read at a time.
        cache: file that keeps what was found, for files that do not change.

    Returns:
        The sound cases, all problems, and all label values.
    """
    kept = _read_cache(cache, options)
    found: dict[str, Any] = {}

    def one(pair: Pair) -> Examined:
        stamp = _stamp(pair)
        entry = kept.get(pair.id)
        if entry is not None and entry["stamp"] == stamp:
            found[pair.id] = entry
            traits = CaseTraits.from_json(entry["traits"])
            return Examined(traits, traits, (), traits.values)
        result = examine(pair, options)
        if result.traits is not None:
            traits_json = dataclasses.asdict(result.traits)
            found[pair.id] = {"stamp": stamp, "traits": traits_json}
        return result

    with ThreadPoolExecutor(max(num_threads, 1)) as pool:
        results = list(pool.map(one, pairs))
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


def _problem_lines(problems: Sequence[InputError]) -> list[str]:
    """One line a problem; files that one key of the config fixes share a line."""
    colored, lines = [], []
    shared: dict[str, list[str]] = {}
    for problem in problems:
        if isinstance(problem, ColorsError) and problem.has_proposal:
            colored.append(problem)
        elif isinstance(problem, SharedFault):
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


def _stamp(pair: Pair) -> list[list[Any]] | None:
    """Return what changes when a file does; None where one is gone."""
    files = [*pair.images, *pair.masks]
    try:
        stats = [(file, file.stat()) for file in files]
    except OSError:
        return None
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
                CaseTraits.from_json(entry["traits"])
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
