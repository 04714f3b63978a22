"""A workdir by its name: what is refused, what is printed, what is left behind."""

import json
import os
import pathlib
import tempfile
from collections.abc import Callable

import pytest
from absl.testing import flagsaver

from unet_jax.bucket import place
from unet_jax.bucket.lease import NAME
from unet_jax.bucket.place import Place, copy_of, opened
from unet_jax.commands.flags import parse, read_config
from unet_jax.configs import smoke
from unet_jax.errors import InputError, RunError, Stopped
from unet_jax.experiment.record import make_record
from unet_jax.runtime.shown_path import shown
from unet_jax.runtime.stop import Stop

URL = "gs://bucket/run"
TRAIN = ("--config=configs/smoke.py",)


@pytest.fixture(autouse=True)
def temporary(tmp_path, monkeypatch) -> pathlib.Path:
    """Where copies lie: nothing is left of them."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    yield tmp_path
    assert list(tmp_path.glob("unet_jax*")) == []


def test_a_path_is_the_workdir_itself(tmp_path):
    with opened(str(tmp_path / "run"), stop=Stop()) as (path, bucket):
        assert (path, bucket) == (tmp_path / "run", None)
    with copy_of("runs/brain") as path:
        assert path == pathlib.Path("runs/brain")


@pytest.mark.parametrize(
    ("url", "status", "fix"),
    [
        (URL, 401, "PERMISSION_DENIED: Unauthorized; log in (gcloud auth"),
        (URL, 403, "PERMISSION_DENIED: Forbidden; log in (gcloud auth"),
        ("gs://nowhere/run", None, "NOT_FOUND: Not Found; make the bucket, or fix"),
        (URL, 503, "ABORTED: All 1 retry attempts failed: Service Unavailable; check "),
    ],
)
def test_a_bucket_that_cannot_be_used_is_one_line_and_exit_code_2(
    url, status, fix, storage, command_line, monkeypatch
):
    monkeypatch.setattr(place, "_QUICK_RETRIES", 1)
    storage.refuse = lambda method, name: status
    answer = command_line(*TRAIN, f"--workdir={url}")
    assert answer.code == 2
    assert answer.stderr.startswith(f"unet_jax: error: --workdir {url}: {fix}")
    assert answer.stderr.count("\n") == 1
    assert storage.objects == {}


def test_a_workdir_in_a_bucket_remembers_its_config(storage):
    config = smoke.get_config()
    config.train.batch_size = 6
    record = make_record(config.to_dict(), preprocessing={}, dataset={})
    storage.objects["run/config.json"] = 1, json.dumps(record).encode()
    with flagsaver.flagsaver():
        parse(["unet_jax", f"--workdir={URL}"])
        found = read_config(["--config.train.steps=9"])
        assert (found.train.batch_size, found.train.steps) == (6, 9)
        assert found.train.patch_size == config.train.patch_size
        del storage.objects["run/config.json"]
        message = f"found nothing, and --workdir {URL} holds no config.json"
        with pytest.raises(InputError, match=message):
            read_config([])
        storage.refuse = lambda method, name: 403
        with pytest.raises(InputError, match=f"--workdir {URL}: .*PERMISSION_DENIED"):
            read_config([])
    assert {method for method, _ in storage.requests} == {"GET"}


def test_no_network_is_one_line_and_exit_code_2(storage, command_line, monkeypatch):
    monkeypatch.setattr(place, "_QUICK_RETRIES", 1)
    monkeypatch.setenv("TENSORSTORE_GCS_HTTP_URL", "http://127.0.0.1:9")
    answer = command_line("--mode=evaluate", f"--workdir={URL}")
    assert answer.code == 2
    assert "Could not connect to server" in answer.stderr
    assert "; check the network" in answer.stderr
    assert answer.stderr.count("\n") == 1


def test_a_folder_without_a_run_is_refused_by_its_name(storage, command_line):
    answer = command_line("--mode=evaluate", f"--workdir={URL}")
    assert answer.code == 2
    assert f"--workdir {URL}: found no config.json, expected" in answer.stderr
    assert storage.objects == {}


def test_a_second_run_is_refused(storage, command_line):
    with opened(URL, stop=Stop(), trains=True):
        answer = command_line(*TRAIN, f"--workdir={URL}")
        assert answer.code == 2
        assert f"--workdir {URL}: another run is at work there" in answer.stderr
    assert storage.objects == {}


def _work(change: Callable[[Place], None], *, trains: bool = False) -> None:
    """Do something in the bucket's workdir."""
    with opened(URL, stop=Stop(), trains=trains) as place:
        change(place)


