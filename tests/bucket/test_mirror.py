"""What is fetched from a bucket and sent to it, and what a kill in between leaves."""

import errno
import pathlib
import shutil

import pytest

from unet_jax.bucket.lease import NAME as LEASE
from unet_jax.bucket.lease import BucketLease
from unet_jax.bucket.mirror import Mirror
from unet_jax.bucket.store import Store
from unet_jax.errors import InputError, RunError
from unet_jax.hosts import agree
from unet_jax.training.manifest import check_sums, steps_in, write_sums

URL = "gs://bucket/run"


def _checkpoint(workdir: pathlib.Path, step: int, data: str) -> None:
    """Write what stands for a checkpoint; its arrays have a name of their own."""
    path = workdir / "checkpoints" / str(step)
    (path / "state" / "d").mkdir(parents=True)
    (path / "state" / "d" / data).write_text(data * 100)
    (path / "run").mkdir()
    (path / "run" / "run.json").write_text(f'{{"score": {step}}}')
    write_sums(path)


def _first_state(workdir: pathlib.Path) -> None:
    """Write what a run has after ten steps."""
    (workdir / "config.json").write_text("{}")
    (workdir / "metrics.jsonl").write_text("ten\n")
    _checkpoint(workdir, 10, "a")


def _second_state(workdir: pathlib.Path, data: str) -> None:
    """Go on to step 20, whose checkpoint takes the place of the one before."""
    (workdir / "metrics.jsonl").write_text("ten\ntwenty\n")
    _checkpoint(workdir, 20, data)
    shutil.rmtree(workdir / "checkpoints" / "10")


def _fetched(folder: pathlib.Path, lease: BucketLease) -> Mirror:
    """A new copy of the bucket, as a restarted run makes it."""
    folder.mkdir()
    mirror = Mirror(Store(URL), folder, lease=lease, known=LEASE)
    mirror.fetch()
    return mirror


@pytest.fixture
def lease(storage):
    """The lease of the run."""
    with BucketLease(Store(URL)) as lease:
        yield lease


@pytest.fixture
def mirror(tmp_path, lease):
    """A copy with one checkpoint that was sent."""
    mirror = _fetched(tmp_path / "run", lease)
    _first_state(mirror.path)
    mirror.send()
    return mirror


def _changes(requests: list[tuple[str, str]]) -> list[tuple[str, str]]:
    """The requests that change what a run finds."""
    return [
        (method, name)
        for method, name in requests
        if method != "GET" and not name.endswith(LEASE)
    ]


def test_logs_go_first_sums_last_and_then_what_is_gone_sums_first(mirror, storage):
    storage.requests.clear()
    _second_state(mirror.path, "b")
    mirror.send()
    new, old = "run/checkpoints/20", "run/checkpoints/10"
    order = _changes(storage.requests)
    assert order[0] == ("POST", "run/metrics.jsonl")
    assert set(order[1:3]) == {
        ("POST", f"{new}/run/run.json"),
        ("POST", f"{new}/state/d/b"),
    }
    assert order[3:5] == [
        ("POST", f"{new}/sha256.json"),
        ("DELETE", f"{old}/sha256.json"),
    ]
    assert set(order[5:]) == {
        ("DELETE", f"{old}/run/run.json"),
        ("DELETE", f"{old}/state/d/a"),
    }


@pytest.mark.parametrize("writes", range(7))
def test_whatever_is_sent_before_a_kill_a_whole_checkpoint_is_found(
    writes, mirror, lease, storage, tmp_path
):
    left = [writes]

    def refuse(method: str, name: str) -> int | None:
        if method == "GET" or name.endswith(LEASE):
            return None
        left[0] -= 1
        return 403 if left[0] < 0 else None

    _second_state(mirror.path, "b")
    storage.refuse = refuse
    with pytest.raises(RunError, match=r"the last good checkpoint is step [12]0"):
        mirror.send()
    storage.refuse = lambda method, name: None

    again = _fetched(tmp_path / "again", lease)
    steps = steps_in(again.path / "checkpoints")
    assert steps in ([10], [10, 20], [20])
    assert again.last_good() == f"the last good checkpoint is step {max(steps)}"
    for step in steps:
        check_sums(again.path / "checkpoints" / str(step))
    if steps == [10]:  # it makes the step again, and its arrays have another name
        _second_state(again.path, "c")
    again.send()
    names = {name for name in storage.objects if "/20/" in name}
    assert names == {
        f"run/{path.relative_to(again.path).as_posix()}"
        for path in (again.path / "checkpoints" / "20").rglob("*")
        if path.is_file()
    }
    end = _fetched(tmp_path / "end", lease)
    assert steps_in(end.path / "checkpoints") == steps_in(again.path / "checkpoints")


