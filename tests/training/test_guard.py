"""A run that fails says what is safe; a request to stop reaches every process."""

import jax
import numpy as np
import pytest

from unet_jax.errors import InputError, RunError, Stopped
from unet_jax.runtime.stop import Stop
from unet_jax.training.devices import STOP
from unet_jax.training.guard import guarding


def _guarding(workdir, *, stop=None, safe="STEP 5 IS SAFE"):
    return guarding(
        workdir, stop=stop or Stop(), step_timeout=0, last_good=lambda: safe
    )


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (RunError("loss is nan"), "loss is nan; STEP 5 IS SAFE"),
        # A bucket says it itself.
        (RunError("no network; STEP 5 IS SAFE"), "no network; STEP 5 IS SAFE"),
        (
            OSError(28, "No space left on device", "/data/x"),
            "/data/x: No space left on device; fix the disk, then start the same "
            "command again; STEP 5 IS SAFE",
        ),
        (
            OSError("odd"),
            "WORKDIR: odd; fix the disk, then start the same command again; "
            "STEP 5 IS SAFE",
        ),
    ],
)
def test_an_error_of_the_run_ends_with_the_last_good_checkpoint(
    error, message, tmp_path
):
    with pytest.raises(RunError) as caught, _guarding(tmp_path):
        raise error
    assert str(caught.value) == message.replace("WORKDIR", str(tmp_path))
    assert not (tmp_path / "lease.json").exists()


@pytest.mark.parametrize(
    "error", [InputError("bad"), Stopped("SIGTERM", code=42), KeyError("bug")]
)
def test_other_errors_pass_as_they_are(error, tmp_path):
    with pytest.raises(type(error)) as caught, _guarding(tmp_path):
        raise error
    assert caught.value is error


def test_the_workdir_is_this_runs_and_is_given_back_before_an_exit_at_once(tmp_path):
    class Listed(Stop):
        def on_exit(self, callback):
            callbacks.append(callback)

    callbacks = []
    with _guarding(tmp_path, stop=Listed()) as guard:
        guard.lease.check()
        with (
            pytest.raises(InputError, match="another run is at work there"),
            _guarding(tmp_path),
        ):
            raise AssertionError
        callbacks[0]()
        assert not (tmp_path / "lease.json").exists()


def test_one_process_stops_after_the_step_in_which_it_was_asked(tmp_path):
    stop = Stop()
    with _guarding(tmp_path, stop=stop) as guard:
        batch = {"image": np.zeros(3)}
        assert guard.vote(batch) is batch
        assert guard.count_votes({"loss": 1.0}) == {"loss": 1.0}
        assert not guard.must_stop(3)
        stop.reason = "SIGTERM"
        assert guard.must_stop(3)
    assert str(guard.stopped(3)) == "stopped by SIGTERM: step 3 is saved"
    assert str(guard.stopped(0)) == "stopped by SIGTERM: no step was done"


def test_several_processes_count_their_votes_two_steps_late(tmp_path, monkeypatch):
    with _guarding(tmp_path, stop=(stop := Stop())) as guard:
        monkeypatch.setattr(jax, "process_count", lambda: 2)
        votes = guard.vote({"image": np.zeros(3)})[STOP]
        assert votes.tolist() == [0] * jax.local_device_count()
        stop.reason = "SIGTERM"
        assert guard.vote({})[STOP].tolist() == [1] * jax.local_device_count()
        answers = []
        for step, summed in enumerate((0, 1, 0, 0), start=1):
            metrics = guard.count_votes({"loss": 1.0, STOP: np.int32(summed)})
            assert metrics == {"loss": 1.0}
            answers.append(guard.must_stop(step))
        # This process's own wish does not count before it is everybody's.
        assert answers == [False, False, False, True]
        monkeypatch.undo()
