import json
import os
import shutil
import signal
import subprocess
import sys
import time

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from unet_jax.errors import InputError, RunError
from unet_jax.training import manifest
from unet_jax.training.checkpoint import Checkpoints
from unet_jax.training.devices import replicate
from unet_jax.training.named_arrays import transfer
from unet_jax.training.step import TrainState

# Values that a detour through text or another dtype would not give back.
AWKWARD = [np.nan, -np.inf, -0.0, 1e-42, 0.1, 1 + 2**-23]


def _state(seed=0, features=3):
    keys = jax.random.split(jax.random.key(seed), 2)
    params = {
        "down": {
            "kernel": jax.random.normal(keys[0], (3, 3, 1, features)),
            "scale": jnp.asarray(AWKWARD, jnp.float32),
        },
        "head": {"kernel": jax.random.normal(keys[1], (5, 2)).astype(jnp.bfloat16)},
    }
    optimizer = optax.chain(optax.clip_by_global_norm(1.0), optax.adamw(1e-3))
    return replicate(
        TrainState(
            step=jnp.int32(seed),
            params=params,
            batch_stats={},
            opt_state=optimizer.init(params),
            learning_rate=jnp.float32(0.5),
        )
    )


def _save(checkpoints, step, score=None, state=None, record=None):
    return checkpoints.save(
        step,
        _state(step) if state is None else state,
        iterator_state={"batches": step},
        record={} if record is None else record,
        score=score,
    )


def _steps(directory):
    return sorted(int(path.name) for path in directory.iterdir())


def _assert_identical(actual, expected):
    assert jax.tree.structure(actual) == jax.tree.structure(expected)
    for a, b in zip(jax.tree.leaves(actual), jax.tree.leaves(expected), strict=True):
        assert a.dtype == b.dtype
        assert a.shape == b.shape
        assert np.asarray(a).tobytes() == np.asarray(b).tobytes()


def test_restores_bits_places_iterator_and_record(tmp_path):
    state = _state(7)
    record = {"best_score": 0.5, "best_step": 7, "history": [[7, 0.5]]}
    with Checkpoints(tmp_path) as checkpoints:
        assert _save(checkpoints, 7, 0.5, state, record)
    with Checkpoints(tmp_path) as checkpoints:
        restored, iterator_state, found = checkpoints.restore(None, _state(0))
    _assert_identical(restored, state)
    assert isinstance(restored, TrainState)
    for leaf, template in zip(
        jax.tree.leaves(restored), jax.tree.leaves(state), strict=True
    ):
        assert leaf.sharding == template.sharding
        assert len(leaf.devices()) == jax.local_device_count() == 4
    assert iterator_state == {"batches": 7}
    assert found == record


@pytest.mark.parametrize("name", ["a[1]", "[2026] study/b", "what?", "*", "[!a]**"])
def test_characters_of_a_pattern_in_the_path_are_plain_characters(tmp_path, name):
    # The first would match a pattern of the second's name.
    for folder in ("a1", name):
        with Checkpoints(tmp_path / folder / "c[0]") as checkpoints:
            _save(checkpoints, 7, 0.5, _state(len(folder)))
            checkpoints.wait()
            checkpoints.check_readable(7, _state(len(folder)))
    with Checkpoints(tmp_path / name / "c[0]", read_only=True) as checkpoints:
        raw = checkpoints.restore_raw(checkpoints.best_step())
    _assert_identical(raw["params"], _state(len(name)).params)


def _flip_the_largest_file(directory):
    """Change one bit of the arrays, with sums that fit."""
    _flip_one_bit(_array_file(directory))
    manifest.write_sums(directory / "1")


@pytest.mark.parametrize(
    "damage",
    [lambda directory: os.remove(_array_file(directory)), _flip_the_largest_file],
)
def test_what_was_just_written_is_compared_bit_for_bit(tmp_path, damage):
    state = {"w": replicate(jnp.arange(50_000.0)), "none": None}
    with Checkpoints(tmp_path) as checkpoints:
        _save(checkpoints, 1, state=state)
        checkpoints.check_readable(1, state)
        damage(tmp_path)
        with pytest.raises(RunError, match="written a moment ago") as caught:
            checkpoints.check_readable(1, state)
    assert str(caught.value).startswith(f"{tmp_path}/1")


def test_template_moves_state_to_another_number_of_devices(tmp_path):
    device = jax.local_devices()[2]
    state = _state(1)
    with Checkpoints(tmp_path) as checkpoints:
        _save(checkpoints, 1, state=state)
        restored, _, _ = checkpoints.restore(1, jax.device_put(_state(0), device))
    _assert_identical(restored, state)
    assert all(leaf.devices() == {device} for leaf in jax.tree.leaves(restored))


