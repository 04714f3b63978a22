"""Runs on label maps alone, from the folder to the scores; what training may read."""

import contextlib
import itertools
import json

import nibabel
import numpy as np
import pytest

from unet_jax.commands.evaluate import evaluate_run
from unet_jax.commands.predict import predict_files
from unet_jax.commands.train import train_and_evaluate
from unet_jax.commands.verify import verify
from unet_jax.configs import folder
from unet_jax.experiment.data import create_batches
from unet_jax.experiment.run import create_run

pytestmark = pytest.mark.usefixtures("one_device", "no_figures")

SMALL = {
    "model.name": "unet_tiny",
    "data.dims": 2,
    "data.class_names": ("background", "shell", "core"),
    "data.label_map": ((0, 0), ((3, 8), 1), ((42, 43), 2), (507, 0)),
    "data.sub_labels": ((43, 1), (507, 1)),
    "augment.synthesis": True,
    "augment.synthesis_probability": 1.0,
    "augment.synthesis_like_real_probability": 0.0,
    "train.patch_size": (32, 32),
    "train.batch_size": 4,
    "train.steps": 4,
    "eval.every_steps": 2,
    "eval.train_images": 2,
    "eval.mirror": False,
    "log.overlays": 0,
    "optimizer.warmup_steps": 2,
}


def _config(path, **changes):
    config = folder.get_config()
    config.data.path = str(path)
    config.update_from_flattened_dict({**SMALL, "data.labels_only": True, **changes})
    return config.lock()


def _head(seed, size=(40, 36, 6)):
    """Make a label map: a core of two parts, a shell, and skin around it."""
    rng = np.random.default_rng(seed)
    x, y, z = np.indices(size)
    middle = np.array(size) / 2 + rng.uniform(-2, 2, 3)
    radius = np.hypot(x - middle[0], y - middle[1]) + np.abs(z - middle[2])
    inner = np.where(y > middle[1], 42, 43)
    grow = rng.uniform(0, 2)
    return np.select(
        [radius < 6 + grow, radius < 9 + grow, radius < 12 + grow], [inner, 3, 507]
    ).astype(np.int16)


def _write(path, array):
    path.parent.mkdir(parents=True, exist_ok=True)
    nibabel.save(nibabel.Nifti1Image(array, np.diag([1.0, 1.0, 2.0, 1.0])), path)


@pytest.mark.slow
def test_label_maps_are_verified_trained_resumed_scored_and_a_scan_predicted(
    tmp_path, capsys
):
    for number in range(5):
        _write(tmp_path / f"maps/{number}.nii.gz", _head(number))
    config, workdir = _config(tmp_path / "maps"), tmp_path / "run"
    assert len(verify(config)) == 5
    results = train_and_evaluate(config, workdir)
    assert "scores: of images drawn from label maps" in capsys.readouterr().out
    assert results["images"] == "drawn"
    assert set(results["per_class"]) == {"shell", "core"}
    scores = workdir / "test_metrics.json"
    before = scores.read_bytes()
    scores.unlink()
    evaluate_run(workdir)
    assert scores.read_bytes() == before
    longer = _config(tmp_path / "maps", **{"train.steps": 5})
    train_and_evaluate(longer, workdir)
    rows = [
        json.loads(row) for row in (workdir / "metrics.jsonl").read_text().splitlines()
    ]
    assert rows[-1]["step"] == 5
    scan = np.random.default_rng(0).normal(300, 90, (38, 41, 5)).astype(np.float32)
    scan[:8] = 0
    _write(tmp_path / "scan.nii.gz", scan)
    scan_file = str(tmp_path / "scan.nii.gz")
    predict_files(workdir, input_path=scan_file, output_folder=str(tmp_path / "out"))
    label = np.asarray(nibabel.load(tmp_path / "out/scan.nii.gz").dataobj)
    assert label.shape == scan.shape
    assert set(np.unique(label)) <= {0, 1, 2}


def _what_training_reads(path, workdir, **changes):
    """Return the config, how images are normalised, and the first batches."""
    run = create_run(_config(path, **changes), workdir)
    batches = create_batches(run.config, run.seen["train"], run.preprocessing, workdir)
    with contextlib.closing(batches):
        pixels = [
            batch[name].tobytes()
            for batch in itertools.islice(batches, 3)
            for name in sorted(batch)
        ]
    config = run.config.to_dict()
    del config["data"]["path"]
    return config, run.preprocessing, pixels


@pytest.mark.parametrize("labels_only", [True, False])
def test_no_voxel_of_validation_or_test_reaches_training(tmp_path, labels_only):
    splits = {"train": ["0", "1"], "validation": ["2"], "test": ["3"]}
    (tmp_path / "splits.json").write_text(json.dumps(splits))
    changes = {
        "data.splits": str(tmp_path / "splits.json"),
        "data.labels_only": labels_only,
    }
    found = {}
    for name, others in {"one": (), "unseen": (2, 3), "trained": (0,)}.items():
        for number in range(4):
            seed = number + 10 * (number in others)
            masks = tmp_path / name / ("" if labels_only else "masks")
            _write(masks / f"{number}.nii.gz", _head(seed))
            if not labels_only:
                image = np.random.default_rng(seed).normal(100, 20, (40, 36, 6))
                _write(tmp_path / name / f"images/{number}.nii.gz", image)
        found[name] = _what_training_reads(
            tmp_path / name, tmp_path / f"run_{name}", **changes
        )
    assert found["one"] == found["unseen"]
    assert found["one"][-1] != found["trained"][-1]
