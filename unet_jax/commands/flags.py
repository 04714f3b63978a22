"""The flags of the command line, and the config that they name."""

import pathlib
import re
import sys
import tempfile
from collections.abc import Sequence

from absl import flags
from ml_collections import ConfigDict

from unet_jax.errors import InputError
from unet_jax.experiment.config_file import (
    config_path,
    load_config,
    override,
    remembered_config,
    remembered_folds_config,
)
from unet_jax.experiment.renamed import current_arguments
from unet_jax.runtime.home import expanded

FLAGS = flags.FLAGS
_PATHS = ("workdir", "input", "output", "workdirs", "runs")
"""Flags with a path, or a list of them."""

_MODES = [
    "train",
    "crossvalidate",
    "evaluate",
    "predict",
    "compare",
    "verify",
    "plan",
    "import_nnunet",
    "export_nnunet",
    "export",
    "report",
]
flags.DEFINE_string(
    "config",
    None,
    "Config of the run: a path, or the name of a shipped one such as brain; "
    "--config.any.key=value changes a key. Default: the config that --workdir holds.",
)
flags.DEFINE_string(
    "workdir", None, "Folder of the run, or gs://...; default runs/<config.name>."
)
flags.DEFINE_enum("mode", "train", _MODES, "What to do.")
flags.DEFINE_string(
    "input",
    None,
    "predict: an image file, or a folder of them. import_nnunet: a model folder. plan: "
    "nnU-Net's plans.json or dataset_fingerprint.json.",
)
flags.DEFINE_string(
    "output",
    None,
    "predict: the folder for the label maps. plan: that for the configs, default plan. "
    "export: a new folder for the bundle. report: the page of several runs.",
)
flags.DEFINE_bool("probabilities", False, "predict: write probabilities too.")
flags.DEFINE_bool("uncertainty", False, "predict: write maps of uncertainty too.")
flags.DEFINE_bool("contours", False, "predict: write outlines too, as GeoJSON.")
flags.DEFINE_bool(
    "dicom_seg", False, "predict: write DICOM segmentations of DICOM series too."
)
flags.DEFINE_bool("overwrite", False, "predict, plan: replace files of the output.")
flags.DEFINE_list(
    "workdirs",
    None,
    "evaluate: runs whose mean is scored; A,B,C. report: runs to put side by side.",
)
flags.DEFINE_list("runs", None, "compare: finished runs, by case; A,B,C.")
flags.DEFINE_bool(
    "check_determinism",
    False,
    "train: run a few steps twice and compare the results bit for bit.",
)
flags.DEFINE_string(
    "topology",
    None,
    "plan: the TPU slice, such as v5e:4x4; without one the data set is planned.",
)
flags.DEFINE_integer(
    "channels",
    1,
    "plan: channels of the images, where no folder of data gives them.",
    lower_bound=1,
)
flags.DEFINE_string("profile", None, "train: START:STOP, the steps to trace.")
flags.DEFINE_string("coordinator", None, "HOST:PORT of the first of several processes.")
flags.DEFINE_integer("num_processes", None, "Number of processes of the run.")
flags.DEFINE_integer("process_id", None, "Number of this process, from 0.")
flags.DEFINE_bool("debug", False, "Show the traceback of an error.")


def parse(argv: Sequence[str]) -> list[str]:
    """Parse the flags.

    Returns:
        The name of the program, and the changes of the config (``--config.key=value``)
        for `read_config`.

    Raises:
        InputError: a flag is unknown, or an argument is no flag.
        flags.Error: a flag has a value that it cannot have.
    """
    arguments, advice = current_arguments(
        FLAGS.read_flags_from_files(list(argv), force_gnu=False)
    )
    for line in advice:
        print(f"unet_jax: {line}", file=sys.stderr)
    rest, overrides = _split(arguments)
    found = FLAGS(rest)
    if len(found) > 1:
        raise InputError(f"found the argument {found[1]!r}, expected flags only")
    for name in _PATHS:
        value = FLAGS[name].value
        if isinstance(value, str):
            FLAGS[name].value = expanded(value)
        elif value:
            FLAGS[name].value = [expanded(path) for path in value]
    return [found[0], *overrides]


def _split(arguments: Sequence[str]) -> tuple[list[str], list[str]]:
    """Part the arguments into flags, and changes of the config."""
    rest, overrides = [], []
    pending = False
    for argument in arguments:
        if re.match(r"--?(no)?config\.", argument):
            overrides.append(argument)
            pending = "=" not in argument  # then its value may follow
        elif pending and not argument.startswith("-"):
            overrides[-1] += f"={argument}"
            pending = False
        else:
            rest.append(argument)
            pending = False
    return rest, overrides


def read_config(overrides: Sequence[str]) -> ConfigDict | None:
    """Load the config that ``--config`` names, or that the workdir holds.

    Returns:
        The config, locked; None where the mode needs none and none is given.

    Raises:
        InputError: there is no config, or it cannot have these values.
    """
    if FLAGS.config is not None:
        path, taken = config_path(FLAGS.config)
        if taken:
            print(taken)
        config = load_config(path)
    elif FLAGS.mode in ("train", "crossvalidate", "plan", "verify") or (
        # Without changes it compares what the workdir holds.
        FLAGS.mode == "compare" and overrides and not FLAGS.runs
    ):
        config = _remembered()
    elif overrides:
        raise InputError(
            f"{overrides[0]}: --mode={FLAGS.mode} takes the config that the workdir "
            "holds; change it with --mode=train first, or give --config"
        )
    else:
        return None
    override(config, overrides)
    if "train" in config and "optimizer" in config:
        from unet_jax.experiment.warmup import fit_warmup

        keys = [re.split(r"config\.|=", one)[1] for one in overrides]
        lines = [fit_warmup(config, given=keys)]
        if FLAGS.mode == "crossvalidate":
            from unet_jax.experiment.checkpoint_choice import keep_last

            lines.append(keep_last(config, given=keys))
        for line in filter(None, lines):
            print(f"unet_jax: {line}", file=sys.stderr)
    return config


def _remembered() -> ConfigDict:
    """Return the config that the workdir holds."""
    expected = "expected a path, or the name of a shipped config such as brain"
    if not FLAGS.workdir:
        raise InputError(f"--config: found nothing, {expected}")
    if FLAGS.workdir.startswith("gs://"):
        config = _remembered_in_bucket(FLAGS.workdir)
    else:
        workdir = pathlib.Path(FLAGS.workdir)
        config = remembered_config(workdir)
        if config is None and FLAGS.mode == "crossvalidate":
            config = remembered_folds_config(workdir)
    if config is None:
        raise InputError(
            f"--config: found nothing, and --workdir {FLAGS.workdir} holds no "
            f"config.json; {expected}"
        )
    return config


def _remembered_in_bucket(url: str) -> ConfigDict | None:
    """Return the config that a workdir in a bucket holds."""
    from unet_jax.bucket.store import BucketError, Store

    try:
        content = Store(url).read("config.json").content
    except BucketError as error:
        raise InputError(f"--workdir {url}: {error}") from None
    if content is None:
        return None
    with tempfile.TemporaryDirectory() as folder:
        (pathlib.Path(folder) / "config.json").write_bytes(content)
        return remembered_config(pathlib.Path(folder))
