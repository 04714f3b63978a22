import pathlib
import re
import sys

import jax.numpy as jnp
import numpy as np

from unet_jax import losses
from unet_jax.losses.table import LOSSES
from unet_jax.losses.terms import create_loss_terms

PAGE = pathlib.Path(__file__).parents[2] / "docs" / "losses.md"


def test_the_page_has_every_loss_and_no_other():
    rows = re.findall(r"^\| `(\w+)` \|", PAGE.read_text(), flags=re.MULTILINE)
    assert rows == [loss.name for loss in LOSSES]


def _example(word):
    code = re.findall(r"```python\n(.*?)```", PAGE.read_text(), flags=re.DOTALL)
    (found,) = [one for one in code if word in one]
    return found


def test_the_example_of_a_loop_runs():
    names = {"logits": jnp.zeros((1, 2, 2, 2)), "labels": np.array([[[0, 1], [1, -1]]])}
    exec(_example("losses.reduce"), names)
    np.testing.assert_allclose(names["loss"], np.log(2), rtol=1e-6)


def test_the_example_of_a_users_own_loss_runs(tmp_path, monkeypatch):
    (tmp_path / "my_losses.py").write_text(_example("my_losses.py"))
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    (spec,) = re.findall(r"--config\.loss='(.*my_losses:.*)'", PAGE.read_text())
    terms = create_loss_terms(eval(spec), num_classes=2, patch_size=(2, 2))
    monkeypatch.delitem(sys.modules, "my_losses")
    (term,) = terms
    assert term.kind == "pixel"
    labels = np.array([[[0, 1], [1, -1]]])
    values = term.function(logits=jnp.zeros((1, 2, 2, 2)), labels=labels)
    # Both classes are off by 1/2; the power is that of the command.
    np.testing.assert_allclose(losses.reduce(values, labels), 2 * 0.5**1.5, rtol=1e-6)
