"""Finds a TFDS set on disk; the sets of this project are built on first use."""

import contextlib
import difflib
import importlib
import io
import re
import shlex
import tempfile
from pathlib import Path
from typing import Any

from unet_jax.errors import InputError
from unet_jax.runtime.home import expanded

OWN_SETS = ("mni152_tissue", "mni152_lesion", "vertebra_ct")
"""Sets of this project: built from installed packages, without a network."""

_NAME = re.compile(
    r"(?P<name>[a-zA-Z]\w*)(/(?P<config>[\w.-]+))?(:(?P<version>\d+\.\d+\.\d+))?"
)


def prepare(name: str, data_dir: str | Path | None = None) -> Path:
    """Find the folder of a prepared set; build a set of this project if it is missing.

    Two processes may build at the same time: TFDS writes to a temporary folder and
    renames it when it is complete, so the second process finds and uses the result of
    the first. Leftovers of killed processes are ignored.

    Args:
        name: ``set``, ``set/config`` or ``set/config:1.2.3``, as in TFDS.
        data_dir: folder of all sets; None for the default of TFDS
            (``TFDS_DATA_DIR`` or ``~/tensorflow_datasets``).

    Returns:
        The folder of one version, with ``dataset_info.json`` and the ArrayRecords.

    Raises:
        InputError: no such set, a public set that is not on disk, or a folder that
            cannot be written.
    """
    # TFDS is imported inside functions, because the import takes half a second.
    from tensorflow_datasets.core import constants
    from tensorflow_datasets.core.utils.version import list_all_versions

    match = _NAME.fullmatch(name)
    if match is None:
        raise InputError(
            f"data set name {name!r}: expected 'set', 'set/config' or "
            "'set/config:1.2.3', as TFDS writes it"
        )
    root = Path(expanded(data_dir if data_dir is not None else constants.DATA_DIR))
    if match["name"] in OWN_SETS:
        return _prepare_own(match, root)
    folder = root / match["name"] / (match["config"] or "")
    versions = [str(version) for version in list_all_versions(folder)]
    if match["version"] in versions:
        return folder / match["version"]
    if versions and match["version"] is None:
        return folder / versions[-1]
    raise _not_prepared(match, root, folder, versions)


def _prepare_own(match: re.Match[str], root: Path) -> Path:
    """Build a set of this project, unless its current version is on disk."""
    from tensorflow_datasets.core.naming import snake_to_camelcase

    name = match["name"]
    module = importlib.import_module(f"unet_jax.datasets.{name}.{name}_dataset_builder")
    builder_class = getattr(module, snake_to_camelcase(name))
    version = str(builder_class.VERSION)
    if match["config"] or match["version"] not in (None, version):
        raise InputError(
            f"data set {match[0]!r}: expected {match['name']!r} or "
            f"'{match['name']}:{version}', the only version that this project builds"
        )
    folder = root / match["name"] / version
    if not folder.is_dir():
        print(f"preparing {match['name']} in {folder} (once)")
        try:
            _build(builder_class, root)
        except OSError as error:
            # Another process may have finished its own copy in the meantime.
            if not folder.is_dir():
                raise InputError(
                    f"{folder}: data set {match['name']!r} cannot be written there "
                    f"({error}); give a data_dir that is writable and has space"
                ) from error
    return folder


def _build(builder_class: Any, root: Path) -> None:
    """Write a set as ArrayRecord without output on the terminal."""
    import tensorflow_datasets as tfds

    tfds.disable_progress_bar()
    config = tfds.download.DownloadConfig(
        compute_stats=tfds.download.ComputeStatsMode.SKIP, try_download_gcs=False
    )
    root.mkdir(parents=True, exist_ok=True)
    # TFDS prints two lines, and creates a download folder even for a set without
    # downloads.
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
    """Explain why a public set was not found: wrong name, or not prepared."""
    import tensorflow_datasets as tfds
    from tensorflow_datasets.core.utils.version import list_all_versions

    name, ours = match["name"], ", ".join(OWN_SETS)
    if versions:
        return InputError(
            f"data set {match[0]!r}: found versions {', '.join(sorted(versions))} in "
            f"{folder}; name one of these, or prepare the other"
        )
    configs = [path.name for path in folder.glob("*") if list_all_versions(path)]
    if configs:
        return InputError(
            f"data set {name!r} has configs; found {', '.join(sorted(configs))} in "
            f"{folder}; name one, as in '{name}/{min(configs)}'"
        )
    public = tfds.list_builders(with_community_datasets=False)
    if name in public:
        return InputError(
            f"data set {match[0]!r} is not prepared: looked in {folder}; run "
            f"`tfds build {match[0]} --file_format=array_record "
            f"--data_dir={shlex.quote(str(root))}` "
            "once (needs TensorFlow and the network), or use one that needs no "
            f"preparation: {ours}"
        )
    close = difflib.get_close_matches(name, [*OWN_SETS, *public], n=1)
    hint = f"; did you mean {close[0]!r}?" if close else ""
    return InputError(
        f"data set {name!r} is unknown{hint}; this project builds {ours}; any other "
        f"TFDS set has to be prepared as ArrayRecord in {folder}; check the name and "
        "data_dir"
    )
