"""Stand-ins for the commands of a cluster: small scripts in a folder of their own."""

import os
import pathlib

import pytest

ROOT = pathlib.Path(__file__).parents[2]

# Plays the program. It writes who it is and its arguments, one line a start, and ends
# with the code that $CODES has for this start ("42 0": first 42, then 0). "notice:42"
# waits for a signal, writes its name, and leaves with 42; "abort" aborts.
PROGRAM = r"""#!/usr/bin/env bash
me=${SLURM_PROCID:-0}
for argument; do case $argument in --process_id=*) me=${argument#*=} ;; esac; done
record=$RECORDS/program.$me
for name in USR1 TERM INT; do
  trap "echo heard $name >>$record.signals; heard=$name" $name
done
printf '%s|' "$me" "${SLURM_NTASKS:-}" "${CUDA_VISIBLE_DEVICES:-}" "$@" >>"$record"
echo >>"$record"
read -ra codes <<<"$CODES"
code=${codes[$(($(wc -l <"$record") - 1))]}
one=CODE_$me
code=${!one:-$code}
case $code in
notice:*)
  heard=""
  touch "$record.ready"
  # Not for ever: a test that fails must leave no process behind.
  for ((i = 0; i < 1500; i++)); do [[ -z $heard ]] || break; sleep 0.02; done
  if [[ -z $heard ]]; then exit 99; fi
  sleep 0.2 # saving takes its time
  if [[ $heard = INT ]]; then exit 130; fi
  exit "${code#*:}" ;;
abort) ulimit -c 0; kill -s ABRT $$ ;;
*) exit "$code" ;;
esac
"""


class Commands:
    """A folder of stand-ins that comes first in PATH, and what they wrote down."""

    def __init__(self, folder: pathlib.Path):
        self.bin = folder / "bin"
        self.records = folder / "records"
        self.bin.mkdir()
        self.records.mkdir()
        self.program = self.write("program", PROGRAM)
        self.environment = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith("SLURM")
        } | {
            "PATH": f"{self.bin}:{os.environ['PATH']}",
            "RECORDS": str(self.records),
            "PYTHON": str(self.program),
        }

    def write(self, name: str, text: str) -> pathlib.Path:
        """Add a command."""
        path = self.bin / name
        path.write_text(text)
        path.chmod(0o755)
        return path

    def record(self, name: str) -> list[str]:
        """Return the lines that a command left, none if it was not called."""
        path = self.records / name
        return path.read_text().splitlines() if path.exists() else []

    def starts(self, process: int) -> list[list[str]]:
        """Return what each start of a process was given."""
        return [line.split("|")[:-1] for line in self.record(f"program.{process}")]


@pytest.fixture
def commands(tmp_path) -> Commands:
    return Commands(tmp_path)
