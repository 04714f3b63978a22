"""Two runs never write into one folder of a bucket."""

import json
import threading
import time

import pytest

from unet_jax.bucket.lease import NAME, BucketLease
from unet_jax.bucket.store import Store
from unet_jax.errors import InputError, RunError

URL = "gs://bucket/run"
OBJECT = f"run/{NAME}"
FAR = json.dumps({"token": "x", "host": "far", "boot": "b", "pid": 1}).encode()


def test_a_second_run_is_refused_and_the_lease_is_given_back(storage):
    with BucketLease(Store(URL)) as lease:
        lease.check()
        with pytest.raises(InputError, match="another run is at work there"):
            BucketLease(Store(URL))
    assert OBJECT not in storage.objects
    with BucketLease(Store(URL)):
        pass


def test_the_lease_of_a_dead_process_of_this_host_is_taken_over_at_once(storage):
    with BucketLease(Store(URL)):
        generation, content = storage.objects[OBJECT]
    dead = json.loads(content) | {"started": "0", "token": "x"}
    storage.objects[OBJECT] = generation, json.dumps(dead).encode()
    with BucketLease(Store(URL)) as lease:
        assert json.loads(storage.objects[OBJECT][1])["token"] != "x"
        lease.check()


@pytest.mark.parametrize("content", [FAR, b"", b"{", b"[]"])
def test_a_silent_lease_of_another_host_is_waited_for(content, storage, capsys):
    storage.objects[OBJECT] = 5, content
    began = time.monotonic()
    with BucketLease(Store(URL), stale_seconds=1.0) as lease:
        assert time.monotonic() - began >= 1.0
        lease.check()
    assert "waiting up to 1 s for a sign of life" in capsys.readouterr().out


def test_another_hosts_lease_that_is_renewed_is_respected(storage):
    storage.objects[OBJECT] = 5, FAR

    def renew() -> None:
        storage.objects[OBJECT] = 6, FAR

    timer = threading.Timer(0.5, renew)
    timer.start()
    with pytest.raises(InputError, match="host far"):
        BucketLease(Store(URL), stale_seconds=30.0)
    timer.join()


def test_it_is_renewed_again_and_again(storage):
    with BucketLease(Store(URL), beat_seconds=0.05) as lease:
        first = storage.objects[OBJECT][0]
        end = time.monotonic() + 20
        while storage.objects[OBJECT][0] < first + 3 and time.monotonic() < end:
            time.sleep(0.01)
        assert storage.objects[OBJECT][0] >= first + 3
        lease.check()


def test_a_lease_that_was_deleted_or_taken_over_ends_the_run(storage):
    with BucketLease(Store(URL)) as lease:
        del storage.objects[OBJECT]
        with pytest.raises(RunError, match="deleted under the run"):
            lease.check()
    with BucketLease(Store(URL)) as lease:
        storage.objects[OBJECT] = 5, FAR
        with pytest.raises(RunError, match="another run has taken it over"):
            lease.check()
    assert storage.objects[OBJECT] == (5, FAR)


def test_a_write_whose_answer_was_lost_is_known_again(storage):
    lost = [1]

    def answer_is_lost(method: str, name: str) -> bool:
        lost[0] -= method == "POST"
        return method == "POST" and lost[0] == 0

    storage.loses_answer = answer_is_lost
    with BucketLease(Store(URL)) as lease:
        assert lost[0] <= 0  # an answer was lost
        lease.check()


def test_a_bucket_that_does_not_answer_for_a_while_takes_no_lease(storage):
    with BucketLease(Store(URL)) as lease:
        first = storage.objects[OBJECT][0]
        storage.refuse = lambda method, name: 403
        lease.check()
        storage.refuse = lambda method, name: None
        lease.check()
        assert storage.objects[OBJECT][0] > first
