"""The record of a run that its workdir carries: config.json."""

import importlib.metadata
import json
import pathlib
import platform
import subprocess
from collections.abc import Mapping
from typing import Any

from unet_jax.errors import InputError, setting
from unet_jax.experiment.renamed import current_config
from unet_jax.runtime.atomic import atomic_path


def may_change(key: str) -> bool:
    """Tell whether a run may be resumed with another value of a dotted key."""
    # Imported here: the command line reads records before the heavy modules are loaded.
    from unet_jax.configs.base import KEYS

    return key in KEYS and KEYS[key].may_change


def changes_scores(key: str) -> bool:
    """Tell whether another value of a dotted key may change a score of a run."""
    from unet_jax.configs.base import KEYS

    return key not in KEYS or KEYS[key].changes_scores


DRAWS_VERSION = 3
"""Version of the random draws of `unet_jax.augment`.

It is raised when a seed gives other augmented images. A half-trained run is not resumed
with other draws, since nothing could repeat it. It stands here, since the command line
reads records before jax is loaded.
"""

DRAWS_RELEASES = {1: "0.1.0", 2: "0.2.0.dev0"}
"""Last release of unet_jax that has the draws of each earlier version."""

LABELS_VERSION = 2
"""Version of how labels are brought to another grid (`unet_jax.data.label_grids`).

It is raised when a label gives other pixels there. Version 1, that of 0.1.0, took the
label at the centre of each new pixel.
"""

NETWORKS_VERSION = 2
"""Version of the names of networks, raised when a name stands for another network."""

_FORMER_NETWORKS = {"residual_encoder": "residual_encoder_v0"}
"""Name of a network in version 1 -> name of the network that it stood for."""

FORMAT = 1
"""Of config.json; to be raised when what an older program reads would mislead it."""

_PARTS = ("config", "preprocessing", "dataset")
_ADDED_LATER = frozenset(
    {
        *("deterministic", "data.split_seed", "augment.extra"),
        *("data.orientation", "data.palette_indices"),
        "data.allow_duplicates",
        *("data.join_masks", "data.channels", "data.zero_outside", "eval.choose"),
        *("model.plan", "data.calibration_fraction"),
        *("data.labels_only", "data.sub_labels"),
        *("data.resampling", "eval.average"),
        *("train.freeze", "optimizer.rate_factors"),
        *("data.adjacent_slices", "data.labelled_classes", "data.previous_stage"),
        *("data.regions", "data.segments"),
        "augment.previous_operator_probability",
        "augment.previous_removal_probability",
    }
)
"""Keys that runs of an earlier version did not have, and behaved as by default."""

_PACKAGES = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "grain", "numpy")


def make_record(
    config: dict[str, Any],
    *,
    preprocessing: dict[str, Any],
    dataset: dict[str, Any],
    draws_version: int = DRAWS_VERSION,
    labels_version: int = LABELS_VERSION,
    memory_source: str | None = None,
    splits: dict[str, Any] | None = None,
    networks_version: int = NETWORKS_VERSION,
) -> dict[str, Any]:
    """Collect what is needed to repeat the run or to use its network.

    Args:
        memory_source: where ``train.memory_gib`` comes from.
        splits: version of the rule that drew the splits, their slabs and groups; None
            if the data set has splits of its own.
    """
    return {
        "format": FORMAT,
        "config": config,
        "preprocessing": preprocessing,
        "dataset": dataset,
        "splits": splits,
        "draws_version": draws_version,
        "labels_version": labels_version,
        "memory_source": memory_source,
        "networks_version": networks_version,
        "versions": {
            "python": platform.python_version(),
            **{name: importlib.metadata.version(name) for name in _PACKAGES},
        },
        "git_revision": _git_revision(),
    }


def _git_revision() -> str | None:
    """Commit of this code, marked if files differ from it; None outside of git."""
    root = pathlib.Path(__file__).parents[2]
    if not (root / ".git").exists():  # installed, perhaps inside another repository
        return None
    try:
        answer = subprocess.run(
            ["git", "describe", "--always", "--dirty", "--abbrev=40"],
            cwd=root,
            capture_output=True,
            text=True,
            check=True,
        )
    except (OSError, subprocess.CalledProcessError):
        return None
    return answer.stdout.strip()


def write_record(workdir: pathlib.Path, record: dict[str, Any]) -> None:
    """Write config.json whole or not at all; InputError if it cannot be written."""
    path = workdir / "config.json"
    try:
        with atomic_path(path) as temporary:
            temporary.write_text(json.dumps(record, indent=1) + "\n")
    except OSError as error:
        raise InputError(
            f"--workdir {workdir}: cannot be written ({error.strerror}); name a folder "
            "that can"
        ) from None


def read_record(workdir: pathlib.Path) -> dict[str, Any] | None:
    """Read config.json.

    Returns:
        The record, or None where no run has begun.

    Raises:
        InputError: the file is not a record, or a newer program's.
    """
    path = workdir / "config.json"
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        parts = {key: dict(record[key]) for key in _PARTS}
        written = int(record.get("format", FORMAT))
        versions = {
            name: int(record.get(name, 1))
            for name in ("draws_version", "labels_version", "networks_version")
        }
    except FileNotFoundError:
        return None
    except NotADirectoryError:
        raise InputError(
            f"--workdir {workdir}: found a file, expected a folder"
        ) from None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(
            f"{path}: not the record of a run ({type(error).__name__}: {error}); name "
            "another --workdir"
        ) from None
    if written > FORMAT:
        raise InputError(
            f"{path}: is of format {written}, expected at most {FORMAT}: a newer "
            "unet_jax wrote it; update this one, or name another --workdir"
        )
    config = current_config(parts["config"])
    model = config.get("model")
    if isinstance(model, dict) and "name" in model:
        model["name"] = network_of(model["name"], versions["networks_version"])
    return {
        **parts,
        "splits": record.get("splits"),
        "config": config,
        "memory_source": record.get("memory_source"),
        **versions,
    }


