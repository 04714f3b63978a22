"""Tests that no pickle is ever loaded."""

import contextlib
import pickle
from pathlib import Path

import nibabel
import numpy as np
import pytest

from tests.bad_input.contents import Malicious
from tests.bad_input.given import SIZE, predict_command

pytestmark = pytest.mark.slow  # some 300 commands in all


def test_a_pickle_in_a_nifti_stays_one(place, command_line):
    volume = nibabel.Nifti1Image(np.ones((SIZE, SIZE, 2), np.int16), np.eye(4))
    code, content = 16, pickle.dumps(Malicious())  # 16 is "pypickle"
    volume.header.extensions.append(nibabel.nifti1.Nifti1Extension(code, content))
    (place / "a.nii").write_bytes(volume.to_bytes())
    answer = command_line(*predict_command(place, place / "a.nii"))
    assert answer.code == 0, answer.stderr
    assert not Path("malicious").exists()
    # It does make the file when it is loaded.
    with contextlib.closing(pickle.loads(content)):
        assert Path("malicious").exists()
    Path("malicious").unlink()


def test_no_module_loads_pickles():
    import ast

    import unet_jax

    loaders = {
        "pickle",
        "cPickle",
        "dill",
        "cloudpickle",
        "joblib",
        "shelve",
        "marshal",
    }
    modules = sorted(Path(unet_jax.__file__).parent.rglob("*.py"))
    assert len(modules) > 100
    for module in modules:
        for node in ast.walk(ast.parse(module.read_text())):
            names = []
            if isinstance(node, ast.Import):
                names = [alias.name.partition(".")[0] for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                names = [(node.module or "").partition(".")[0]]
            assert not loaders & set(names), module
            if isinstance(node, ast.keyword) and node.arg == "allow_pickle":
                assert isinstance(node.value, ast.Constant), module
                assert node.value.value is False, module
