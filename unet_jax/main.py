"""The command line: flags, then one call.

    python -m unet_jax.main --config=configs/brain.py
    python -m unet_jax.main --mode=evaluate --workdir=runs/brain
    python -m unet_jax.main --mode=predict --workdir=runs/brain \
        --input=scan.nii.gz --output=segmented/
    python -m unet_jax.main --mode=compare --config=configs/brain.py
    python -m unet_jax.main --mode=compare --runs=runs/a,runs/b
    python -m unet_jax.main --mode=plan --config=configs/brain.py --topology=v5e:4x4

Nothing heavy is imported before the flags are read, so that --help is quick.
"""

import os
import pathlib
import re
import shlex
import sys
import traceback
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from typing import TYPE_CHECKING, NoReturn

from absl import app, flags, logging
from ml_collections import ConfigDict, config_flags

from unet_jax.errors import InputError, RunError, Stopped
from unet_jax.experiment.renamed import current_arguments
from unet_jax.hosts.start import environment_processes, is_one_of_several, start
from unet_jax.runtime import allocator
from unet_jax.runtime.stop import Stop, StopSignals

if TYPE_CHECKING:
    from unet_jax.bucket.place import Place

FLAGS = flags.FLAGS
_MODES = ["train", "evaluate", "predict", "compare", "plan"]
config_flags.DEFINE_config_file(
    "config",
    None,
    "Config of the run, e.g. configs/brain.py; --config.any.key=value changes a key.",
    lock_config=True,
)
flags.DEFINE_string(
    "workdir", None, "Folder of the run, or gs://...; default runs/<config.name>."
)
flags.DEFINE_enum("mode", "train", _MODES, "What to do.")
flags.DEFINE_string("input", None, "predict: an image file, or a folder of them.")
flags.DEFINE_string("output", None, "predict: the folder for the label maps.")
flags.DEFINE_bool("probabilities", False, "predict: write probabilities too.")
flags.DEFINE_bool("contours", False, "predict: write outlines too, as GeoJSON.")
flags.DEFINE_bool("overwrite", False, "predict: replace files in the output folder.")
flags.DEFINE_list("workdirs", None, "evaluate: runs whose mean is scored; A,B,C.")
flags.DEFINE_list("runs", None, "compare: finished runs, by case; A,B,C.")
flags.DEFINE_bool(
    "check_determinism", False, "train: make a few steps twice and compare them."
)
flags.DEFINE_string("topology", None, "plan: the TPU slice, such as v5e:4x4.")
flags.DEFINE_integer(
    "channels",
    1,
    "plan: channels of the images, where no folder of data says it.",
    lower_bound=1,
)
flags.DEFINE_string("profile", None, "train: START:STOP, the steps to trace.")
flags.DEFINE_string("coordinator", None, "HOST:PORT of the first of several processes.")
flags.DEFINE_integer("num_processes", None, "How many processes run together.")
flags.DEFINE_integer("process_id", None, "Which of them this is, from 0.")
flags.DEFINE_bool("debug", False, "Show the traceback of an error.")


def main(argv: list[str]) -> None:
    """Do what the flags say; exit 2 with one line if the user can fix it."""
    logging.set_verbosity(logging.WARNING)  # the libraries' progress is not the user's
    try:
        if len(argv) > 1:
            raise InputError(f"found the argument {argv[1]!r}, expected flags only")
        run()
    except (InputError, RunError) as error:
        if FLAGS.debug:
            raise
        if isinstance(error, RunError):
            _say(error)
            _leave(1)
        if is_one_of_several():
            _say(error)
            _leave(2)
        _exit(error)
    except Stopped as stopped:
        print(f"\nunet_jax: {stopped}\n{_hint()}", file=sys.stderr)
        sys.exit(stopped.code)
    except KeyboardInterrupt:
        print("\nunet_jax: stopped", file=sys.stderr)
        sys.exit(130)
    except Exception:
        if not is_one_of_several():
            raise
        traceback.print_exc()
        _leave(1)


