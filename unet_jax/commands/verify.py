"""Reads every case of a data set, prints what was found, and trains nothing."""

import contextlib
import pathlib
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import cast

from ml_collections import ConfigDict

from unet_jax.data.case import Source
from unet_jax.data.fingerprint import fingerprint
from unet_jax.data.folder.dataset import FolderDataset
from unet_jax.data.folder.pairing import Pair
from unet_jax.data.folder.traits import Examined
from unet_jax.data.folder.watch import Watch
from unet_jax.errors import InputError
from unet_jax.experiment.check import check_config
from unet_jax.experiment.complete import fingerprint_text, resolve_source
from unet_jax.experiment.data import SPLITS, open_dataset, recorded_splits
from unet_jax.experiment.record import read_record
from unet_jax.labels import IGNORE
from unet_jax.report.progress import ReadingBar


def verify(config: ConfigDict, workdir: pathlib.Path | None = None) -> list[str]:
    """Read every case that a config names, and print a line for each.

    The line has the size, dtype, spacing and where it is from, photometric, palette,
    slope, orientation, mask values, group and split of a case, and its problems.
    Nothing is written.

    Args:
        config: config of a run.
        workdir: folder of a run whose splits are taken; None to take or draw them.

    Returns:
        The lines.

    Raises:
        InputError: there are problems; ``details`` has one line for each.
    """
    config = resolve_source(config)
    check_config(config)
    with contextlib.closing(ReadingBar()) as bar:
        if config.data.source == "folder":
            lines = _folder_lines(config, workdir, bar)
        else:
            lines = _set_lines(config, bar)
    cases = len(lines)
    print(f"verified    {cases} {'case' if cases == 1 else 'cases'}, no problems")
    return lines


def _folder_lines(
    config: ConfigDict, workdir: pathlib.Path | None, bar: ReadingBar
) -> list[str]:
    """Print what was found in the cases of a folder, also if there are problems."""
    watch = Watch(bar.step)
    try:
        record = None if workdir is None else read_record(workdir)
        recorded = recorded_splits(record)
        dataset = open_dataset(config, None, recorded=recorded, watch=watch)
    finally:
        bar.close()
        splits = _split_of_each(watch)
        lines = [_case_line(*one, watch, splits) for one in watch.found]
        print(*lines, sep="\n", end="\n" if lines else "")
    for note in dataset.notes:
        print(f"data        {note}")
    folder = cast(FolderDataset, dataset)  # drawn images have what their folder has
    found = fingerprint(folder.traits)
    print(
        f"fingerprint {fingerprint_text(found)}; smallest value {found.lowest:g}; "
        f"{found.nonzero_fraction:.0%} of an image is not 0"
    )
    pairs = folder.label_map or ()
    if ignored := [str(value) for value, index in pairs if index == IGNORE]:
        print(f"ignored     mask {', '.join(ignored)}")
    return lines


def _split_of_each(watch: Watch) -> dict[str, str]:
    """Name the splits that a case, or a part of it, belongs to."""
    found: dict[str, list[str]] = {}
    for split, parts in () if watch.splits is None else watch.splits.parts.items():
        for part in parts:
            found.setdefault(part.id, []).append(split)
    return {one: " and ".join(splits) for one, splits in found.items()}


def _case_line(
    pair: Pair, examined: Examined, watch: Watch, splits: dict[str, str]
) -> str:
    """Write what was found in a case, and below it its problems."""
    parts = [f"{key} {value}" for key, value in examined.stated.items()]
    if examined.values is not None:
        parts.append(f"mask {_values(sorted(examined.values))}")
    if pair.id in watch.labelled:
        parts.append(f"labelled {watch.labelled[pair.id]}")
    if pair.images:
        parts.append(f"group {watch.groups.get(pair.id, '-')}")
        parts.append(f"split {splits.get(pair.id, '-')}")
    lines = [f"{pair.id}: {'; '.join(parts)}"]
    return "\n  problem: ".join([*lines, *map(str, examined.problems)])


def _values(values: Sequence[int]) -> str:
    """List the values of a mask."""
    more = f" and {len(values) - 20} more" if len(values) > 20 else ""
    return ", ".join(map(str, values[:20])) + more


def _set_lines(config: ConfigDict, bar: ReadingBar) -> list[str]:
    """Print what was found in the cases of a TFDS set."""
    dataset = open_dataset(config, None)
    sources = {split: dataset.source(split) for split in SPLITS}
    total = sum(map(len, sources.values()))
    lines: list[str] = []
    problems: list[InputError] = []
    with ThreadPoolExecutor(max(config.data.num_threads, 1)) as pool:
        for split, source in sources.items():
            for line in pool.map(
                lambda index, source=source, split=split: _read(source, index, split),
                range(len(source)),
            ):
                lines.append(str(line))
                if isinstance(line, InputError):
                    problems.append(line)
                bar.step(len(lines), total)
    bar.close()
    print(*lines, sep="\n")
    if len(problems) == 1:
        raise problems[0]
    if problems:
        raise InputError(
            f"data.name {config.data.name}: found {len(problems)} problems; please fix "
            "all of them:",
            [str(problem) for problem in problems],
        )
    return lines


def _read(source: Source, index: int, split: str) -> str | InputError:
    """Read one case; return what was found, or its problem."""
    try:
        case = source[index]
    except InputError as error:
        return error
    *sizes, channels = case.image.shape
    spacing = "unknown"
    if case.spacing is not None:
        spacing = " x ".join(f"{size:.6g}" for size in case.spacing) + " mm"
    return (
        f"{case.id}: size {' x '.join(map(str, sizes))}, channels {channels}; dtype "
        f"{case.image.dtype}; spacing {spacing}; group {case.group}; split {split}"
    )
