"""A run resumes from the newest checkpoint that is whole."""

import jax.numpy as jnp
import numpy as np
import pytest

from unet_jax.errors import InputError, RunError
from unet_jax.training import checkpoint
from unet_jax.training.checkpoint import Checkpoints
from unet_jax.training.resume import RunCheckpoints, has_checkpoint, last_good


def _state(value):
    return {"w": jnp.full(1000, float(value))}


def _record(step, score, **more):
    return {"score": score, "step": step, **more}


def _saved(workdir, *scores):
    """Save one checkpoint per score, at the steps 10, 20, ..."""
    best, best_step = -1.0, None
    with RunCheckpoints(workdir) as checkpoints:
        for number, score in enumerate(scores, start=1):
            if score > best:
                best, best_step = score, 10 * number
            checkpoints.save(
                10 * number,
                _state(10 * number),
                place={"batches": 10 * number},
                record=_record(best_step, best),
                score=score,
            )


def _damage(workdir, step, folder="checkpoints"):
    """Flip one bit of the arrays of a checkpoint."""
    arrays = (workdir / folder / str(step) / "state").rglob("*")
    path = max((p for p in arrays if p.is_file()), key=lambda p: p.stat().st_size)
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def _restored(workdir):
    with RunCheckpoints(workdir) as checkpoints:
        return checkpoints.restore(_state(0))


def _steps(workdir, folder="checkpoints"):
    return sorted(int(p.name) for p in (workdir / folder).iterdir())


def test_an_interrupted_run_goes_on_where_it_stood_and_what_is_kept_is_the_same(
    tmp_path,
):
    _saved(tmp_path, 0.5, 0.4, 0.3, 0.2)
    kept = _steps(tmp_path)
    with RunCheckpoints(tmp_path) as checkpoints:
        checkpoints.save_interrupted(
            47, _state(47), place={"batches": 47}, record=_record(10, 0.5, window=[1])
        )
        assert checkpoints.latest_step() == 47
        assert checkpoints.best_step() == 10
    assert last_good(tmp_path) == "the last good checkpoint is step 47"
    step, state, place, record = _restored(tmp_path)
    assert (step, place, record["window"]) == (47, {"batches": 47}, [1])
    np.testing.assert_array_equal(state["w"], np.full(1000, 47.0))
    assert _steps(tmp_path) == kept
    with RunCheckpoints(tmp_path) as checkpoints:
        checkpoints.save(
            50, _state(50), place={}, record=_record(10, 0.5), score=float("nan")
        )
    assert _steps(tmp_path) == [10, 30, 40, 50]
    assert not (tmp_path / "interrupted").exists()


def test_an_interruption_before_the_first_validation_counts(tmp_path):
    assert not has_checkpoint(tmp_path)
    assert last_good(tmp_path) == "no checkpoint was saved yet"
    with RunCheckpoints(tmp_path) as checkpoints:
        checkpoints.save_interrupted(3, _state(3), place={}, record=_record(None, None))
    assert has_checkpoint(tmp_path)
    assert _restored(tmp_path).step == 3


def test_a_leftover_of_before_the_newest_checkpoint_is_removed(tmp_path):
    with RunCheckpoints(tmp_path) as checkpoints:
        checkpoints.save_interrupted(3, _state(3), place={}, record=_record(None, None))
    # Killed after the next save, before the removal.
    (tmp_path / "interrupted").rename(tmp_path / "kept")
    _saved(tmp_path, 0.1)
    (tmp_path / "kept").rename(tmp_path / "interrupted")
    assert _restored(tmp_path).step == 10
    assert not (tmp_path / "interrupted").exists()


