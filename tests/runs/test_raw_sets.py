"""Raw data sets of five kinds go through every command with nothing but a path."""

import json

import numpy as np
import pytest

from tests.runs.raw_sets import SETS
from unet_jax.data.files.read import read_image, read_label

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("one_device", "no_figures")]

SMALL = (
    *("--config.model.base_features=4", "--config.model.max_features=8"),
    *("--config.train.memory_gib=0.002", "--config.train.steps=4"),
    *("--config.augment.enabled=False", "--config.eval.mirror=False"),
    *("--config.data.folds=2", "--config.eval.distance=False"),
    *("--config.train.max_patch=8", "--config.data.test_fraction=0"),
    "--config.eval.temperature=None",
)
"""What the defaults would need minutes for; none of it says what the data are."""

EXPECTED = {
    "pictures": ({"class_1"}, (24, 28), (0, 255)),
    "regions": ({"whole", "core", "top"}, (20, 18, 16), (0, 1, 2, 3)),
    "thick slices": ({"a"}, (26, 24, 6), (0, 1, 2)),
    "dicom": ({"organ", "core"}, (18, 20, 6), (0, 1, 2)),
    "partly labelled": ({"organ", "core"}, (20, 18, 16), (0, 1, 2)),
}
"""Names that are scored, the size of an image, and the values of the masks."""


@pytest.mark.parametrize("kind", SETS)
def test_a_raw_set_is_verified_planned_cross_validated_and_predicted(
    kind, tmp_path, command_line
):
    names, size, values = EXPECTED[kind]
    images = SETS[kind](tmp_path / "set", cases=5)
    given = ["--config=folder", f"--config.data.path={tmp_path / 'set'}"]
    if kind == "partly labelled":
        table = tmp_path / "set" / "labelled.csv"
        given.append(f"--config.data.labelled_classes={table}")

    def call(mode, *arguments):
        answer = command_line(f"--mode={mode}", *arguments)
        assert not answer.code, answer.stderr
        return answer.stdout

    lines = call("verify", *given).splitlines()
    assert lines[-1].split() == ["verified", "5", "cases,", "no", "problems"]
    found = ", ".join(map(str, values))
    assert any(f"mask {found};" in line for line in lines)
    plan = call("plan", *given, f"--output={tmp_path / 'plan'}")
    assert (tmp_path / "plan" / "2d.py").is_file()
    assert ("3d_fullres.py" in plan) == (len(size) == 3)
    workdir = f"--workdir={tmp_path / 'cv'}"
    call("crossvalidate", *given, *SMALL, workdir)
    results = json.loads((tmp_path / "cv" / "crossvalidation.json").read_text())
    assert results["pooled"]["per_class"].keys() == names
    assert np.isfinite(results["pooled"]["mean"]["dice"])
    if kind == "pictures":
        again = call("crossvalidate", workdir)  # which remembers its config
        assert "cv is complete: nothing to do" in again
    call("predict", workdir, f"--input={images}", f"--output={tmp_path / 'out'}")
    label = read_label(next(tmp_path.glob("out/*0*.*g*")))
    assert label.image.shape == (*size, 1)
    assert label.image.max() <= len(values) - 1
    if kind == "dicom":
        image = read_image(images)
        np.testing.assert_allclose(label.affine, image.affine, atol=1e-5)
