"""A bundle gives, without jax and this package, the label maps of --mode=predict."""

import pathlib
import subprocess
import sys

import nibabel
import numpy as np
import pytest
import yaml

from unet_jax.commands import export
from unet_jax.commands.export import export_run
from unet_jax.commands.import_nnunet import import_nnunet
from unet_jax.commands.predict import predict_files
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


def run_alone(bundle, *arguments):
    """Run run.py where neither jax nor this package can be imported."""
    command = [sys.executable, "-I", "-c", _ALONE, bundle / "run.py", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=120)


def check_card(card):
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
    made = run_alone(bundle, *names, "-o", tmp_path / "labels.nii.gz")
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
