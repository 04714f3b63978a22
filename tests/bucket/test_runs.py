"""Runs whose workdir is in a bucket end as those in a folder do."""

import json
import signal
import time

import numpy as np
import pytest
from PIL import Image

from tests.hosts import together
from tests.hosts.together import assert_equal_runs, ended, make_data, start

pytestmark = pytest.mark.slow


def train(folder, workdirs, *extra, **how):
    """Start a training that nothing but the test ends: a busy machine is no problem."""
    patient = "--config.train.step_timeout=200"
    return together.train(folder, workdirs, patient, *extra, **how)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """The data of the runs, and room for them."""
    root = tmp_path_factory.mktemp("bucket")
    make_data(root)
    return root


@pytest.fixture(scope="module")
def local(folder):
    """Workdir of a run in a folder: what the others are compared with."""
    workdir = folder / "local"
    codes, log = ended(train(folder, [workdir], devices=2))
    assert codes == [0], log
    return workdir


@pytest.fixture(scope="module")
def pair(folder):
    """Workdir of a run of two processes in a folder that both see."""
    workdir = folder / "pair"
    codes, log = ended(train(folder, [workdir] * 2))
    assert codes == [0, 0], log
    return workdir


def _wait_for(storage, name, processes):
    end = time.monotonic() + 900
    while name not in storage.objects:
        assert time.monotonic() < end
        assert all(process.poll() is None for process in processes), ended(processes)
        time.sleep(0.02)


def test_a_run_killed_and_restarted_from_the_bucket_ends_as_a_local_one(
    local, folder, storage
):
    url = "gs://bucket/runs/killed"
    processes = train(folder, [url], devices=2)
    _wait_for(storage, "runs/killed/checkpoints/20/sha256.json", processes)
    processes[0].kill()
    assert processes[0].wait() == -signal.SIGKILL
    codes, log = ended(train(folder, [url], devices=2))
    assert codes == [0], log
    assert "resumed at step" in log
    assert "scores: gs://bucket/runs/killed/test_metrics.json" in log
    storage.copy_to(folder / "killed", "runs/killed/")
    assert_equal_runs(local, folder / "killed")
    assert not (folder / "killed" / "~lease.json").exists()
    assert not (folder / "killed" / "lease.json").exists()
    steps = {path.name for path in (folder / "killed" / "checkpoints").iterdir()}
    assert steps == {path.name for path in (local / "checkpoints").iterdir()}
    for name in ("predictions", "figures"):
        found = {path.name for path in (folder / "killed" / name).iterdir()}
        assert found == {path.name for path in (local / name).iterdir()}


def test_two_processes_with_a_bucket_are_as_two_with_a_folder(pair, folder, storage):
    url = "gs://bucket/two"
    processes = train(folder, [url] * 2)
    _wait_for(storage, "two/checkpoints/10/sha256.json", processes)
    processes[1].send_signal(signal.SIGTERM)
    codes, log = ended(processes)
    if 0 not in codes:
        assert codes == [42, 42], log
    codes, log = ended(train(folder, [url] * 2))
    assert codes == [0, 0], log
    storage.copy_to(folder / "two", "two/")
    assert_equal_runs(pair, folder / "two")
    assert len(list((folder / "two" / "predictions").iterdir())) == 5

    del storage.objects["two/test_metrics.json"]
    codes, log = ended(start(folder, [url] * 2, "--mode=evaluate"))
    assert codes == [0, 0], log
    found = storage.objects["two/test_metrics.json"][1]
    assert found == (pair / "test_metrics.json").read_bytes()


def _put(storage, workdir, prefix):
    """Put a folder into the bucket."""
    for path in workdir.rglob("*"):
        if path.is_file():
            name = f"{prefix}/{path.relative_to(workdir).as_posix()}"
            storage.objects[name] = 1, path.read_bytes()


def test_a_run_is_used_by_an_account_that_may_only_read(local, folder, storage):
    _put(storage, local, "read")
    storage.refuse = lambda method, name: None if method == "GET" else 403
    images, output = folder / "data" / "images", folder / "segmented"
    codes, log = ended(
        start(
            folder,
            ["gs://bucket/read"],
            "--mode=predict",
            f"--input={images}",
            f"--output={output}",
        )
    )
    assert codes == [0], log
    for number in range(7, 12):
        found = np.asarray(Image.open(output / f"c{number}.png"))
        expected = np.asarray(Image.open(local / "predictions" / f"c{number}.png"))
        np.testing.assert_array_equal(found, expected)
    codes, log = ended(
        train(
            folder,
            [folder / "further"],
            "--config.init_from=gs://bucket/read",
            "--config.train.steps=1",
            "--config.optimizer.warmup_steps=0",
        )
    )
    assert codes == [0], log
    assert "init_from gs://bucket/read (step" in log
    assert " arrays copied, 0 skipped" in log


def test_a_mean_of_runs_is_written_to_the_bucket_and_names_them(local, folder, storage):
    _put(storage, local, "a")
    codes, log = ended(
        start(
            folder,
            ["gs://bucket/mean"],
            "--mode=evaluate",
            f"--workdirs=gs://bucket/a,{local}",
        )
    )
    assert codes == [0], log
    results = json.loads(storage.objects["mean/test_metrics.json"][1])
    assert results["members"] == ["gs://bucket/a", str(local)]
    assert "mean/predictions/c7.png" in storage.objects


@pytest.mark.parametrize("other", ["gs://bucket/there", "runs/there"])
def test_processes_that_name_different_workdirs_are_refused(other, folder, storage):
    codes, log = ended(train(folder, ["gs://bucket/here", other]))
    assert codes == [2, 2], log
    assert "--workdir: process 0 has 'gs://bucket/here', process 1 has '" in log
    assert storage.objects == {}
