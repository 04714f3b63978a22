"""The first stage of a cascade: copied, and predicting what it has not seen."""

import json
import types

import flax.linen as nn
import jax.numpy as jnp
import numpy as np
import pytest
from ml_collections import ConfigDict

from unet_jax.data.case import Case
from unet_jax.data.preprocess import Preprocessing
from unet_jax.errors import InputError
from unet_jax.experiment.previous_stage import (
    FOLDER,
    adopt_previous_stage,
    previous_stage_of,
)
from unet_jax.inference.forward import make_forward
from unet_jax.inference.segmenter import make_predict_fn

NAMES = ("background", "a", "b")


def _config(previous, **changes):
    data = {"previous_stage": str(previous), "class_names": NAMES, "orientation": ""}
    return ConfigDict({"data": {**data, **changes}, "augment": {"enabled": False}})


def _run(folder, *, ids=(), names=NAMES):
    """Write what a finished run has, as far as it is read."""
    (folder / "checkpoints/7").mkdir(parents=True)
    (folder / "checkpoints/7/weights").write_text(folder.name)
    (folder / "predictions").mkdir()
    record = {
        "format": 1,
        "config": {"data": {"class_names": names, "orientation": ""}},
        "preprocessing": {},
        "dataset": {"train": {"ids": ids}},
        "draws_version": 3,
        "labels_version": 2,
        "networks_version": 2,
    }
    (folder / "config.json").write_text(json.dumps(record))
    return folder


class _Constant(nn.Module):
    """A network whose probabilities are the same in every pixel."""

    probabilities: tuple[float, ...]

    @nn.compact
    def __call__(self, x, *, train=False):
        return 0 * x + jnp.log(jnp.array(self.probabilities))


def _segmenter(probabilities):
    preprocessing = Preprocessing(
        network_dims=2,
        slice_axis=2,
        spacing=None,
        size=None,
        crop_nonzero=False,
        intensity="zscore",
        channels=1,
    )
    return make_predict_fn(
        make_forward(_Constant(probabilities)),
        {},
        preprocessing,
        num_classes=3,
        patch_size=(2, 3),
        overlap=0.0,
        window_batch=1,
    )


PROBABILITIES = {
    "fold_0": (0.1, 0.5, 0.4),
    "fold_1": (0.1, 0.1, 0.8),
    "run": (0.1, 0.5, 0.4),
}


def _load(loaded):
    def load(folder):
        loaded.append(folder.name)
        segmenter = _segmenter(PROBABILITIES[folder.name])
        return types.SimpleNamespace(predict_fn=segmenter)

    return load


def _cases(*ids):
    return [
        Case(one, np.full((2, 3, 1), ord(one)), np.zeros((2, 3), int), None, one)
        for one in ids
    ]


def test_each_case_is_predicted_by_the_fold_that_did_not_train_on_it(tmp_path, capsys):
    _run(tmp_path / "cv/fold_0", ids=["a", "b"])
    _run(tmp_path / "cv/fold_1", ids=["c", "d"])
    config, loaded = _config(tmp_path / "cv"), []
    adopt_previous_stage(config, tmp_path / "second")
    stage = previous_stage_of(config, tmp_path / "second", _load(loaded))
    cases = _cases("a", "c", "e")
    stage.keep("train", cases)
    assert "warning" not in capsys.readouterr().out
    classes = {case.id: stage(case.image, None) for case in cases}
    # Fold 1 for a, fold 0 for c, and the mean of both for e.
    assert {one: set(found.flat) for one, found in classes.items()} == {
        "a": {2},
        "c": {1},
        "e": {2},
    }
    assert classes["a"].dtype == np.int16
    (new,) = _cases("x")
    assert set(stage(new.image, None).flat) == {2}
    assert loaded == ["fold_0", "fold_1"]
    # What is kept needs no network, in this process and in later ones.
    again = previous_stage_of(config, tmp_path / "second", _load(never := []))
    again.keep("train", cases)
    assert again(cases[1].image, None).tolist() == classes["c"].tolist()
    assert not never
    assert len(list((tmp_path / "second" / FOLDER / "labels").iterdir())) == 3


def test_a_single_run_warns_of_the_cases_that_it_trained_on(tmp_path, capsys):
    _run(tmp_path / "low", ids=["a", "b"])
    config = _config(tmp_path / "low")
    adopt_previous_stage(config, tmp_path / "second")
    kept = sorted(one.name for one in (tmp_path / "second" / FOLDER / "run").iterdir())
    assert kept == ["checkpoints", "config.json"]
    stage = previous_stage_of(config, tmp_path / "second", _load([]))
    stage.keep("train", _cases("a", "b", "c"))
    assert "warning: the first stage trained on 2 of these cases" in (
        capsys.readouterr().out
    )


def test_first_stages_that_do_not_fit(tmp_path):
    with pytest.raises(InputError, match="none holds no run, expected the workdir of"):
        adopt_previous_stage(_config(tmp_path / "none"), tmp_path / "second")
    low = _run(tmp_path / "low", names=("background", "bone", "b"))
    with pytest.raises(InputError, match=r"low has data.class_names=\('background',"):
        adopt_previous_stage(_config(low), tmp_path / "second")
    own = _run(tmp_path / "own")
    with pytest.raises(InputError, match="own is the --workdir itself"):
        adopt_previous_stage(_config(own), own)
    (own / "checkpoints/7/weights").unlink()
    (own / "checkpoints/7").rmdir()
    with pytest.raises(InputError, match="own has no checkpoint, expected a finished"):
        adopt_previous_stage(_config(own), tmp_path / "second")
    assert not (tmp_path / "second").exists()
    assert previous_stage_of(_config(""), tmp_path, _load([])) is None
