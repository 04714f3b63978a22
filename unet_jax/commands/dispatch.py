"""Makes the one call that ``--mode`` names."""

import os
import pathlib
import re
import sys
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from typing import TYPE_CHECKING

from ml_collections import ConfigDict

from unet_jax.commands.flags import FLAGS
from unet_jax.errors import InputError
from unet_jax.experiment.config_file import remembered_config
from unet_jax.experiment.record import flat_config
from unet_jax.hosts.start import find_processes, start
from unet_jax.runtime import allocator
from unet_jax.runtime.stop import Stop, StopSignals

if TYPE_CHECKING:
    from unet_jax.bucket.place import Place


def refuse_buckets() -> None:
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


def dispatch(
    config: ConfigDict | None, *, hint: str, changes: Sequence[str] = ()
) -> None:
    """Do what the flags say.

    Args:
        changes: arguments ``--config.any.key=value``, which are in the config.
        hint: lines that tell how to resume, printed where a signal stops the process.

    Raises:
        InputError: the user can fix it.
        RunError: the run cannot go on.
        Stopped: a signal stopped the run.
    """
    # A scheduler may stop the process from here on: to find the other processes may
    # take minutes.
    heard = FLAGS.mode in ("train", "crossvalidate", "evaluate", "compare")
    with StopSignals(hint=hint) if heard else nullcontext(Stop()) as stop:
        _join_processes(config)
        match FLAGS.mode:
            case "train":
                assert config is not None, "read_config gives one"
                _train(config, stop)
            case "crossvalidate":
                assert config is not None, "read_config gives one"
                _crossvalidate(config, stop)
            case "evaluate":
                _evaluate(config, stop, changes)
            case "predict":
                _predict(config, stop, changes)
            case "compare":
                _compare(config, stop)
            case "verify":
                assert config is not None, "read_config gives one"
                from unet_jax.commands.verify import verify

                verify(config, pathlib.Path(FLAGS.workdir) if FLAGS.workdir else None)
            case "import_nnunet":
                _import_nnunet(config)
            case "export_nnunet":
                _export_nnunet(config)
            case "export":
                _export(config, stop)
            case "report":
                _report()
            case "plan":
                assert config is not None, "read_config gives one"
                _plan(config)


def _join_processes(config: ConfigDict | None) -> None:
    """Connect with the other processes of a run, if there are any."""
    processes = find_processes(
        coordinator=FLAGS.coordinator, count=FLAGS.num_processes, index=FLAGS.process_id
    )
    if processes is None:
        return
    if FLAGS.mode not in ("train", "evaluate"):
        raise InputError(
            f"--mode={FLAGS.mode} runs in one process, and this is one of several; "
            "start it once"
        )
    timeout = 600.0 if config is None else config.train.step_timeout
    from unet_jax.hosts import agree
    from unet_jax.runtime.platforms import check_platform

    start(processes, heartbeat_seconds=4 * timeout + 60)
    check_platform()
    agree.be_patient(3 * timeout)  # some processes have more cases than others
    if not agree.is_first():
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115 - until the process ends


def _train(config: ConfigDict, stop: Stop) -> None:
    """Train a network, or check that two short trainings are equal."""
    profile = _profile(FLAGS.profile)
    allocator.keep_freed_memory()  # the next step uses it again
    if FLAGS.check_determinism:
        from unet_jax.commands.check_determinism import check_determinism
        from unet_jax.runtime.platforms import check_platform

        check_platform()
        check_determinism(config)
        return
    from unet_jax.commands.train import train_and_evaluate

    with _opened(_workdir(config), stop, trains=True) as place:
        train_and_evaluate(
            config, place.path, profile=profile, stop=stop, bucket=place.bucket
        )


def _crossvalidate(config: ConfigDict, stop: Stop) -> None:
    """Train every fold of a data set, and score each case out-of-fold."""
    allocator.keep_freed_memory()
    from unet_jax.commands.crossvalidate import crossvalidate

    with _opened(_disk_workdir(config), stop) as place:
        crossvalidate(config, place.path, stop=stop)


def _plan(config: ConfigDict) -> None:
    """Plan a training step for a TPU slice or, without one, a data set."""
    if FLAGS.topology:
        from unet_jax.commands.plan import plan_run

        plan_run(config, FLAGS.topology, channels=FLAGS.channels)
        return
    from unet_jax.commands.plan_data import plan_data

    plan_data(
        config,
        file=pathlib.Path(FLAGS.input) if FLAGS.input else None,
        output=pathlib.Path(FLAGS.output or "plan"),
        overwrite=FLAGS.overwrite,
    )


def _evaluate(config: ConfigDict | None, stop: Stop, changes: Sequence[str]) -> None:
    """Score a run, or the mean of several."""
    workdir = None if FLAGS.workdirs else _workdir(config)
    from unet_jax.commands.crossvalidate import evaluate_folds
    from unet_jax.commands.evaluate import evaluate_run
    from unet_jax.commands.evaluate_ensemble import evaluate_ensemble
    from unet_jax.experiment.ensemble import is_crossvalidation
    from unet_jax.hosts.lost import leaving_when_lost

    with leaving_when_lost(stop, safe=lambda: "the checkpoints are as they were"):
        if workdir is not None:
            with _opened(workdir, stop) as place:
                _refuse_unused(config, changes, place.path)
                if is_crossvalidation(place.path):
                    evaluate_folds(place.path)
                else:
                    evaluate_run(place.path)
            return
        with _opened_all(FLAGS.workdirs, "ensemble", stop) as (folders, output):
            evaluate_ensemble(folders, output=output, names=FLAGS.workdirs)


