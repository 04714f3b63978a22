"""Writes and checks the SHA-256 sums of checkpoints, and sets damaged ones aside.

Orbax has no checksum of the arrays: it restores a flipped bit without a word.
"""

import hashlib
import json
import pathlib
import shutil
from collections.abc import Sequence
from typing import Any

from unet_jax.errors import InputError

RUN_FILE = "run.json"
SUMS_FILE = "sha256.json"
FIX = (
    "restore it from a copy, or start the training command again, which keeps it in "
    "damaged/ and resumes from another checkpoint"
)


def write_sums(path: pathlib.Path) -> None:
    """Write the sums of a complete checkpoint's items beside them."""
    (path / SUMS_FILE).write_text(json.dumps(_sums(path), indent=1))


def check_sums(path: pathlib.Path) -> None:
    """Refuse a checkpoint with a file that is missing or has changed.

    Raises:
        InputError: a file is missing or has changed.
    """
    try:
        expected = dict(json.loads((path / SUMS_FILE).read_text()))
        found = _sums(path)
    except (OSError, ValueError, TypeError) as error:
        raise damaged(path / SUMS_FILE, error) from error
    for name, digest in expected.items():
        if found.get(name) != digest:
            state = "changed since it was written" if name in found else "missing"
            raise InputError(f"{path / name}: the file is {state}; {FIX}")


def set_damaged_aside(
    directories: Sequence[pathlib.Path], *, latest_to_keep: int
) -> list[str]:
    """Move damaged checkpoints out of the way of a resumed run.

    They are kept in ``damaged``, beside their folder. A damaged checkpoint that is
    neither the best nor among the latest is removed: an earlier start was killed while
    it removed it.

    Returns:
        One line for each checkpoint that was moved.

    Raises:
        InputError: there are checkpoints, and all are damaged.
    """
    problems: dict[pathlib.Path, str] = {}
    whole: list[pathlib.Path] = []
    for directory in directories:
        for step in steps_in(directory):
            path = directory / str(step)
            try:
                check_sums(path)
                whole.append(path)
            except InputError as error:
                problems[path] = str(error).partition(";")[0]
    if problems and not whole:
        newest = max(problems, key=lambda path: int(path.name))
        raise InputError(
            f"{newest.parent}: no checkpoint is whole ({problems[newest]}); restore "
            "one from a copy, or name another --workdir to start again"
        )
    best = _best_of(max(whole, key=lambda path: int(path.name))) if whole else None
    lines = []
    for path, problem in problems.items():
        step = int(path.name)
        newer = [other for other in whole if int(other.name) > step]
        if step != best and len(newer) >= latest_to_keep:
            shutil.rmtree(path)
            continue
        lines.append(f"{problem}: this checkpoint was moved to {move_aside(path)}")
    return lines


def move_aside(path: pathlib.Path) -> pathlib.Path:
    """Move the folder of a checkpoint to ``damaged``, and return its new path."""
    aside = _free_name(path.parent.parent / "damaged" / path.name)
    aside.parent.mkdir(exist_ok=True)
    return path.rename(aside)


def steps_in(directory: pathlib.Path) -> list[int]:
    """List the steps that have a checkpoint, oldest first; none without a folder."""
    if not directory.is_dir():
        return []
    return sorted(int(path.name) for path in directory.iterdir() if path.name.isdigit())


def damaged(path: pathlib.Path, error: Exception) -> InputError:
    """Make the error of a checkpoint, or a file of it, that cannot be read."""
    return InputError(
        f"{path}: the checkpoint cannot be read ({shortened(error)}); {FIX}"
    )


def shortened(error: Exception) -> str:
    """Write an error of a library in one line: its start and its end."""
    text = " ".join(str(error).split())
    if len(text) > 200:
        text = f"{text[:100]} ... {text[-80:]}"
    return f"{type(error).__name__}: {text}"


def _sums(path: pathlib.Path) -> dict[str, str]:
    """Return the SHA-256 of every file of a checkpoint's items."""
    sums = {}
    # Orbax still changes the files beside the items.
    for file in sorted(path.glob("*/**/*")):
        if file.is_file():
            with file.open("rb") as stream:
                digest = hashlib.file_digest(stream, "sha256").hexdigest()
            sums[file.relative_to(path).as_posix()] = digest
    return sums


def _best_of(path: pathlib.Path) -> int | None:
    """Return the best step at the time when a checkpoint was written."""
    run: dict[str, Any] = json.loads((path / "run" / RUN_FILE).read_text())
    step = run["record"].get("step")
    return None if step is None else int(step)


def _free_name(path: pathlib.Path) -> pathlib.Path:
    """Return the path, with a number if it exists."""
    number = 1
    free = path
    while free.exists():
        number += 1
        free = path.with_name(f"{path.name}-{number}")
    return free
