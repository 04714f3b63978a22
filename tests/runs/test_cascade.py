"""A cascade: a network that sees the predictions of one of lower resolution."""

import dataclasses
import json
import shutil

import nibabel
import numpy as np
import pytest
from ml_collections import ConfigDict

from unet_jax.commands.predict import predict_files
from unet_jax.commands.train import train_and_evaluate
from unet_jax.configs import folder
from unet_jax.experiment.data import create_prepared_cases
from unet_jax.experiment.finished import load_run, open_run_data

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("one_device", "no_figures")]


def _config(path, **changes) -> ConfigDict:
    config = folder.get_config()
    config.data.path = str(path)
    small = {
        "data.dims": 3,
        "model.base_features": 4,
        "model.max_features": 8,
        "train.patch_size": (12, 12, 8),
        "train.memory_gib": 0.002,
        "train.batch_size": 2,
        "train.steps": 6,
        "eval.every_steps": 3,
        "eval.train_images": 1,
        "eval.mirror": False,
        "optimizer.warmup_steps": 1,
    }
    with config.ignore_type():
        config.update_from_flattened_dict({**small, **changes})
    return config.lock()


@pytest.fixture(scope="module")
def volumes(tmp_path_factory):
    """Volumes of five patients with two classes."""
    path = tmp_path_factory.mktemp("volumes")
    for seed in range(5):
        label = np.zeros((20, 22, 16), np.uint8)
        label[5:12, 6 + seed : 13 + seed, 4:11] = 1
        label[13:18, 3:9, 4:11] = 2
        noise = np.random.default_rng(seed).normal(200, 20, label.shape)
        for name, pixels in (("image", 100 * label + noise), ("label", label)):
            file = path / f"p{seed}/{name}.nii.gz"
            file.parent.mkdir(exist_ok=True)
            image = nibabel.Nifti1Image(pixels.astype(np.int16), np.eye(4))
            nibabel.save(image, file)
    return path


def test_two_stages_train_score_and_predict_from_one_workdir(volumes, tmp_path, capsys):
    low = tmp_path / "low"
    coarse = {"data.spacing": (2.0, 2.0, 2.0), "eval.distance": False}
    train_and_evaluate(_config(volumes, **coarse), low)
    second = tmp_path / "second"
    config = _config(volumes, **{"data.previous_stage": str(low)})
    train_and_evaluate(config, second)
    printed = capsys.readouterr().out
    assert "3 train cases predicted by the first stage" in printed
    assert "warning: the first stage trained on 3 of these cases" in printed
    labels = sorted((second / "previous_stage/labels").glob("*.npz"))
    assert len(labels) == 4  # of training and validation; nothing of the test split
    scan = volumes / "p0/image.nii.gz"
    first = load_run(low).predict(str(scan))
    shutil.rmtree(low)  # the second workdir has all that it needs

    run = load_run(second)
    member = run.predict_fn.members[0]
    seen = []
    spied = _spying(run, seen)
    spied.predict_fn(_pixels(scan), (1.0, 1.0, 1.0))
    assert seen[0].shape[-1] == 3
    # Windows have the classes of the first stage, each pixel at most one.
    assert {float(v) for w in seen for v in np.unique(w[..., 1:])} <= {0.0, 1.0}
    assert max(w[..., 1:].sum(-1).max() for w in seen) <= 1
    assert member.previous(_pixels(scan), (1.0, 1.0, 1.0)).tolist() == first.tolist()
    assert run.distance(str(scan)) is not None

    # Training sees what prediction sees.
    source = open_run_data(second).source("train")
    prepared = create_prepared_cases(
        run.config, source, run.preprocessing, tmp_path / "store", member.previous
    )
    trained_on = np.asarray(prepared[0].image)
    assert trained_on[..., 1:].any()
    predicted_on = member.scores(source[0].image, source[0].spacing, axis=0).image
    np.testing.assert_array_equal(np.asarray(predicted_on), trained_on)
    predict_files(second, input_path=str(scan), output_folder=str(tmp_path / "out"))
    assert (tmp_path / "out/image.nii.gz").exists()

    record = json.loads((second / "config.json").read_text())["config"]
    assert record["data"]["previous_stage"] == str(low)


def _pixels(scan):
    return np.asarray(nibabel.load(scan).dataobj)[..., None]


def _spying(run, seen):
    """Return the run with a network that keeps the windows which it is given."""
    (member,) = run.predict_fn.members

    def forward(variables, windows, wanted=None):
        seen.append(np.asarray(windows))
        return member.forward(variables, windows, wanted)

    members = (dataclasses.replace(member, forward=forward),)
    return dataclasses.replace(
        run, predict_fn=dataclasses.replace(run.predict_fn, members=members)
    )
