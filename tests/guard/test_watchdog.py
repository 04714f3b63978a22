"""What hangs is named, and the process ends."""

import threading
import time

from unet_jax.guard.watchdog import Watchdog


def test_work_that_does_not_come_back_ends_the_process(capfd):
    left = threading.Event()
    codes = []

    def leave(code):
        codes.append(code)
        left.set()

    with (
        Watchdog(0.2, last_good=lambda: "LAST GOOD", leave=leave) as watchdog,
        watchdog.watching("step 7"),
    ):
        assert left.wait(20)
    error = capfd.readouterr().err
    assert codes == [42]
    assert "step 7 has not come back for 0.2 s" in error
    assert "LAST GOOD" in error
    assert "test_work_that_does_not_come_back" in error  # where this thread stood


def test_a_disk_that_hangs_too_does_not_hold_it_up(capfd):
    left = threading.Event()
    codes = []

    def leave(code):
        codes.append(code)
        left.set()

    with (
        Watchdog(0.2, last_good=lambda: time.sleep(60), leave=leave) as watchdog,
        watchdog.watching("step 7"),
    ):
        assert left.wait(30)
    assert codes == [42]
    assert "a disk hangs; its checkpoints cannot be listed" in capfd.readouterr().err


def test_only_the_watched_work_counts_and_each_piece_anew():
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
