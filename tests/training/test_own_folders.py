"""Checkpoints of processes that each have a folder of their own."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from unet_jax.hosts import agree
from unet_jax.training.checkpoint import Checkpoints
from unet_jax.training.devices import replicate
from unet_jax.training.resume import RunCheckpoints


@pytest.fixture(autouse=True)
def own_folders(monkeypatch):
    """Act like several processes with a workdir in a bucket."""
    monkeypatch.setattr(agree, "folders_are_own", lambda: True)


def _state():
    values = {"step": jnp.int32(7), "w": jnp.arange(6.0).reshape(2, 3) / 7}
    return replicate(values)


def test_a_state_is_restored_bit_by_bit_and_placed_as_the_template(tmp_path):
    state = _state()
    with Checkpoints(tmp_path / "checkpoints") as checkpoints:
        checkpoints.save(7, state, iterator_state={}, record={}, score=0.5)
        template = jax.tree.map(jnp.zeros_like, state)
        restored, _, _ = checkpoints.restore(7, template)
    jax.tree.map(np.testing.assert_array_equal, restored, state)
    for leaf, wanted in zip(
        jax.tree.leaves(restored), jax.tree.leaves(template), strict=True
    ):
        assert leaf.sharding == wanted.sharding
        assert leaf.dtype == wanted.dtype


def test_such_a_checkpoint_restores_in_a_run_with_one_folder(tmp_path, monkeypatch):
    state = _state()
    with Checkpoints(tmp_path / "checkpoints") as checkpoints:
        checkpoints.save(7, state, iterator_state={"a": 1}, record={}, score=0.5)
    monkeypatch.setattr(agree, "folders_are_own", lambda: False)
    with Checkpoints(tmp_path / "checkpoints") as checkpoints:
        restored, place, _ = checkpoints.restore(7, state)
    jax.tree.map(np.testing.assert_array_equal, restored, state)
    assert place == {"a": 1}


class _Bucket:
    """A bucket that counts the saves."""

    count = 0

    def saved(self) -> None:
        self.count += 1


def test_another_process_writes_nothing_and_knows_what_was_saved(tmp_path, monkeypatch):
    monkeypatch.setattr(agree, "is_first", lambda: False)
    bucket = _Bucket()
    with RunCheckpoints(tmp_path, bucket=bucket) as checkpoints:
        checkpoints.save(10, _state(), place={}, record={}, score=0.5)
        # Else it would save the same step again, for a stop, while the first does not.
        assert checkpoints.latest_step() == 10
        checkpoints.save_interrupted(13, _state(), place={}, record={})
        assert checkpoints.latest_step() == 13
    assert bucket.count == 2
    assert not any(path.name.isdigit() for path in tmp_path.rglob("*"))
