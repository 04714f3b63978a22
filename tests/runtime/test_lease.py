"""Two runs never write into one workdir."""

import json
import os
import pathlib
import subprocess
import sys
import time

import pytest

from unet_jax.errors import InputError, RunError
from unet_jax.runtime.lease import Lease

_HOLDER = """
import sys, time, pathlib
from unet_jax.runtime.lease import Lease
Lease(pathlib.Path(sys.argv[1]), beat_seconds=0.2)
print("held", flush=True)
time.sleep(60)
"""


def _holder(workdir, *before):
    """Let another process take the lease."""
    process = subprocess.Popen(
        [*before, sys.executable, "-c", _HOLDER, str(workdir)],
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout.readline() == "held\n"
    return process


def test_a_second_run_is_refused_and_says_who_is_there(tmp_path):
    process = _holder(tmp_path)
    with pytest.raises(InputError, match=f"process {process.pid}, last sign"):
        Lease(tmp_path)
    process.kill()
    process.communicate()


def test_a_run_in_a_container_with_this_hosts_name_is_not_taken_for_dead(tmp_path):
    inside = ("unshare", "--pid", "--fork", "--kill-child", "--mount-proc")
    if subprocess.run([*inside, "true"], check=False).returncode:
        pytest.skip("processes may not have numbers of their own here")
    process = _holder(tmp_path, *inside)
    with pytest.raises(InputError, match="another run is at work there"):
        Lease(tmp_path)
    process.kill()
    process.communicate()


def test_the_lease_of_a_killed_process_is_taken_over_at_once(tmp_path):
    process = _holder(tmp_path)
    process.kill()  # and not waited for: what is left of it is no life
    end = time.monotonic() + 10
    while b") Z " not in pathlib.Path(f"/proc/{process.pid}/stat").read_bytes():
        assert time.monotonic() < end
    with Lease(tmp_path) as lease:
        lease.check()
        assert json.loads((tmp_path / "lease.json").read_text())["pid"] == os.getpid()
    process.communicate()
    assert not tmp_path.exists()


def _foreign(workdir, *, age):
    """Write the lease of a run on another host."""
    path = workdir / "lease.json"
    path.write_text(json.dumps({"token": "x", "host": "far", "boot": "b", "pid": 1}))
    moment = time.time() - age
    os.utime(path, (moment, moment))
    return path


def test_another_hosts_silent_lease_is_waited_for_and_taken_over(tmp_path, capsys):
    _foreign(tmp_path, age=0)
    began = time.monotonic()
    with Lease(tmp_path, stale_seconds=2.0):
        assert time.monotonic() - began > 1.5
    assert "left by a run on host far; waiting up to 2 s" in capsys.readouterr().out


def test_an_old_lease_of_another_host_counts_no_longer(tmp_path):
    _foreign(tmp_path, age=61)
    with Lease(tmp_path):
        assert json.loads((tmp_path / "lease.json").read_text())["pid"] == os.getpid()


def test_another_hosts_lease_that_is_renewed_is_respected(tmp_path):
    path = _foreign(tmp_path, age=1)
    renewer = subprocess.Popen(
        [
            sys.executable,
            "-c",
            "import os, sys, time\nfor _ in range(100):"
            " os.utime(sys.argv[1]); time.sleep(0.2)",
            str(path),
        ]
    )
    with pytest.raises(InputError, match="host far"):
        Lease(tmp_path, stale_seconds=30.0)
    renewer.kill()
    renewer.wait()


@pytest.mark.parametrize("content", ["", "{", "[]"])
def test_half_a_lease_counts_until_it_is_stale(tmp_path, content):
    path = tmp_path / "lease.json"
    path.write_text(content)
    # Young enough to be waited for, though it names nobody.
    began = time.monotonic()
    with Lease(tmp_path, stale_seconds=1.0) as lease:
        lease.check()
        assert json.loads(path.read_text())["pid"] == os.getpid()
    assert time.monotonic() - began > 0.5


def test_a_deleted_workdir_and_a_lease_taken_by_another_end_the_run(tmp_path):
    with Lease(tmp_path / "run", beat_seconds=0.05) as lease:
        lease.check()
        (tmp_path / "run" / "lease.json").unlink()
        with pytest.raises(RunError, match="deleted under the run"):
            lease.check()
    with Lease(tmp_path / "two") as lease:
        (tmp_path / "two" / "lease.json").write_text('{"token": "other"}')
        with pytest.raises(RunError, match="another run has taken it over"):
            lease.check()
    assert (tmp_path / "two" / "lease.json").exists()


def test_the_file_is_touched_again_and_again(tmp_path):
    with Lease(tmp_path, beat_seconds=0.05):
        path = tmp_path / "lease.json"
        os.utime(path, (1, 1))
        end = time.monotonic() + 10
        while path.stat().st_mtime < 2 and time.monotonic() < end:
            time.sleep(0.01)
        assert path.stat().st_mtime > 2


def test_a_folder_that_was_empty_is_not_left_behind(tmp_path):
    with Lease(tmp_path / "new"):
        assert (tmp_path / "new").is_dir()
    assert not (tmp_path / "new").exists()


def test_a_folder_that_cannot_be_made_is_refused(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="cannot be written"):
        Lease(tmp_path / "file" / "run")