def test_arguments_may_change_once_save_returned(tmp_path):
    step = jax.jit(lambda tree: jax.tree.map(lambda x: x + 1, tree), donate_argnums=0)
    state = replicate({"w": jnp.zeros((500, 500)), "step": jnp.int32(0)})
    record = {"best_step": 0}
    with Checkpoints(tmp_path) as checkpoints:
        for number in (1, 2, 3):
            state = step(state)
            record["best_step"] = number
            _save(checkpoints, number, state=state, record=record)
            record["best_step"] = -1
            for _ in range(3):
                state = step(state)
        for number, value in ((1, 1), (2, 5), (3, 9)):
            restored, _, found = checkpoints.restore(number, state)
            assert found == {"best_step": number}
            np.testing.assert_array_equal(np.asarray(restored["w"]), value)


def test_a_save_from_several_devices_compiles_nothing(tmp_path, caplog):
    state = _state(1, features=12)  # a shape that no other test has compiled for
    assert len(state.step.devices()) > 1
    with Checkpoints(tmp_path) as checkpoints, jax.log_compiles():
        _save(checkpoints, 1, state=state)
        checkpoints.wait()
    assert "Finished XLA compilation" not in caplog.text


def test_keeps_the_three_latest_and_the_best(tmp_path):
    with Checkpoints(tmp_path) as checkpoints:
        for step, score in enumerate([0.1, 0.9, 0.2, 0.3, 0.4, 0.5, 0.6], start=1):
            _save(checkpoints, step, score)
        checkpoints.wait()
        assert _steps(tmp_path) == [2, 5, 6, 7]
        assert (checkpoints.best_step(), checkpoints.latest_step()) == (2, 7)
    with Checkpoints(tmp_path) as checkpoints:
        assert (checkpoints.best_step(), checkpoints.latest_step()) == (2, 7)
        _save(checkpoints, 8, 0.95)
        checkpoints.wait()
        assert _steps(tmp_path) == [6, 7, 8]
        assert checkpoints.best_step() == 8


@pytest.mark.parametrize("score", [float("nan"), float("inf"), None])
def test_no_score_is_never_best_nor_removes_the_best(tmp_path, score):
    with Checkpoints(tmp_path) as checkpoints:
        for step, value in enumerate([score, 0.2, score, score, score, score], start=1):
            _save(checkpoints, step, value)
            assert checkpoints.best_step() == (None if step == 1 else 2)
        checkpoints.wait()
        assert _steps(tmp_path) == [2, 4, 5, 6]
    with Checkpoints(tmp_path) as checkpoints:
        assert checkpoints.best_step() == 2


def test_without_any_score_only_the_latest_stay(tmp_path):
    with Checkpoints(tmp_path) as checkpoints:
        for step in range(1, 6):
            _save(checkpoints, step)
        checkpoints.wait()
        assert _steps(tmp_path) == [3, 4, 5]
        assert checkpoints.best_step() is None


def test_of_equal_scores_the_last_is_best(tmp_path):
    with Checkpoints(tmp_path) as checkpoints:
        for step in range(1, 7):
            _save(checkpoints, step, 0.5 if step > 1 else 0.4)
        checkpoints.wait()
        assert checkpoints.best_step() == 6
        assert _steps(tmp_path) == [4, 5, 6]


def test_saving_an_existing_step_changes_nothing(tmp_path):
    with Checkpoints(tmp_path) as checkpoints:
        assert _save(checkpoints, 1, 0.5)
        assert not _save(checkpoints, 1, 0.9, _state(5))
    with Checkpoints(tmp_path) as checkpoints:
        assert not _save(checkpoints, 1, 0.9, _state(5))
        assert _save(checkpoints, 2, 0.1)
        assert checkpoints.best_step() == 1
        restored, _, _ = checkpoints.restore(1, _state(0))
    _assert_identical(restored, _state(1))


def test_a_state_of_a_version_before_a_field_gets_its_default(tmp_path):
    state = _state(3)
    before = {key: value for key, value in vars(state).items() if "ema_b" not in key}
    with Checkpoints(tmp_path) as checkpoints:
        _save(checkpoints, 3, state=before)
        averages = {"statistics": jnp.ones(2)}
        restored, *_ = checkpoints.restore(
            3, _state(0).replace(ema_batch_stats=averages)
        )
    _assert_identical(restored, state)


def test_raw_restore_needs_no_template(tmp_path):
    state = _state(3)
    with Checkpoints(tmp_path) as checkpoints:
        _save(checkpoints, 3, state=state)
    with Checkpoints(tmp_path, read_only=True) as checkpoints:
        raw = checkpoints.restore_raw(None)
    assert all(type(leaf) is np.ndarray for leaf in jax.tree.leaves(raw))
    _assert_identical(raw["params"], state.params)
    assert raw["ema_params"] is None
    assert raw["step"] == 3