def _report() -> None:
    """Write the page of a run again, or of several side by side."""
    from unet_jax.commands.report import report

    folders = FLAGS.workdirs or ([FLAGS.workdir] if FLAGS.workdir else [])
    if not folders:
        raise InputError("--mode=report needs --workdir=A, or --workdirs=A,B,C")
    report(folders, FLAGS.output)


def _predict(config: ConfigDict | None, stop: Stop, changes: Sequence[str]) -> None:
    """Segment images with the network of a run."""
    workdir = _workdir(config)
    for name in ("input", "output"):
        if not FLAGS[name].value:
            raise InputError(f"--mode=predict needs --{name}=PATH")
    from unet_jax.commands.predict import predict_files

    with _opened(workdir, stop) as place:
        _refuse_unused(config, changes, place.path)
        predict_files(
            place.path,
            input_path=FLAGS.input,
            output_folder=FLAGS.output,
            probabilities=FLAGS.probabilities,
            uncertainty=FLAGS.uncertainty,
            contours=FLAGS.contours,
            dicom_seg=FLAGS.dicom_seg,
            overwrite=FLAGS.overwrite,
        )


def _refuse_unused(
    config: ConfigDict | None, changes: Sequence[str], workdir: pathlib.Path
) -> None:
    """Refuse a change of how a run predicts and scores that its workdir does not have.

    Raises:
        InputError: a key ``eval.*`` was given that is another in the workdir.
    """
    held = remembered_config(workdir) if config is not None and changes else None
    if config is None or held is None:
        return
    recorded, given = flat_config(held.to_dict()), flat_config(config.to_dict())
    for change in changes:
        key = re.split(r"config\.|=", change)[1]
        value = recorded.get(key)
        if key.startswith("eval.") and given[key] not in (None, value):
            raise InputError(
                f"--config.{key}: found {given[key]!r}, but --mode={FLAGS.mode} uses "
                f"the config that the workdir holds, which has {value!r}; change it "
                "with --mode=train first"
            )


def _import_nnunet(config: ConfigDict | None) -> None:
    """Make a run of a trained nnU-Net."""
    if not FLAGS.input:
        raise InputError("--mode=import_nnunet needs --input=MODEL_FOLDER")
    workdir = pathlib.Path(_disk_workdir(config))
    from unet_jax.commands.import_nnunet import import_nnunet

    import_nnunet(pathlib.Path(FLAGS.input), workdir, config)


def _export_nnunet(config: ConfigDict | None) -> None:
    """Write the network of a run as a model of nnU-Net."""
    workdir = _workdir(config)
    for name in ("input", "output"):
        if not FLAGS[name].value:
            raise InputError(f"--mode=export_nnunet needs --{name}=FOLDER of a model")
    from unet_jax.commands.export_nnunet import export_nnunet

    export_nnunet(*map(pathlib.Path, (workdir, FLAGS.input, FLAGS.output)))


def _export(config: ConfigDict | None, stop: Stop) -> None:
    """Write a run as a bundle that needs neither jax nor this package."""
    if not FLAGS.output:
        raise InputError("--mode=export needs --output=FOLDER of the bundle")
    from unet_jax.commands.export import export_run

    with _opened(_workdir(config), stop) as place:
        export_run(place.path, pathlib.Path(FLAGS.output))


def _compare(config: ConfigDict | None, stop: Stop) -> None:
    """Compare finished runs, or run every method beside the network of one."""
    if FLAGS.runs:
        from unet_jax.commands.compare_runs import compare_runs

        with _opened_all(FLAGS.runs, "comparison", stop) as (runs, output):
            compare_runs(runs, output=output, names=FLAGS.runs)
        return
    with _opened(_workdir(config), stop, trains=config is not None) as place:
        from unet_jax.commands.compare import compare_methods, method_names

        if config is not None:
            allocator.keep_freed_memory()
            method_names(config.compare.methods)  # refuses before hours of training
            from unet_jax.commands.train import train_and_evaluate

            train_and_evaluate(config, place.path, stop=stop, bucket=place.bucket)
        compare_methods(place.path, stop=stop)


def _opened(
    workdir: str, stop: Stop, *, trains: bool = False
) -> AbstractContextManager["Place"]:
    """Open a workdir as a folder, once jax has found its devices."""
    from unet_jax.bucket.place import opened
    from unet_jax.runtime.platforms import check_platform

    check_platform()
    return opened(workdir, stop=stop, trains=trains)


@contextmanager
def _opened_all(
    runs: list[str], kind: str, stop: Stop
) -> Iterator[tuple[list[pathlib.Path], pathlib.Path]]:
    """Open runs as folders, and a folder for their common results."""
    names = "+".join(pathlib.Path(folder).name for folder in runs)
    with ExitStack() as stack:
        common = FLAGS.workdir or f"runs/{kind}_{names}"
        output = stack.enter_context(_opened(common, stop)).path
        places = [stack.enter_context(_opened(run, stop)) for run in runs]
        yield [place.path for place in places], output


def _workdir(config: ConfigDict | None) -> str:
    """Return the name of the workdir, from the flag or from the config."""
    if FLAGS.workdir:
        return str(FLAGS.workdir)
    if config is None:
        raise InputError(f"--mode={FLAGS.mode} needs --workdir=FOLDER of a run")
    return f"runs/{config.name}"


def _disk_workdir(config: ConfigDict | None) -> str:
    """Return the name of the workdir; refuse one in a bucket."""
    workdir = _workdir(config)
    if workdir.startswith("gs://"):
        raise InputError(
            f"--workdir: found {workdir!r}, expected a folder of this disk; copy it to "
            "the bucket afterwards"
        )
    return workdir


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
