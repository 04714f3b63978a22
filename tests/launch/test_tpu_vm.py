"""launch/tpu_vm.sh on workers that are folders: create, copy, run, fetch, delete."""

import json
import re
import subprocess
import sys

import pytest

from tests.launch.conftest import ROOT

SCRIPT = ROOT / "launch" / "tpu_vm.sh"

# What `gcloud compute tpus tpu-vm COMMAND` knows, as far as it is used here.
FLAGS = {
    "create": {"zone", "accelerator-type", "version", "spot", "preemptible", "network"},
    "scp": {"zone", "worker", "recurse", "compress"},
    "ssh": {"zone", "worker", "command"},
    "delete": {"zone", "quiet", "async"},
}

GCLOUD = (
    f"#!{sys.executable} -IS"
    + f"""
FLAGS = {FLAGS!r}
"""
    + r"""
import json, os, pathlib, shutil, subprocess, sys

records = pathlib.Path(os.environ["RECORDS"])
assert sys.argv[1:4] == ["compute", "tpus", "tpu-vm"], sys.argv
command, rest = sys.argv[4], sys.argv[5:]
flags = dict(a[2:].partition("=")[::2] for a in rest if a.startswith("--"))
places = [a for a in rest if not a.startswith("--")]
unknown = set(flags) - FLAGS[command]
assert not unknown, f"{command}: unrecognized arguments: {unknown}"
assert flags["zone"] == "us-west4-a"
with open(records / "gcloud", "a") as log:
    log.write(json.dumps([command, flags, places]) + "\n")
slice = records / "slice"
if command == "create":
    for worker in range(4):
        (slice / str(worker)).mkdir(parents=True)
    sys.exit()
assert slice.exists(), "no such TPU"
if command == "delete":
    shutil.rmtree(slice)
    sys.exit()
chosen = flags.get("worker", "0")
workers = range(4) if chosen == "all" else [int(chosen)]
for worker in workers:
    home = slice / str(worker)
    if command == "scp":
        ends = [
            home / place[5:] if place.startswith("unet:") else pathlib.Path(place)
            for place in places
        ]
        if ends[0].is_dir():
            assert "recurse" in flags
            shutil.copytree(ends[0], ends[1] / ends[0].name)
        else:
            shutil.copy(*ends)
        continue
    environment = os.environ | {"HOME": str(home), "USER": "me", "WORKER": str(worker)}
    code = subprocess.call(["bash", "-c", flags["command"]], cwd=home, env=environment)
    if code:
        sys.exit(code)
"""
)

# The workers' commands. A service is run to its end at once.
SUDO = '#!/usr/bin/env bash\necho "$WORKER sudo $*" >>"$RECORDS/sudo"\nexec "$@"\n'
SYSTEMD_RUN = r"""#!/usr/bin/env bash
printf '%s|' "$@" >>"$RECORDS/service.$WORKER"
echo >>"$RECORDS/service.$WORKER"
while [[ $1 = -* ]]; do
  if [[ $1 = --working-directory=* ]]; then cd "${1#*=}"; fi
  if [[ $1 = -p ]]; then shift; fi
  shift
done
exec env SLURM_PROCID="$WORKER" "$@"
"""
PYTHON3 = r"""#!/usr/bin/env bash
echo "$*" >>"$RECORDS/python3.$WORKER"
if [[ "$*" = "-m uv venv"* ]]; then
  mkdir -p .venv/bin
  cp "$PYTHON" .venv/bin/python
fi
"""