def test_missing_checkpoints_are_named(tmp_path):
    empty = tmp_path / "empty"
    with Checkpoints(empty, read_only=True) as checkpoints:
        assert checkpoints.latest_step() is None
        assert checkpoints.best_step() is None
        with pytest.raises(InputError, match=f"{empty}: no checkpoint; found none"):
            checkpoints.restore(None, _state())
    assert not empty.exists()
    with Checkpoints(tmp_path) as checkpoints:
        _save(checkpoints, 4)
        with pytest.raises(InputError, match=r"no checkpoint of step 5; found \[4\]"):
            checkpoints.restore_raw(5)


def test_another_network_is_refused_by_name_and_shape(tmp_path):
    with Checkpoints(tmp_path) as checkpoints:
        _save(checkpoints, 1, state=_state(features=3))
        with pytest.raises(InputError) as caught:
            checkpoints.restore(1, _state(features=4))
        message = str(caught.value)
        assert str(tmp_path / "1") in message
        assert (
            "params/down/kernel is (3, 3, 1, 3) float32 there and "
            "(3, 3, 1, 4) float32 here" in message
        )
        assert "opt_state/1/0/mu/down/kernel" in message
        assert "\n" not in message

        state = _state()
        averaged = state.replace(ema_params=state.params)
        with pytest.raises(
            InputError, match=r"ema_params/down/kernel is missing there"
        ):
            checkpoints.restore(1, averaged)
        cast = state.replace(params=jax.tree.map(jnp.float32, state.params))
        with pytest.raises(
            InputError,
            match=r"params/head/kernel is \(5, 2\) bfloat16 there and \(5, 2\) float32",
        ):
            checkpoints.restore(1, cast)


def _array_file(directory):
    files = (directory / "1" / "state").rglob("d/*")
    return max(files, key=lambda path: path.stat().st_size)


def _cut(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def _flip_one_bit(path):
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


@pytest.mark.parametrize("damage", [_cut, _flip_one_bit, os.remove])
def test_damaged_arrays_are_refused(tmp_path, damage):
    with Checkpoints(tmp_path) as checkpoints:
        _save(checkpoints, 1)
        checkpoints.wait()
        path = _array_file(tmp_path)
        damage(path)
        for restore in (
            lambda: checkpoints.restore(1, _state()),
            lambda: checkpoints.restore_raw(1),
        ):
            with pytest.raises(InputError) as caught:
                restore()
            message = str(caught.value)
            assert message.startswith(str(path))
            assert message.endswith(manifest.FIX)
            assert "\n" not in message


@pytest.mark.parametrize("name", ["run/run.json", "sha256.json", "state/_METADATA"])
def test_every_other_file_is_checked_too(tmp_path, name):
    with Checkpoints(tmp_path) as checkpoints:
        _save(checkpoints, 1)
        checkpoints.wait()
        path = tmp_path / "1" / name
        _cut(path)
        with pytest.raises(InputError, match=f"{path}: "):
            checkpoints.restore(1, _state())


def test_a_disk_without_room_is_refused_before_half_a_save(tmp_path, monkeypatch):
    with Checkpoints(tmp_path) as checkpoints:
        _save(checkpoints, 1)
        checkpoints.wait()
        usage = shutil.disk_usage(tmp_path)._replace(free=2**19)
        monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)
        with pytest.raises(RunError) as caught:
            _save(checkpoints, 2)
        message = str(caught.value)
        assert message.startswith(f"{tmp_path}/2: the checkpoint cannot be written")
        assert "MiB and 0 MiB are free" in message
    assert _steps(tmp_path) == [1]


def test_unreadable_score_is_refused_at_once(tmp_path):
    with Checkpoints(tmp_path) as checkpoints:
        _save(checkpoints, 1, 0.5)
    path = tmp_path / "1" / "run" / "run.json"
    _cut(path)
    with pytest.raises(InputError, match=f"{path}: the checkpoint cannot be read"):
        Checkpoints(tmp_path)


def test_half_removed_old_checkpoint_does_not_stop_a_run(tmp_path):
    with Checkpoints(tmp_path) as checkpoints:
        for step, score in ((1, 0.1), (2, 0.4), (3, 0.3)):
            _save(checkpoints, step, score)
    (tmp_path / "1" / "run" / "run.json").unlink()
    with Checkpoints(tmp_path) as checkpoints:
        assert (checkpoints.best_step(), checkpoints.latest_step()) == (2, 3)
        _save(checkpoints, 4, 0.2)
        checkpoints.wait()
        assert _steps(tmp_path) == [2, 3, 4]