def _leave(code: int) -> NoReturn:
    """End at once what an orderly end would keep: all that is to be done is done.

    One of several processes would wait for the others, and after a save that failed
    threads of Orbax wait for ten minutes.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def _hint() -> str:
    """Say how to go on."""
    command = f"python -m unet_jax.main {shlex.join(sys.argv[1:])}"
    return f"the same command goes on:\n  {command}"


def run() -> None:
    """Make the one call that ``--mode`` names."""
    _refuse_buckets()
    # What a scheduler starts can be told to stop, from here on: to find the other
    # processes may take minutes.
    heard = FLAGS.mode in ("train", "evaluate", "compare")
    with StopSignals(hint=_hint()) if heard else nullcontext(Stop()) as stop:
        _join_processes()
        _call(stop)


def _refuse_buckets() -> None:
    """Refuse s3://a/b: as a path it would be the folder s3:/a/b of this disk."""
    for name in ("workdir", "input", "output", "workdirs", "runs"):
        value = FLAGS[name].value or []
        for path in [value] if isinstance(value, str) else value:
            if "://" not in path:
                continue
            if name in ("input", "output"):
                raise InputError(
                    f"--{name}: found {path!r}, expected a path of a file system: "
                    "images are neither read from a bucket nor written to one; copy "
                    "them (docs/cluster.md)"
                )
            if not path.startswith("gs://"):
                raise InputError(
                    f"--{name}: found {path!r}, expected a path of a file system, or "
                    "gs://BUCKET/FOLDER: no other buckets are known (docs/cluster.md)"
                )


def _call(stop: Stop) -> None:
    """Make the call."""
    match FLAGS.mode:
        case "train":
            config, profile = _config(), _profile(FLAGS.profile)
            allocator.keep_freed_memory()  # a step takes what the last one left
            if FLAGS.check_determinism:
                from unet_jax.commands.check_determinism import check_determinism

                check_determinism(config)
                return
            from unet_jax.commands.train import train_and_evaluate

            with _opened(_workdir(), stop, trains=True) as place:
                train_and_evaluate(
                    config, place.path, profile=profile, stop=stop, bucket=place.bucket
                )
        case "evaluate":
            _evaluate(stop)
        case "predict":
            workdir = _workdir()
            for name in ("input", "output"):
                if not FLAGS[name].value:
                    raise InputError(f"--mode=predict needs --{name}=PATH")
            from unet_jax.commands.predict import predict_files

            with _opened(workdir, stop) as place:
                predict_files(
                    place.path,
                    input_path=FLAGS.input,
                    output_folder=FLAGS.output,
                    probabilities=FLAGS.probabilities,
                    contours=FLAGS.contours,
                    overwrite=FLAGS.overwrite,
                )
        case "compare":
            if FLAGS.runs:
                from unet_jax.commands.compare_runs import compare_runs

                with _opened_all(FLAGS.runs, "comparison", stop) as (runs, output):
                    compare_runs(runs, output=output, names=FLAGS.runs)
                return
            trains = FLAGS.config is not None
            with _opened(_workdir(), stop, trains=trains) as place:
                _train_and_compare(place, stop)
        case "plan":
            config = _config()
            from unet_jax.commands.plan import plan_run

            plan_run(config, FLAGS.topology, channels=FLAGS.channels)


def _join_processes() -> None:
    """Connect with the other processes of a run, if there are any."""
    processes = environment_processes(
        coordinator=FLAGS.coordinator,
        count=FLAGS.num_processes,
        index=FLAGS.process_id,
    )
    if processes is None:
        return
    if FLAGS.mode not in ("train", "evaluate"):
        raise InputError(
            f"--mode={FLAGS.mode} runs in one process, and this is one of several; "
            "start it once"
        )
    timeout = 600.0 if FLAGS.config is None else FLAGS.config.train.step_timeout
    from unet_jax.hosts import agree

    start(processes, heartbeat_seconds=4 * timeout + 60)
    agree.be_patient(3 * timeout)  # shares of cases differ
    if not agree.is_first():
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115 - until the process ends


def _evaluate(stop: Stop) -> None:
    """Score a run, or the mean of several."""
    workdir = None if FLAGS.workdirs else _workdir()
    from unet_jax.commands.evaluate import evaluate_ensemble, evaluate_run
    from unet_jax.hosts.lost import leaving_when_lost

    with leaving_when_lost(stop, safe=lambda: "the checkpoints are as they were"):
        if workdir is not None:
            with _opened(workdir, stop) as place:
                evaluate_run(place.path)
            return
        with _opened_all(FLAGS.workdirs, "ensemble", stop) as (folders, output):
            evaluate_ensemble(folders, output=output, names=FLAGS.workdirs)


def _train_and_compare(place: "Place", stop: Stop) -> None:
    """Train the network if there is a config, then run every method beside it."""
    from unet_jax.commands.compare import compare_methods, method_names

    if FLAGS.config is not None:
        allocator.keep_freed_memory()
        method_names(FLAGS.config.compare.methods)  # before hours of training
        from unet_jax.commands.train import train_and_evaluate

        train_and_evaluate(FLAGS.config, place.path, stop=stop, bucket=place.bucket)
    compare_methods(place.path, stop=stop)