def test_what_is_printed_and_refused_names_the_bucket(storage, capsys):
    def refuse(place: Place) -> None:
        print(f"scores: {shown(place.path / 'test_metrics.json')}")
        raise InputError(f"{place.path}/config.json: no", [f"{place.path}/a", "b"])

    with pytest.raises(InputError) as refused:
        _work(refuse)
    assert str(refused.value) == f"{URL}/config.json: no"
    assert refused.value.details == (f"{URL}/a", "b")
    assert f"scores: {URL}/test_metrics.json\n" in capsys.readouterr().out


def test_what_was_written_is_sent_at_the_end(storage):
    def write(place: Place) -> None:
        (place.path / "metrics.jsonl").write_text("line\n")
        assert f"run/{NAME}" in storage.objects

    _work(write, trains=True)
    assert [*storage.objects] == ["run/metrics.jsonl"]


@pytest.mark.parametrize("end", [Stopped("SIGTERM", code=42), OSError("a bug")])
def test_it_is_sent_where_a_run_stops_or_fails(end, storage):
    def write(place: Place) -> None:
        (place.path / "metrics.jsonl").write_text("line\n")
        raise end

    with pytest.raises(type(end)):
        _work(write, trains=True)
    assert [*storage.objects] == ["run/metrics.jsonl"]


def test_a_refused_command_sends_nothing(storage):
    def refuse(place: Place) -> None:
        (place.path / "dataset.json").write_text("{}")
        raise InputError("the config cannot be used")

    with pytest.raises(InputError):
        _work(refuse, trains=True)
    assert storage.objects == {}


def test_a_lost_connection_in_mid_run_is_told_once_and_nothing_is_lost(storage):
    def lose(place: Place) -> None:
        (place.path / "metrics.jsonl").write_text("line\n")
        storage.refuse = lambda method, name: 403
        place.bucket.saved()

    with pytest.raises(RunError) as lost:
        _work(lose)
    assert str(lost.value) == (
        f"{URL}: cannot be written: PERMISSION_DENIED: Forbidden; log in (gcloud auth "
        "application-default login), or let this account read, list, write and delete "
        "there, then start the same command again; no checkpoint was saved yet"
    )
    asked = [method for method, _ in storage.requests].count("POST")
    assert asked == 1  # it is not tried again at the end


def test_a_copy_to_read_has_the_files_of_the_run(storage):
    storage.objects["run/config.json"] = 1, b"{}"
    with copy_of(URL) as path:
        assert (path / "config.json").read_text() == "{}"
    storage.refuse = lambda method, name: 403
    with pytest.raises(InputError, match="PERMISSION_DENIED"), copy_of(URL):
        pass


def test_a_copy_that_a_kill_left_is_removed_and_one_in_use_is_not(storage, temporary):
    left, young, other = (
        temporary / name
        for name in (f"{place.PREFIX}left", f"{place.PREFIX}young", "unet_jax-main")
    )
    for old in (left, other):
        old.mkdir()
        os.utime(old, (1, 1))
    with opened(URL, stop=Stop()) as (path, _):
        assert not left.exists()
        os.utime(path, (1, 1))
        young.mkdir()
        with copy_of(URL):
            assert path.exists()
            assert young.exists()
            assert other.exists()  # it is somebody's
    young.rmdir()
    other.rmdir()
