"""launch/slurm.sbatch, driven through preemptions by stand-ins for SLURM's commands.

The stand-ins do what SLURM 22.05 was seen to do: `sbatch` reads the #SBATCH lines and
starts the script again after a requeue, `srun` starts the tasks, passes SIGUSR1 on and
gives the highest exit code, 128 + n for a task that signal n ended.
"""

import re
import subprocess
import sys

import pytest

from tests.launch.conftest import ROOT

SCRIPT = ROOT / "launch" / "slurm.sbatch"

SBATCH = (
    f"#!{sys.executable} -IS"
    + r"""
import os, pathlib, re, signal, subprocess, sys, time

records = pathlib.Path(os.environ["RECORDS"])
arguments = sys.argv[1:]
script = next(a for a in arguments if not a.startswith("--"))
at = arguments.index(script)
lines = re.findall(r"^#SBATCH --(\S+)", pathlib.Path(script).read_text(), re.M)
options = {}
for option in lines + [a[2:] for a in arguments[:at]]:
    name, _, value = option.partition("=")
    options[name] = value
nodes, tasks = int(options["nodes"]), int(options["ntasks-per-node"])
environment = os.environ | {
    "SLURM_JOB_ID": "77",
    "SLURM_NTASKS": str(nodes * tasks),
    "SLURM_CPUS_PER_TASK": options["cpus-per-task"],
    "TASKS_PER_NODE": str(tasks),
}
whom, name = re.fullmatch(r"(B:)?(\w+)@\d+", options["signal"]).groups()
assert whom == "B:", "the stand-in tells the batch shell alone"
notices = os.environ.get("NOTICES", name).split()
for restart in range(9):
    (records / "requeue").unlink(missing_ok=True)
    environment["SLURM_RESTART_COUNT"] = str(restart + int(os.environ.get("BEFORE", 0)))
    mode = "a" if options.get("open-mode") == "append" else "w"
    with open(records / "log", mode) as log:
        job = subprocess.Popen(
            ["bash", script, *arguments[at + 1 :]],
            env=environment,
            stdout=log,
            stderr=log,
        )
    ready = [records / f"program.{i}.ready" for i in range(nodes * tasks)]
    while job.poll() is None:
        if notices and all(path.exists() for path in ready):
            for notice in notices:
                job.send_signal(signal.Signals["SIG" + notice])
                time.sleep(0.05)
            notices = []
        time.sleep(0.01)
    if not ((records / "requeue").exists() and "requeue" in options):
        sys.exit(job.returncode)
sys.exit("requeued without end")
"""
)

SRUN = r"""#!/usr/bin/env bash
echo "$@" >>"$RECORDS/srun"
while [[ $1 = --* ]]; do shift; done
tasks=()
for ((i = 0; i < SLURM_NTASKS; i++)); do
  SLURM_PROCID=$i SLURM_LOCALID=$((i % TASKS_PER_NODE)) "$@" &
  tasks+=($!)
done
signals=0
trap 'signals=$((signals + 1)); kill -s USR1 "${tasks[@]}"' USR1
trap 'signals=$((signals + 1)); kill -s KILL "${tasks[@]}"' TERM
highest=0
for task in "${tasks[@]}"; do
  seen=-1
  while [[ $seen -ne $signals ]]; do seen=$signals; wait "$task"; code=$?; done
  if [[ $code -gt $highest ]]; then highest=$code; fi
done
exit "$highest"
"""

SCONTROL = r"""#!/usr/bin/env bash
echo "$@" >>"$RECORDS/scontrol"
if [[ -n ${SCONTROL_FAILS:-} ]]; then exit 1; fi
touch "$RECORDS/requeue"
"""


@pytest.fixture
def sbatch(commands):
    """Return a function that submits the script and waits for the job's last end."""
    commands.write("sbatch", SBATCH)
    commands.write("srun", SRUN)
    commands.write("scontrol", SCONTROL)

    def submit(*flags, options=(), **environment):
        return subprocess.run(
            ["sbatch", *options, str(SCRIPT), *flags],
            env=commands.environment | environment,
            timeout=60,
            check=False,
        ).returncode

    return submit