def test_damaged_checkpoints_are_named_and_the_newest_whole_one_is_used(
    tmp_path, capsys
):
    _saved(tmp_path, 0.1, 0.4, 0.2)
    _damage(tmp_path, 30)
    assert _restored(tmp_path).step == 20
    line = capsys.readouterr().out
    assert f"{tmp_path}/checkpoints/30/state" in line
    assert "the file is changed since it was written" in line
    assert f"moved to {tmp_path}/damaged/30" in line
    assert _steps(tmp_path) == [10, 20]
    assert _steps(tmp_path, "damaged") == [30]
    # The step comes again and is saved again; a second damage is kept beside the first.
    _saved(tmp_path, 0.1, 0.4, 0.2)
    _damage(tmp_path, 30)
    assert _restored(tmp_path).step == 20
    assert {p.name for p in (tmp_path / "damaged").iterdir()} == {"30", "30-2"}


def test_a_damaged_interruption_falls_back_on_the_last_validation(tmp_path, capsys):
    _saved(tmp_path, 0.1)
    with RunCheckpoints(tmp_path) as checkpoints:
        checkpoints.save_interrupted(15, _state(15), place={}, record=_record(10, 0.1))
    _damage(tmp_path, 15, "interrupted")
    assert _restored(tmp_path).step == 10
    assert "moved to" in capsys.readouterr().out


@pytest.mark.parametrize("interrupted", [False, True])
def test_the_first_checkpoint_of_a_start_is_read_back(
    tmp_path, monkeypatch, interrupted
):
    checked = []
    monkeypatch.setattr(
        Checkpoints, "check_readable", lambda self, step, state: checked.append(step)
    )
    with RunCheckpoints(tmp_path) as checkpoints:
        if interrupted:
            checkpoints.save_interrupted(
                5, _state(5), place={}, record=_record(None, None)
            )
        for step in (10, 20):
            checkpoints.save(step, _state(step), place={}, record={}, score=0.1)
    assert checked == [5 if interrupted else 10]


def test_a_checkpoint_that_gives_nothing_back_ends_the_run_at_once(
    tmp_path, monkeypatch
):
    workdir = tmp_path / "run[1]"
    with monkeypatch.context() as patch:
        patch.setattr(
            checkpoint, "LiteralPath", lambda path: path
        )  # as Orbax by itself
        with RunCheckpoints(workdir) as checkpoints, pytest.raises(RunError) as caught:
            checkpoints.save(10, _state(10), place={}, record={}, score=0.1)
    assert str(caught.value).startswith(f"{workdir}/checkpoints/10: ")
    assert str(caught.value).endswith(f"it was moved to {workdir}/damaged/10")
    assert not has_checkpoint(workdir)
    _saved(workdir, 0.3)
    assert _restored(workdir).step == 10


def test_where_none_is_whole_nothing_starts_again(tmp_path):
    _saved(tmp_path, 0.1, 0.2)
    for step in (10, 20):
        _damage(tmp_path, step)
    with pytest.raises(InputError) as caught:
        RunCheckpoints(tmp_path)
    assert str(caught.value).startswith(f"{tmp_path}/checkpoints: no checkpoint is ")
    assert "name another --workdir to start again" in str(caught.value)
    assert _steps(tmp_path) == [10, 20]


def test_the_best_of_those_left_takes_the_place_of_a_lost_one(tmp_path, capsys):
    _saved(tmp_path, 0.9, 0.2, 0.5, 0.4)
    _damage(tmp_path, 10)
    restored = _restored(tmp_path)
    assert (restored.record["step"], restored.record["score"]) == (30, 0.5)
    assert "step 10, is lost" in capsys.readouterr().out


def test_what_a_kill_left_of_an_old_checkpoint_is_removed_silently(tmp_path, capsys):
    _saved(tmp_path, 0.1, 0.9, 0.2, 0.3, 0.4)
    half = tmp_path / "checkpoints" / "1"
    half.mkdir()
    (half / "sha256.json").write_text('{"state/a": "0"}')
    assert _restored(tmp_path).step == 50
    assert _steps(tmp_path) == [20, 30, 40, 50]
    assert capsys.readouterr().out == ""
