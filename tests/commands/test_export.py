"""A bundle gives, without jax and this package, the label maps of --mode=predict."""

import json
import pathlib
import subprocess
import sys

import nibabel
import numpy as np
import pytest
import yaml
from PIL import Image

pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

from unet_jax.commands import export
from unet_jax.commands.crossvalidate import crossvalidate
from unet_jax.commands.export import export_run
from unet_jax.commands.import_nnunet import import_nnunet
from unet_jax.commands.predict import predict_files
from unet_jax.configs import folder
from unet_jax.errors import InputError
from unet_jax.experiment.ensemble import load_trained

pytestmark = pytest.mark.usefixtures("one_device", "no_figures")

MODEL = (
    pathlib.Path(__file__).parents[1]
    / "nnunet/trained/nnUNetTrainer__nnUNetPlans__3d_fullres"
)
_ALONE = """
import runpy, sys
class Refuses:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("jax", "flax", "unet_jax", "pickle5"):
            raise RuntimeError(f"run.py imports {name}")
sys.meta_path.insert(0, Refuses())
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


def _run(bundle, *arguments):
    """Run run.py where neither jax nor this package can be imported."""
    command = [sys.executable, "-I", "-c", _ALONE, bundle / "run.py", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=120)


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    """Squares on noise, and masks."""
    path = tmp_path_factory.mktemp("squares")
    for number in range(6):
        rng = np.random.default_rng(number)
        label = np.zeros((20, 27), np.uint8)
        label[5 + number : 14, 6:15] = 1
        image = np.clip(60 + 120 * label + rng.normal(0, 30, label.shape), 0, 255)
        for name, pixels in (("images", image.astype(np.uint8)), ("masks", label)):
            (path / name).mkdir(exist_ok=True)
            Image.fromarray(pixels).save(path / name / f"{number}.png")
    return path


@pytest.fixture(scope="module")
def folds(pictures, tmp_path_factory):
    """A cross-validation of two folds."""
    config = folder.get_config()
    config.update_from_flattened_dict(
        {
            "data.path": str(pictures),
            "data.folds": 2,
            "model.base_features": 4,
            "model.max_features": 8,
            "train.patch_size": (16, 16),
            "train.batch_size": 2,
            "train.steps": 3,
            "eval.every_steps": 3,
            "eval.train_images": 1,
            "eval.choose": "last",
            "log.overlays": 0,
            "optimizer.warmup_steps": 1,
        }
    )
    workdir = tmp_path_factory.mktemp("folds") / "run"
    crossvalidate(config.lock(), workdir)
    return workdir


def _indices(path):
    with Image.open(path) as picture:
        return np.asarray(picture), picture.getpalette()[:6]


@pytest.mark.slow
def test_folds_and_a_fold_give_the_label_maps_of_predict(folds, pictures, tmp_path):
    image = pictures / "images/0.png"
    for number, workdir in enumerate((folds, folds / "fold_0")):
        bundle, out = tmp_path / f"bundle_{number}", tmp_path / f"predicted_{number}"
        export_run(workdir, bundle)
        predict_files(workdir, input_path=str(image), output_folder=str(out))
        made = _run(
            bundle, image, "-o", tmp_path, "--probabilities", tmp_path / "p.npy"
        )
        assert made.returncode == 0, made.stderr
        labels, palette = _indices(tmp_path / "0.png")
        expected, colors = _indices(out / "0.png")
        _, probabilities = load_trained(workdir).predict(image, probabilities=True)
        best = np.sort(probabilities, axis=-1)
        sure = best[..., -1] - best[..., -2] > 1e-4
        np.testing.assert_array_equal(labels[sure], expected[sure])
        assert palette == colors
        found = np.load(tmp_path / "p.npy")
        np.testing.assert_allclose(found, probabilities, atol=1e-3)
        members = json.loads((bundle / "bundle.json").read_text())["members"]
        assert [one["model"] for one in members] == (
            ["model_0.onnx", "model_1.onnx"] if number == 0 else ["model.onnx"]
        )
        _check_card((bundle / "MODEL_CARD.md").read_text())
        rows = (out / "classes.csv").read_text().splitlines()
        warned = rows[1].endswith("yes")
        assert ("warning:" in made.stdout) == warned


def _check_card(card):
    _, metadata, text = card.split("---\n", 2)
    found = yaml.safe_load(metadata)
    assert found["pipeline_tag"] == "image-segmentation"
    assert found["license"] == "other"
    assert found["license_name"]
    assert found["license_link"]
    (entry,) = found["model-index"]
    (result,) = entry["results"]
    assert result["task"]["type"] == "image-segmentation"
    assert set(result["dataset"]) == {"type", "name"}
    assert {"type", "value"} <= set(result["metrics"][0])
    for heading in ("Data", "Scores", "Limits", "Licence"):
        assert f"## {heading}" in text
    assert "95 % intervals" in text or "There is no interval" in text


@pytest.mark.slow
def test_an_imported_nnunet_gives_the_volume_of_predict(tmp_path):
    workdir, bundle = tmp_path / "run", tmp_path / "bundle"
    import_nnunet(MODEL, workdir)
    export_run(workdir, bundle)
    run = load_trained(workdir)
    names = []
    rng = np.random.default_rng(0)
    affine = np.diag([-1.5, 1.0, 2.0, 1.0])  # another orientation and spacing
    affine[:3, 3] = 5, 6, 7
    for channel in range(run.preprocessing.channels):
        names.append(tmp_path / f"a_{channel:04d}.nii.gz")
        voxels = rng.integers(0, 900, (19, 24, 14)).astype(np.int16)
        voxels[:3] = 0
        nibabel.save(nibabel.Nifti1Image(voxels, affine), names[-1])
    given = str(names[0]) if len(names) == 1 else str(tmp_path)
    predict_files(workdir, input_path=given, output_folder=str(tmp_path / "out"))
    (written,) = (tmp_path / "out").glob("*.nii.gz")
    made = _run(bundle, *names, "-o", tmp_path / "labels.nii.gz")
    assert made.returncode == 0, made.stderr
    found, expected = (
        nibabel.load(path) for path in (tmp_path / "labels.nii.gz", written)
    )
    np.testing.assert_array_equal(found.affine, expected.affine)
    assert found.get_data_dtype() == expected.get_data_dtype()
    wrong = np.asarray(found.dataobj) != np.asarray(expected.dataobj)
    assert wrong.mean() < 1e-4
    assert len(np.unique(np.asarray(found.dataobj))) > 1


def test_an_output_that_exists_and_a_missing_package_are_refused(tmp_path, monkeypatch):
    with pytest.raises(InputError, match="exists, expected a new folder"):
        export_run(tmp_path, tmp_path)
    monkeypatch.setattr(export.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(InputError, match=r"pip install 'unet_jax\[export\]'"):
        export_run(tmp_path, tmp_path / "new")


@pytest.mark.slow
def test_run_py_refuses_in_one_line_what_it_cannot_read(folds, tmp_path):
    bundle = tmp_path / "bundle"
    export_run(folds / "fold_0", bundle)
    Image.new("RGB", (30, 30)).save(tmp_path / "rgb.png")
    (tmp_path / "series").mkdir()
    for given, message in (
        ("series", "DICOM and other formats are for unet_jax"),
        ("none.png", "no such file"),
        ("rgb.png", "found 3 channels; expected 1"),
    ):
        made = _run(bundle, tmp_path / given)
        assert made.returncode == 1
        assert message in made.stderr
        assert made.stderr.count("\n") == 1