def _opened(
    workdir: str, stop: Stop, *, trains: bool = False
) -> AbstractContextManager["Place"]:
    """Give a workdir as a folder."""
    from unet_jax.bucket.place import opened

    return opened(workdir, stop=stop, trains=trains)


@contextmanager
def _opened_all(
    runs: list[str], kind: str, stop: Stop
) -> Iterator[tuple[list[pathlib.Path], pathlib.Path]]:
    """Give runs as folders, and one for what they give together."""
    with ExitStack() as stack:
        output = stack.enter_context(_opened(_folder_of(runs, kind), stop)).path
        places = [stack.enter_context(_opened(run, stop)) for run in runs]
        yield [place.path for place in places], output


def _config() -> ConfigDict:
    """Return the config of the flag."""
    if FLAGS.config is None:
        raise InputError(
            "--config: found nothing, expected a file such as configs/brain.py"
        )
    return FLAGS.config


def _workdir() -> str:
    """Return the name of the run's workdir, by flag or by the config."""
    if FLAGS.workdir:
        return str(FLAGS.workdir)
    if FLAGS.config is None:
        raise InputError(f"--mode={FLAGS.mode} needs --workdir=FOLDER of a run")
    return f"runs/{FLAGS.config.name}"


def _folder_of(runs: list[str], kind: str) -> str:
    """Return the name of the folder for what several runs give together."""
    if FLAGS.workdir:
        return str(FLAGS.workdir)
    names = "+".join(pathlib.Path(folder).name for folder in runs)
    return f"runs/{kind}_{names}"


def _profile(text: str | None) -> tuple[int, int] | None:
    """Read START:STOP."""
    if text is None:
        return None
    match = re.fullmatch(r"(\d+):(\d+)", text)
    if match is None or int(match[1]) >= int(match[2]):
        raise InputError(
            f"--profile: found {text!r}, expected START:STOP, two steps such as 10:20"
        )
    return int(match[1]), int(match[2])


def parse_flags(argv: list[str]) -> list[str]:
    """Parse the flags; a mistake in them is one line and exit code 2."""
    argv, advice = current_arguments(argv)
    sys.argv[1:] = argv[1:]  # where ml_collections looks for overrides
    for line in advice:
        print(f"unet_jax: {line}", file=sys.stderr)
    try:
        _check_config_file(argv)
        return FLAGS(argv)
    except SystemExit:  # absl leaves --help with code 1
        sys.exit(0)
    except (flags.Error, InputError) as error:
        if "--debug" in argv:
            raise
        _exit(error)
    except Exception as error:  # whatever a config file raises when it is loaded
        if "--debug" in argv:
            raise
        _exit(_explain_config_error(argv, error))


def _check_config_file(argv: list[str]) -> None:
    """Refuse a config file that is not there; it would fail only when it is used."""
    for argument, following in zip(argv[1:], [*argv[2:], ""], strict=False):
        name, equals, value = argument.partition("=")
        if name in ("--config", "-config"):
            path = pathlib.Path(value if equals else following)
            if not path.is_file():
                raise InputError(
                    f"--config: no file {str(path)!r}; expected a config such as "
                    "configs/brain.py"
                )


def _explain_config_error(argv: list[str], error: Exception) -> str:
    """Name the override whose key the config does not have, or what went wrong."""
    reason = " ".join(str(error).replace("\\n", " ").split())
    key = re.search(r"\w+", reason)
    near = re.search(r"Did you mean \"(\w+)\"", reason)
    for argument in argv[1:]:
        name = argument.partition("=")[0]
        if key and name.startswith("--config.") and key[0] in name.split("."):
            hint = f"; did you mean {near[1]!r}?" if near else ""
            return f"{argument}: the config has no key {key[0]!r}{hint}"
    return f"--config: cannot be loaded: {type(error).__name__}: {reason}"


def _exit(error: object) -> NoReturn:
    """Print one line, and one for each of several problems, and leave."""
    _say(error)
    sys.exit(2)


def _say(error: object) -> None:
    """Print one line, and one for each of several problems."""
    line = " ".join(str(error).split())
    print(f"unet_jax: error: {line}", file=sys.stderr)
    for detail in getattr(error, "details", ()):
        print(f"  {' '.join(str(detail).split())}", file=sys.stderr)


if __name__ == "__main__":
    app.run(main, flags_parser=parse_flags)