def test_a_preempted_job_goes_on_to_its_end(commands, sbatch):
    flags = ["--config=configs/brain.py", '--config.loss=(("dice", 1.0, {}),)']
    options = ["--nodes=2", "--ntasks-per-node=2"]
    assert sbatch(*flags, options=options, CODES="notice:42 0") == 0
    for process in range(4):
        given = [str(process), "4", "", "-m", "unet_jax.main", *flags]
        assert commands.starts(process) == [given, given]
        assert commands.record(f"program.{process}.signals") == ["heard USR1"]
    assert commands.record("scontrol") == ["requeue 77"]
    # The second start did not empty the log of the first.
    assert commands.record("log") == ["slurm.sbatch: exit code 42: requeued"]


def test_a_process_that_leaves_takes_down_no_other(commands, sbatch):
    sbatch(CODES="0", options=["--cpus-per-task=3"])
    (line,) = commands.record("srun")
    assert "--kill-on-bad-exit=0 --wait=0 --cpus-per-task=3 " in line


@pytest.mark.parametrize("code", [0, 1, 2, 130, 137])
def test_other_codes_are_kept_and_not_requeued(commands, sbatch, code):
    assert sbatch(CODES=str(code)) == code
    assert commands.record("scontrol") == []
    assert len(commands.starts(0)) == 1


@pytest.mark.parametrize("code", ["42", "134", "abort"])
def test_a_job_that_asks_for_it_is_requeued_until_it_ends(commands, sbatch, code):
    assert sbatch(CODES=f"{code} {code} 1") == 1
    assert commands.record("scontrol") == ["requeue 77"] * 2
    assert len(commands.starts(0)) == 3


@pytest.mark.parametrize("code", [42, 134])
def test_the_code_is_kept_where_a_requeue_is_refused(commands, sbatch, code):
    assert sbatch(CODES=str(code), SCONTROL_FAILS="yes") == code
    assert commands.record("scontrol") == ["requeue 77"]


def test_one_task_that_aborts_is_enough(commands, sbatch):
    options = ["--ntasks-per-node=2"]
    code = sbatch(options=options, CODES="42", CODE_1="abort", SCONTROL_FAILS="yes")
    assert code == 134
    assert commands.record("scontrol") == ["requeue 77"]


def test_several_notices_do_not_hide_the_exit_code(commands, sbatch):
    assert sbatch(CODES="notice:42 0", NOTICES="USR1 USR1 USR1") == 0
    assert commands.record("scontrol") == ["requeue 77"]
    assert len(commands.record("program.0.signals")) > 1


@pytest.mark.parametrize("code", [42, 0, 1])
def test_a_notice_keeps_whatever_code_follows(commands, sbatch, code):
    assert sbatch(CODES=f"notice:{code}", SCONTROL_FAILS="yes") == code


def test_a_cancelled_job_is_not_revived(commands, sbatch):
    # SLURM sends SIGTERM to the tasks itself; here SIGUSR1 has them save before.
    assert sbatch(CODES="notice:42 0", NOTICES="TERM USR1") == 42
    assert commands.record("scontrol") == []
    assert commands.record("program.0.signals") == ["heard USR1"]
    assert "not requeued from here" in commands.record("log")[-1]


@pytest.mark.parametrize(("before", "requeued"), [("2", True), ("3", False)])
def test_a_run_that_fails_for_ever_comes_to_an_end(commands, sbatch, before, requeued):
    code = sbatch(CODES="42", MAX_RESTARTS="3", BEFORE=before, SCONTROL_FAILS="yes")
    assert code == 42
    assert bool(commands.record("scontrol")) == requeued
    message = "after 3 restarts: not requeued; submit it again"
    assert any(message in line for line in commands.record("log")) != requeued


def test_the_notice_leaves_time_to_save():
    lines = re.findall(r"^#SBATCH --(\S+)$", SCRIPT.read_text(), re.MULTILINE)
    options = dict(line.partition("=")[::2] for line in lines)
    assert len(options) == len(lines)
    assert int(options["signal"].removeprefix("B:USR1@")) >= 60
    assert "requeue" in options
    assert "%j" in options["output"]


def test_no_option_comes_too_late():
    # sbatch stops reading its options at the first command.
    lines = SCRIPT.read_text().splitlines()
    first = next(i for i, line in enumerate(lines) if line and line[0] != "#")
    assert not any(line.startswith("#SBATCH") for line in lines[first:])