def test_a_checkpoint_that_is_removed_while_it_is_fetched_is_left_out(
    mirror, storage, tmp_path
):
    _checkpoint(mirror.path, 20, "b")
    mirror.send()
    objects = storage.objects

    def remove(method: str, name: str) -> None:
        if name:  # the list was given
            objects.pop("run/checkpoints/10/state/d/a", None)

    storage.refuse = remove
    reader = Mirror(Store(URL), tmp_path / "reader")
    reader.path.mkdir()
    reader.fetch()
    assert steps_in(reader.path / "checkpoints") == [20]


def test_what_did_not_change_is_not_sent_again(mirror, storage, lease, tmp_path):
    storage.requests.clear()
    mirror.send()
    assert _changes(storage.requests) == []
    again = _fetched(tmp_path / "again", lease)
    again.send()
    assert _changes(storage.requests) == []
    (again.path / "metrics.jsonl").write_text("ten\neleven\n")
    again.send()
    assert _changes(storage.requests) == [("POST", "run/metrics.jsonl")]


def test_a_lost_folder_removes_nothing(mirror, storage):
    before = set(storage.objects)
    shutil.rmtree(mirror.path)
    mirror.send()
    assert set(storage.objects) == before


def test_caches_and_unfinished_files_stay_here(mirror, storage):
    for name in (
        "prepared/0/data.npy",
        "lease.json",
        ".hidden",
        "checkpoints/30.orbax-checkpoint-tmp-1/state/d",
        "checkpoints/40/state/d",
    ):
        (mirror.path / name).parent.mkdir(parents=True, exist_ok=True)
        (mirror.path / name).write_text("x")
    before = set(storage.objects)
    mirror.send()
    assert set(storage.objects) == before


def test_what_nothing_reads_is_not_fetched(mirror, lease, tmp_path):
    for name in ("predictions/a.png", "figures/a.png", "events.out.tfevents.1", "b/c"):
        (mirror.path / name).parent.mkdir(exist_ok=True)
        (mirror.path / name).write_text("x")
    mirror.send()
    again = _fetched(tmp_path / "again", lease)
    found = {path.name for path in again.path.iterdir()}
    assert found == {"config.json", "metrics.jsonl", "checkpoints", "b"}


def test_another_process_sends_its_part_of_the_results_alone(
    mirror, storage, tmp_path, monkeypatch
):
    monkeypatch.setattr(agree, "is_first", lambda: False)
    other = Mirror(Store(URL), tmp_path / "other", known=LEASE)
    other.path.mkdir()
    other.fetch()
    (other.path / "metrics.jsonl").write_text("mine")
    (other.path / "predictions").mkdir()
    (other.path / "predictions" / "c1.png").write_text("x")
    storage.requests.clear()
    other.send()
    assert _changes(storage.requests) == [("POST", "run/predictions/c1.png")]


@pytest.mark.parametrize("status", [401, 403, 404])
def test_a_list_that_is_refused_is_not_taken_for_an_empty_bucket(
    status, mirror, lease, storage, tmp_path
):
    storage.refuse = lambda method, name: status if not name else None
    with pytest.raises(InputError, match=r"~lease\.json exists and is not listed"):
        _fetched(tmp_path / "again", lease)


def test_a_copy_goes_out_of_the_way_of_a_run_that_took_the_lease(mirror, storage):
    storage.objects[f"run/{LEASE}"] = (1, b"{}")
    _second_state(mirror.path, "b")
    storage.requests.clear()
    with pytest.raises(RunError, match="another run has taken it over; nothing is"):
        mirror.send()
    assert _changes(storage.requests) == []


def test_names_that_lead_out_of_the_copy_are_left_alone(mirror, lease, tmp_path):
    Store(URL).write("../outside", b"x")
    Store(URL).write("a/../../outside", b"x")
    Store(URL).write("folder/", b"")
    again = _fetched(tmp_path / "again", lease)
    assert not (tmp_path / "outside").exists()
    assert not (again.path / "folder").exists()


def test_a_file_that_cannot_be_read_is_one_line(mirror, monkeypatch):
    (mirror.path / "metrics.jsonl").write_text("more")

    def fail(path: pathlib.Path) -> bytes:
        raise OSError(errno.EIO, "Input/output error", str(path))

    monkeypatch.setattr(pathlib.Path, "read_bytes", fail)
    with pytest.raises(RunError, match=r"Input/output error, in the copy of gs://buc"):
        mirror.send()
