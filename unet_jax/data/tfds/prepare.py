"""Where a TFDS set lies on disk; the sets of this project are built on first use."""

import contextlib
import difflib
import io
import re
import tempfile
from pathlib import Path
from typing import Any

from unet_jax.errors import InputError

OWN_SETS = ("mni152_tissue", "mni152_lesion", "vertebra_ct")
"""Sets of this project: built from installed packages, without a network."""

_NAME = re.compile(
    r"(?P<name>[a-zA-Z]\w*)(/(?P<config>[\w.-]+))?(:(?P<version>\d+\.\d+\.\d+))?"
)
_VERSION = re.compile(r"\d+\.\d+\.\d+")


def prepare(name: str, data_dir: str | Path | None = None) -> Path:
    """Find the folder of a prepared set; build it first where it is one of ours.

    Two processes may build at once: TFDS writes to a folder of its own name and renames
    it when it is complete, so the second finds the first one's and uses that. What a
    killed process leaves behind is never looked at.

    Args:
        name: ``set``, ``set/config`` or ``set/config:1.2.3``, as TFDS writes it.
        data_dir: where sets are kept; None for TFDS's own (``TFDS_DATA_DIR`` or
            ``~/tensorflow_datasets``).

    Returns:
        The folder of one version, with ``dataset_info.json`` and the ArrayRecords.

    Raises:
        InputError: no such set, a public set that is not on disk, or a folder that
            cannot be written.
    """
    # Imported here, as everywhere below: TFDS takes half a second to import.
    from tensorflow_datasets.core import constants

    match = _NAME.fullmatch(name)
    if match is None:
        raise InputError(
            f"data set name {name!r}: expected 'set', 'set/config' or "
            "'set/config:1.2.3', as TFDS writes it"
        )
    root = Path(data_dir if data_dir is not None else constants.DATA_DIR).expanduser()
    if match["name"] in OWN_SETS:
        return _prepare_own(match, root)
    folder = root / match["name"] / (match["config"] or "")
    versions = _versions_in(folder)
    if match["version"] in versions:
        return folder / match["version"]
    if versions and match["version"] is None:
        return folder / max(versions, key=_version_order)
    raise _not_prepared(match, root, folder, versions)


def _versions_in(folder: Path) -> list[str]:
    """List the versions of a set, the folders that killed builds leave not among."""
    if not folder.is_dir():
        return []
    return [path.name for path in folder.iterdir() if _VERSION.fullmatch(path.name)]


def _version_order(version: str) -> tuple[int, ...]:
    """Order 10.0.0 after 9.0.0."""
    return tuple(int(part) for part in version.split("."))


def _builder_class(name: str) -> Any:
    """Import the builder of one of our own sets."""
    match name:
        case "mni152_tissue":
            from unet_jax.datasets.mni152_tissue import mni152_tissue_dataset_builder

            return mni152_tissue_dataset_builder.Mni152Tissue
        case "mni152_lesion":
            from unet_jax.datasets.mni152_lesion import mni152_lesion_dataset_builder

            return mni152_lesion_dataset_builder.Mni152Lesion
        case "vertebra_ct":
            from unet_jax.datasets.vertebra_ct import vertebra_ct_dataset_builder

            return vertebra_ct_dataset_builder.VertebraCt
    raise ValueError(f"Unknown data set {name!r}; expected one of {OWN_SETS}")


def _prepare_own(match: re.Match[str], root: Path) -> Path:
    """Build one of our own sets unless its current version is on disk already."""
    builder_class = _builder_class(match["name"])
    version = str(builder_class.VERSION)
    if match["config"] or match["version"] not in (None, version):
        raise InputError(
            f"data set {match[0]!r}: expected {match['name']!r} or "
            f"'{match['name']}:{version}', the one version that this project builds"
        )
    folder = root / match["name"] / version
    if not folder.is_dir():
        print(f"preparing {match['name']} in {folder} (once)")
        try:
            _build(builder_class, root)
        except OSError as error:
            # Another process may have renamed its own copy into place meanwhile.
            if not folder.is_dir():
                raise InputError(
                    f"{folder}: data set {match['name']!r} cannot be written there "
                    f"({error}); give a data_dir that can be written to and has space"
                ) from error
    return folder


def _build(builder_class: Any, root: Path) -> None:
    """Write a set as ArrayRecord, saying nothing on the terminal."""
    import tensorflow_datasets as tfds

    tfds.disable_progress_bar()
    config = tfds.download.DownloadConfig(
        compute_stats=tfds.download.ComputeStatsMode.SKIP, try_download_gcs=False
    )
    root.mkdir(parents=True, exist_ok=True)
    # TFDS prints two lines by itself, and makes a download folder even where there is
    # nothing to download.
    with (
        tempfile.TemporaryDirectory() as downloads,
        contextlib.redirect_stdout(io.StringIO()),
    ):
        builder_class(data_dir=root).download_and_prepare(
            download_dir=downloads, download_config=config, file_format="array_record"
        )


def _not_prepared(
    match: re.Match[str], root: Path, folder: Path, versions: list[str]
) -> InputError:
    """Say why a set that is not ours was not found: wrong name, or not prepared."""
    import tensorflow_datasets as tfds

    name, ours = match["name"], ", ".join(OWN_SETS)
    if versions:
        return InputError(
            f"data set {match[0]!r}: found versions {', '.join(sorted(versions))} in "
            f"{folder}; name one of these, or prepare the other"
        )
    configs = [path.name for path in folder.glob("*") if _versions_in(path)]
    if configs:
        return InputError(
            f"data set {name!r} has configs; found {', '.join(sorted(configs))} in "
            f"{folder}; name one, as in '{name}/{min(configs)}'"
        )
    public = tfds.list_builders(with_community_datasets=False)
    if name in public:
        return InputError(
            f"data set {match[0]!r} is not prepared: looked in {folder}; run "
            f"`tfds build {match[0]} --file_format=array_record --data_dir={root}` "
            "once (needs TensorFlow and the network), or use one that needs no "
            f"preparation: {ours}"
        )
    close = difflib.get_close_matches(name, [*OWN_SETS, *public], n=1)
    hint = f"; did you mean {close[0]!r}?" if close else ""
    return InputError(
        f"data set {name!r} is unknown{hint}; this project builds {ours}; any other "
        f"TFDS set has to lie as ArrayRecord in {folder}: check the name and data_dir"
    )