@pytest.fixture
def tpu_vm(commands, tmp_path):
    """Return a function that calls the script."""
    names = ("gcloud", "sudo", "systemd-run", "python3", "systemctl", "journalctl")
    noted = '#!/usr/bin/env bash\necho "$0 $*" >>"$RECORDS/asked"\n'
    texts = (GCLOUD, SUDO, SYSTEMD_RUN, PYTHON3, noted, noted)
    for name, text in zip(names, texts, strict=True):
        commands.write(name, text)

    def call(*arguments, **environment):
        named = {"TPU_NAME": "unet", "ZONE": "us-west4-a", "CODES": "0 0"}
        return subprocess.run(
            [str(SCRIPT), *arguments],
            cwd=ROOT,
            env=commands.environment | named | environment,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    return call


def _ok(answer):
    assert answer.returncode == 0, answer.stderr


def test_a_run_from_create_to_delete(commands, tpu_vm, tmp_path):
    slice_folder = commands.records / "slice"
    _ok(tpu_vm("create", "--spot", ACCELERATOR="v5litepod-16"))
    (call,) = map(json.loads, commands.record("gcloud"))
    assert call[1] | {"spot": "", "accelerator-type": "v5litepod-16"} == call[1]
    _ok(tpu_vm("copy"))
    for worker in range(4):
        home = slice_folder / str(worker) / "unet_jax"
        for name in ("unet_jax/main.py", "configs/brain.py", "setup.cfg", "README.md"):
            assert (home / name).read_bytes() == (ROOT / name).read_bytes()
        present = {path.name for path in home.rglob("*")}
        assert not present & {"__pycache__", "runs", "tests", ".git"}
        installs = commands.record(f"python3.{worker}")
        assert installs[-1] == "-m uv pip install --quiet --editable .[tpu]"

    flags = [
        "--config=configs/brain.py",
        '--config.loss=(("dice", 1.0, {}),)',
        "--a=$b",
    ]
    _ok(tpu_vm("run", *flags))
    for worker in range(4):
        assert commands.starts(worker) == [
            [str(worker), "", "", "-m", "unet_jax.main", *flags]
        ]

    (slice_folder / "0" / "run").mkdir()
    (slice_folder / "0" / "run" / "test_metrics.json").write_text("{}")
    (tmp_path / "runs").mkdir()
    _ok(tpu_vm("fetch", "run", str(tmp_path / "runs")))
    assert (tmp_path / "runs" / "run" / "test_metrics.json").read_text() == "{}"
    _ok(tpu_vm("delete", "--quiet"))
    assert not slice_folder.exists()


def test_the_service_is_started_again_on_the_codes_that_ask_for_it(commands, tpu_vm):
    tpu_vm("create", ACCELERATOR="v5litepod-16")
    tpu_vm("copy")
    _ok(tpu_vm("run", "--config=configs/brain.py"))
    (line,) = commands.record("service.3")
    given = line.split("|")
    properties = dict(
        given[i + 1].split("=", 1) for i, a in enumerate(given) if a == "-p"
    )
    assert set(properties["RestartForceExitStatus"].split()) == {"42", "134", "SIGABRT"}
    assert "Restart" not in properties  # 0, 1, 2 and 130 end it
    assert int(properties["TimeoutStopSec"]) >= 60
    assert {"--unit=unet_jax", "--uid=me"} <= set(given)
    # It gives up: restarts within the interval do not fit below the limit for ever.
    within = int(properties["StartLimitIntervalSec"]) / int(properties["RestartSec"])
    assert within > int(properties["StartLimitBurst"])


def test_other_commands_reach_the_workers_they_are_for(commands, tpu_vm):
    tpu_vm("create", ACCELERATOR="v5litepod-16")
    _ok(tpu_vm("stop"))
    _ok(tpu_vm("watch"))
    asked = [re.sub(r"^\S+/", "", line) for line in commands.record("asked")]
    assert asked[:4] == ["systemctl stop unet_jax"] * 4
    assert len(asked) == 5
    assert asked[4].startswith("journalctl --unit=unet_jax")
    assert [line.split()[0] for line in commands.record("sudo")] == [*"0123", "0"]
    answer = tpu_vm("ssh", 'echo "worker $WORKER"')
    assert answer.stdout.split("\n")[:4] == [f"worker {i}" for i in range(4)]


def test_a_worker_that_fails_is_not_hidden(tpu_vm):
    tpu_vm("create", ACCELERATOR="v5litepod-16")
    assert tpu_vm("ssh", "test $WORKER != 2").returncode != 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "found '', expected create, copy, run, watch, stop, ssh, fetch or delete"),
        (("fly",), "found 'fly', expected create"),
        (("create",), "ACCELERATOR: the slice, such as v5litepod-16"),
        (("run",), "flags of unet_jax.main"),
        (("ssh",), "a command"),
        (("fetch", "a"), "a folder here"),
    ],
)
def test_a_mistake_is_named_and_nothing_called(commands, tpu_vm, arguments, message):
    answer = tpu_vm(*arguments, ACCELERATOR="")
    assert answer.returncode != 0
    assert message in answer.stderr
    assert commands.record("gcloud") == []


@pytest.mark.parametrize("name", ["TPU_NAME", "ZONE"])
def test_a_tpu_without_a_name_or_zone_is_refused(commands, tpu_vm, name):
    answer = tpu_vm("delete", **{name: ""})
    assert answer.returncode != 0
    assert name in answer.stderr
    assert commands.record("gcloud") == []