def network_of(name: str, networks_version: int) -> str:
    """Return the present name of a network that a run named in some version.

    >>> network_of("residual_encoder", 1), network_of("residual_encoder", 2)
    ('residual_encoder_v0', 'residual_encoder')
    """
    return _FORMER_NETWORKS.get(name, name) if networks_version < 2 else name


def read_finished_record(workdir: pathlib.Path) -> dict[str, Any]:
    """Read config.json of a run; InputError if there is no run."""
    record = read_record(workdir)
    if record is None:
        raise InputError(
            f"--workdir {workdir}: found no config.json, expected the folder of a run; "
            "train one first"
        )
    return record


def check_no_run(output: pathlib.Path) -> None:
    """Refuse the folder of a run, or a file, for the results of several runs."""
    if output.exists() and not output.is_dir():
        raise InputError(f"--workdir {output}: found a file, expected a folder")
    if (output / "config.json").exists():
        raise InputError(
            f"--workdir {output}: is the folder of a run, whose scores would be "
            "replaced; name another"
        )


def check_same_run(
    workdir: pathlib.Path,
    record: dict[str, Any],
    config: dict[str, Any],
    dataset: dict[str, Any],
) -> None:
    """Refuse to go on with another config, or other data, than the run began with.

    Args:
        dataset: fingerprint of the data as they are now.

    Raises:
        InputError: a key that may not change differs, or the data do.
    """
    before, after = flat_config(record["config"]), flat_config(_plain(config))
    added = defaults_of_added_keys()
    for key in sorted(before.keys() | after.keys()):
        old, new = before.get(key, added.get(key)), after.get(key)
        # With it a part of validation chooses no checkpoint.
        fixed = key == "eval.risk" and None in (old, new)
        if (fixed or not may_change(key)) and old != new:
            raise InputError(
                f"--workdir {workdir}: its run has {key}={old!r}, this config {new!r}; "
                f"give {setting(key, as_tuples(old))}, or name another --workdir"
            )
    check_same_data(workdir, record, dataset)


def defaults_of_added_keys() -> dict[str, Any]:
    """Return what a run did that began before there were such keys."""
    from unet_jax.configs.base import KEYS  # late, as in `may_change`

    added = {key for key in KEYS if key.startswith("augment.synthesis")}
    return _plain({key: KEYS[key].default for key in _ADDED_LATER | added})


def check_same_draws(
    workdir: pathlib.Path, config: Mapping[str, Any], draws_version: int
) -> None:
    """Refuse to resume an augmented run that began with other random draws."""
    if config["augment"]["enabled"] and draws_version != DRAWS_VERSION:
        release = DRAWS_RELEASES.get(draws_version)
        program = f"unet_jax {release}" if release else "a newer unet_jax"
        raise InputError(
            f"--workdir {workdir}: its training was begun by {program}, whose "
            f"augmentation draws differ; finish it with {program}, or name another "
            "--workdir"
        )


def check_same_labels(
    workdir: pathlib.Path,
    config: Mapping[str, Any],
    labels_version: int,
    *,
    resampled: bool,
) -> None:
    """Refuse to resume a run whose labels would change half-way through training.

    Args:
        resampled: whether the preprocessing resamples images and labels. Deep
            supervision brings labels to coarser grids too.
    """
    coarser = resampled or config["model"]["options"].get("deep_supervision")
    if coarser and labels_version != LABELS_VERSION:
        program = "unet_jax 0.1.0" if labels_version == 1 else "a newer unet_jax"
        raise InputError(
            f"--workdir {workdir}: its training was begun by {program}, which brings "
            f"labels to another grid in another way. Finish it with {program}, or name "
            "another --workdir."
        )


def check_same_data(
    workdir: pathlib.Path, record: dict[str, Any], dataset: dict[str, Any]
) -> None:
    """Refuse data that changed since a run began: its splits would be others."""
    old, new = flat_config(record["dataset"]), flat_config(_plain(dataset))
    changed = sorted(
        key for key in old.keys() | new.keys() if old.get(key) != new.get(key)
    )
    if changed:
        key = changed[0]
        raise InputError(
            f"--workdir {workdir}: the data changed since its run began ({key} was "
            f"{str(old.get(key))[:80]}, is {str(new.get(key))[:80]}); restore them, or "
            "name another --workdir"
        )


def _plain(tree: dict[str, Any]) -> dict[str, Any]:
    """Return what JSON makes of a tree, with which a record can be compared."""
    plain: dict[str, Any] = json.loads(json.dumps(tree))
    return plain


def as_tuples(value: Any) -> Any:
    """Turn the lists that JSON made of tuples back."""
    if isinstance(value, dict):
        return {key: as_tuples(entry) for key, entry in value.items()}
    if isinstance(value, list):
        return tuple(as_tuples(entry) for entry in value)
    return value


def flat_config(tree: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Turn nested keys into dotted ones."""
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        if isinstance(value, dict):
            flat |= flat_config(value, f"{prefix}{key}.")
        else:
            flat[prefix + key] = value
    return flat
