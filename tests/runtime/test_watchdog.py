"""The watchdog names the work that hangs, and ends the process."""

import threading
import time

import pytest

from unet_jax.runtime.watchdog import Watchdog


class _Leaving:
    """Takes the place of the end of the process."""

    def __init__(self):
        self.happened = threading.Event()
        self.codes = []

    def __call__(self, code):
        self.codes.append(code)
        self.happened.set()


@pytest.fixture
def leaving():
    """What a watchdog calls to end the process."""
    return _Leaving()


def test_work_that_does_not_come_back_ends_the_process(capfd, leaving):
    with (
        Watchdog(0.2, last_good=lambda: "LAST GOOD", leave=leaving) as watchdog,
        watchdog.watching("step 7"),
    ):
        assert leaving.happened.wait(20)
    error = capfd.readouterr().err
    assert leaving.codes == [42]
    assert "step 7 has not come back for 0.2 s" in error
    assert "LAST GOOD" in error
    assert "test_work_that_does_not_come_back" in error  # where this thread stood


def test_a_disk_that_hangs_too_does_not_hold_it_up(capfd, leaving):
    with (
        Watchdog(0.2, last_good=lambda: time.sleep(60), leave=leaving) as watchdog,
        watchdog.watching("step 7"),
    ):
        assert leaving.happened.wait(30)
    assert leaving.codes == [42]
    assert "a disk hangs; its checkpoints cannot be listed" in capfd.readouterr().err


def test_only_the_watched_work_counts_and_each_piece_by_itself():
    codes = []
    with Watchdog(1.0, last_good=str, leave=codes.append) as watchdog:
        for step in range(6):
            with watchdog.watching(f"step {step}"):
                time.sleep(0.05)
            time.sleep(0.2)
    assert codes == []


def test_zero_watches_nothing():
    threads = threading.active_count()
    with Watchdog(0, last_good=str) as watchdog, watchdog.watching("step 1"):
        assert threading.active_count() == threads