def _python(code, *args, **kwargs):
    command = [sys.executable, "-W", "error", "-c", code, *args]
    return subprocess.Popen(command, stderr=subprocess.PIPE, text=True, **kwargs)


_KILLED = """
import sys, time
import jax.numpy as jnp
from unet_jax.training import checkpoint

checkpoints = checkpoint.Checkpoints(sys.argv[1])
def save(step):
    checkpoints.save(
        step, {"w": jnp.full(1000, step)}, iterator_state={}, record={}, score=0.5
    )
save(1)
checkpoints.wait()
# The second save never gets beyond its last act before it is named.
checkpoint.write_sums = lambda path: time.sleep(600)
save(2)
checkpoints.wait()
"""


def test_kill_in_mid_save_leaves_the_checkpoint_before_it(tmp_path):
    with _python(_KILLED, str(tmp_path)) as process:
        deadline = time.monotonic() + 60
        while not list(tmp_path.glob("2.*/state/manifest.ocdbt")):
            assert process.poll() is None, process.stderr.read()
            assert time.monotonic() < deadline
            time.sleep(0.01)
        process.send_signal(signal.SIGKILL)
    (leftover,) = tmp_path.glob("2.*")
    template = {"w": jnp.zeros(1000, jnp.int32)}
    with Checkpoints(tmp_path, read_only=True) as checkpoints:
        assert checkpoints.latest_step() == checkpoints.best_step() == 1
        restored, _, _ = checkpoints.restore(None, template)
        np.testing.assert_array_equal(restored["w"], np.full(1000, 1))
    assert leftover.exists()
    with Checkpoints(tmp_path) as checkpoints:
        assert checkpoints.latest_step() == 1
        assert _save(checkpoints, 2, state={"w": jnp.full(1000, 22)})
        restored, _, _ = checkpoints.restore(2, template)
        np.testing.assert_array_equal(restored["w"], np.full(1000, 22))
    assert _steps(tmp_path) == [1, 2]


_QUIET = """
import sys
from absl import app
import jax.numpy as jnp
from unet_jax.training.checkpoint import Checkpoints

def main(argv):
    state = {"w": jnp.ones(10)}
    for _ in range(2):
        with Checkpoints(argv[1]) as checkpoints:
            for step in range(5):
                checkpoints.save(
                    step, state, iterator_state={}, record={}, score=None
                )
            checkpoints.restore(None, state)
    with Checkpoints(argv[1], read_only=True) as checkpoints:
        checkpoints.restore_raw(None)

app.run(main)
"""


def test_says_nothing_and_ends(tmp_path):
    with _python(_QUIET, str(tmp_path), stdout=subprocess.PIPE) as process:
        output, errors = process.communicate(timeout=60)
    assert (output, errors, process.returncode) == ("", "", 0)
    assert _steps(tmp_path) == [2, 3, 4]


def test_run_file_is_readable_json(tmp_path):
    with Checkpoints(tmp_path) as checkpoints:
        _save(checkpoints, 1, float("nan"), record={"best_step": None})
    run = json.loads((tmp_path / "1" / "run" / "run.json").read_text())
    assert run == {
        "iterator_state": {"batches": 1},
        "record": {"best_step": None},
        "score": None,
    }


def test_transfer_copies_what_fits_and_names_the_rest():
    params = replicate(
        {
            "stem": {"kernel": jnp.zeros((3, 2)), "bias": jnp.zeros(2)},
            "head": {"kernel": jnp.full((2, 4), 7.0)},
            "new": jnp.full(1, 7.0),
        }
    )
    source = {
        "stem": {"kernel": np.arange(6.0).reshape(3, 2), "bias": np.array([1.0, 2.0])},
        "head": {"kernel": np.ones((2, 3))},
        "old": np.ones(5),
    }
    filled, copied, kernels, skipped = transfer(params, source)
    assert (copied, kernels) == (2, 1)
    np.testing.assert_array_equal(filled["stem"]["kernel"], source["stem"]["kernel"])
    np.testing.assert_array_equal(filled["stem"]["bias"], source["stem"]["bias"])
    np.testing.assert_array_equal(filled["head"]["kernel"], np.full((2, 4), 7.0))
    assert filled["stem"]["kernel"].dtype == jnp.float32
    assert filled["stem"]["kernel"].sharding == params["stem"]["kernel"].sharding
    assert skipped == [
        "head/kernel: (2, 3) in the source, (2, 4) here",
        "new: missing in the source, (1,) here",
        "old: (5,) in the source, missing here",
    ]
