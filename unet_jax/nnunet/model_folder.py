"""Finds the files of a trained nnU-Net: a folder, a fold in it, or an exported zip."""

import contextlib
import dataclasses
import json
import shutil
import tempfile
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from unet_jax.errors import InputError

CHECKPOINT = "checkpoint_final.pth"
DESCRIPTIONS = ("plans.json", "dataset.json")
_MOST_RATIO = 20
"""Bytes that one byte of a zip may unpack to, beyond a first MiB."""


@dataclasses.dataclass(frozen=True)
class ModelFiles:
    """The files of one trained network.

    Attributes:
        plans: content of ``plans.json``.
        dataset: content of ``dataset.json``.
        checkpoint: path of the weights.
    """

    plans: Mapping[str, Any]
    dataset: Mapping[str, Any]
    checkpoint: Path


@contextlib.contextmanager
def opened_model(path: Path) -> Iterator[ModelFiles]:
    """Open a trained model of nnU-Net 2.

    Args:
        path: the folder that holds ``plans.json``, ``dataset.json`` and folders
            ``fold_0``, ...; one of the latter; or a zip that
            ``nnUNetv2_export_model_to_zip`` wrote. Of the zip a copy is unpacked until
            the context ends.

    Raises:
        InputError: files are missing, or there are several models or folds.
    """
    with contextlib.ExitStack() as stack:
        folder = path
        if path.is_file():
            name = stack.enter_context(tempfile.TemporaryDirectory())
            folder = Path(name)
            _unpack(path, folder)
        yield _files_in(folder, path)


def _files_in(folder: Path, path: Path) -> ModelFiles:
    """Read the descriptions and choose the fold; the path is for messages."""
    if folder.name.startswith("fold_"):
        model, folds = folder.parent, [folder]
    else:
        plans = [folder / "plans.json"]
        if not plans[0].is_file():
            plans = sorted(folder.glob("*/plans.json")) or sorted(
                folder.glob("*/*/plans.json")
            )
        if len(plans) != 1:
            found = ", ".join(str(one.parent.relative_to(folder)) for one in plans[:5])
            raise InputError(
                f"{path}: found {found or 'no plans.json'}; expected the "
                "folder of one trained model of nnU-Net, with plans.json, dataset.json "
                "and fold_0; name it"
            )
        model = plans[0].parent
        folds = sorted(one.parent for one in model.glob(f"fold_*/{CHECKPOINT}"))
    if not folds or not (folds[0] / CHECKPOINT).is_file():
        raise InputError(
            f"{path}: found no fold_*/{CHECKPOINT}; expected one. Train to the end, or "
            "copy the checkpoint there."
        )
    if len(folds) > 1:
        raise InputError(
            f"{path}: found {', '.join(one.name for one in folds)}; expected one. Name "
            f"a fold, such as {path / folds[0].name}, and average the runs by "
            "--mode=evaluate --workdirs."
        )
    plans_content, dataset = (read_json(model / name) for name in DESCRIPTIONS)
    return ModelFiles(plans_content, dataset, folds[0] / CHECKPOINT)


def read_json(path: Path) -> dict[str, Any]:
    """Read an object of JSON; InputError if the file is none."""
    try:
        content = json.loads(path.read_text(encoding="utf-8-sig"))
        if isinstance(content, dict):
            return content
        found = type(content).__name__
    except (OSError, ValueError, RecursionError) as error:
        found = " ".join(str(error).split())
    raise InputError(
        f"{path}: cannot be read ({found}); expected the JSON object that nnU-Net wrote"
    )


def _unpack(path: Path, folder: Path) -> None:
    """Unpack descriptions and checkpoints of a zip, with bounds on their size."""
    try:
        with zipfile.ZipFile(path) as archive:
            for entry in archive.infolist():
                parts = Path(entry.filename).parts
                wanted = parts and parts[-1] in (*DESCRIPTIONS, CHECKPOINT)
                if not wanted or ".." in parts or Path(entry.filename).is_absolute():
                    continue
                if entry.file_size > _MOST_RATIO * entry.compress_size + 2**20:
                    raise InputError(
                        f"{path}: {entry.filename} unpacks to {entry.file_size} bytes; "
                        f"expected at most {_MOST_RATIO} times its "
                        f"{entry.compress_size}. Export the model again."
                    )
                place = folder.joinpath(*parts)
                place.parent.mkdir(parents=True, exist_ok=True)
                with archive.open(entry) as source, place.open("wb") as target:
                    shutil.copyfileobj(source, target)
    except (zipfile.BadZipFile, OSError, RuntimeError, NotImplementedError) as error:
        raise InputError(
            f"{path}: cannot be unpacked ({error}); expected the folder of a trained "
            "model of nnU-Net, or the zip of nnUNetv2_export_model_to_zip"
        ) from None


def configuration_of(plans: Mapping[str, Any], name: str) -> dict[str, Any]:
    """Return a configuration of the plans, with what it inherits.

    Args:
        plans: content of ``plans.json``.
        name: such as ``"3d_fullres"``.

    Raises:
        InputError: there is none of that name, or one inherits from itself.
    """
    known = plans.get("configurations", {})
    names = [name]
    while known.get(names[-1], {}).get("inherits_from") is not None:
        names.append(known[names[-1]]["inherits_from"])
        if len(names) > len(known):
            break
    if names[-1] not in known or len(names) > len(known):
        raise InputError(
            f"plans.json: found no configuration {name!r} among {', '.join(known)}; "
            "expected that of the checkpoint, and what it inherits from"
        )
    merged: dict[str, Any] = {}
    for one in reversed(names):
        merged |= known[one]
    return merged
