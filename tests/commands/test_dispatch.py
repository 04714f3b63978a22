"""Predict and evaluate use what the workdir holds; changes of it are not ignored."""

import pytest
from absl.testing import flagsaver

from unet_jax.commands import dispatch
from unet_jax.commands.flags import FLAGS
from unet_jax.configs import smoke
from unet_jax.errors import InputError


@pytest.mark.parametrize(
    ("change", "refused"),
    [
        ({"eval.mirror": True}, "--config.eval.mirror: found True, but --mode=predict"),
        ({"eval.mirror": False}, None),
        ({"eval.overlap": 0.25}, None),
        ({"train.steps": 7}, None),
        ({}, None),
    ],
)
def test_a_change_that_would_do_nothing_is_refused(
    monkeypatch, tmp_path, change, refused
):
    monkeypatch.setattr(dispatch, "remembered_config", lambda _: smoke.get_config())
    config = smoke.get_config()
    config.update_from_flattened_dict(change)
    changes = [f"--config.{key}={value}" for key, value in change.items()]
    if not FLAGS.is_parsed():
        FLAGS(["unet_jax"])
    with flagsaver.flagsaver(mode="predict"):
        if refused is None:
            dispatch._refuse_unused(config, changes, tmp_path)
            return
        with pytest.raises(InputError, match=refused):
            dispatch._refuse_unused(config, changes, tmp_path)
