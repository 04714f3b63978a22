"""The command line: flags, then one call.

    unet-jax --config=brain
    unet-jax --workdir=runs/brain --config.train.steps=2000
    unet-jax --mode=crossvalidate --config=folder --config.data.path=FOLDER
    unet-jax --mode=evaluate --workdir=runs/brain
    unet-jax --mode=predict --workdir=runs/brain --input=scan.nii.gz --output=segmented
    unet-jax --mode=export --workdir=runs/brain --output=brain_bundle
    unet-jax --mode=compare --config=brain
    unet-jax --mode=compare --runs=runs/a,runs/b
    unet-jax --mode=verify --config=folder --config.data.path=FOLDER
    unet-jax --mode=plan --config=nnunet --config.data.path=FOLDER
    unet-jax --mode=plan --config=brain --topology=v5e:4x4

``python -m unet_jax.main`` is the same command. Nothing heavy is imported before the
flags are read, so that --help is quick.
"""

import os
import shlex
import sys
import traceback
from typing import NoReturn

from absl import app, flags, logging

from unet_jax.commands.dispatch import dispatch, refuse_buckets
from unet_jax.commands.flags import FLAGS, parse, read_config
from unet_jax.errors import InputError, RunError, Stopped, listed_lines
from unet_jax.experiment.config_file import shipped_folder
from unet_jax.hosts.start import is_one_of_several
from unet_jax.runtime.unknown_bytes import let_print


def main(argv: list[str]) -> None:
    """Do what the flags say; exit 2 with one line if the user can fix it."""
    let_print(sys.stdout)
    let_print(sys.stderr)
    logging.set_verbosity(logging.WARNING)  # the libraries' progress is not the user's
    try:
        refuse_buckets()
        dispatch(read_config(argv[1:]), changes=argv[1:], hint=_hint())
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


def parse_flags(argv: list[str]) -> list[str]:
    """Parse the flags; a mistake in them is one line and exit code 2."""
    try:
        shipped_folder()  # refuses a checkout that is not installed
        if {"-h", "-help", "--help", "--helpshort"} & set(argv):
            print(f"{__doc__}\n{FLAGS.module_help('unet_jax.commands.flags')}")
            sys.exit(0)
        return parse(argv)
    except SystemExit:  # absl leaves --helpfull with code 1
        sys.exit(0)
    except (flags.Error, InputError) as error:
        if "--debug" in argv:
            raise
        _exit(error)


def _leave(code: int) -> NoReturn:
    """End the process at once, without waiting for others.

    One of several processes would wait for the others, and after a save that failed
    threads of Orbax wait for ten minutes.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def _hint() -> str:
    """Tell how to resume."""
    command = f"python -m unet_jax.main {shlex.join(sys.argv[1:])}"
    return f"to resume, run:\n  {command}"


def _exit(error: object) -> NoReturn:
    """Print what the user can fix, and exit with code 2."""
    _say(error)
    sys.exit(2)


def _say(error: object) -> None:
    """Print one line, and one for each of several problems, at most 20."""
    print(f"unet_jax: error: {_one_line(error)}", file=sys.stderr)
    for detail in listed_lines(getattr(error, "details", ())):
        print(f"  {_one_line(detail)}", file=sys.stderr)


def _one_line(text: object) -> str:
    """Join the lines of a text; spaces within a line may belong to a setting."""
    return " ".join(filter(None, map(str.strip, str(text).splitlines())))


def console() -> None:
    """Run the command ``unet-jax``."""
    sys.path.append("")  # a config may name modules of this folder, as with python -m
    app.run(main, flags_parser=parse_flags)


if __name__ == "__main__":
    app.run(main, flags_parser=parse_flags)
