"""The notebooks run without warnings, and their texts agree with what they show."""

import json
import os
import pathlib
import re
from typing import Any

import nbformat
import pytest

ROOT = pathlib.Path(__file__).parents[2]
FOLDER = ROOT / "notebooks"
NOTEBOOKS = sorted(FOLDER.glob("*.ipynb"))

_OURS = ("JAX_NUM_CPU_DEVICES", "MPLBACKEND")
"""Variables of the tests, which a reader of a notebook does not have."""


def _run(name: str, monkeypatch, **values: str) -> dict[str, Any]:
    """Run a notebook in this interpreter; return the values of expressions at its end.

    Fails where a cell raises, or writes to stderr, where warnings go.
    """
    from nbclient import NotebookClient

    for variable in _OURS:
        monkeypatch.delenv(variable, raising=False)
    notebook = nbformat.read(FOLDER / name, as_version=4)
    asked = ", ".join(f"{key!r}: {value}" for key, value in values.items())
    last = f"import json\nprint(json.dumps({{{asked}}}))"
    notebook.cells.append(nbformat.v4.new_code_cell(last))
    client = NotebookClient(
        notebook,
        kernel_name="python3",
        timeout=300,
        resources={"metadata": {"path": str(FOLDER)}},
    )
    client.execute(env=dict(os.environ))
    assert not list(_stderr(notebook))
    return json.loads(notebook.cells[-1].outputs[0].text)


def _outputs(notebook):
    """All outputs of a notebook."""
    for cell in notebook.cells:
        yield from cell.get("outputs", ())


def _stderr(notebook):
    """Texts that cells wrote to stderr."""
    for output in _outputs(notebook):
        if output.output_type == "stream" and output.name == "stderr":
            yield output.text


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_is_kept_as_it_ran(path):
    notebook = nbformat.read(path, as_version=4)
    assert path.stat().st_size < 1_000_000
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in code] == list(range(1, len(code) + 1))
    assert {output.output_type for output in _outputs(notebook)} <= {
        *("stream", "execute_result", "display_data"),
    }
    assert not list(_stderr(notebook))
    texts = json.dumps([*map(dict, _outputs(notebook))])
    assert not re.search(r'[" (=](/tmp|/root|/home|/usr)/', texts)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_links_of_a_notebook_lead_to_files(path):
    notebook = nbformat.read(path, as_version=4)
    text = "\n".join(c.source for c in notebook.cells if c.cell_type == "markdown")
    for target in re.findall(r"\]\((?!https?:)([^)#]+)", text):
        assert (FOLDER / target).is_file(), target


def test_the_page_of_the_notebooks_names_each():
    page = (ROOT / "docs" / "notebooks.md").read_text()
    for path in NOTEBOOKS:
        assert f"(../notebooks/{path.name})" in page


@pytest.mark.slow
def test_two_steps_on_two_devices_have_the_same_losses(monkeypatch):
    found = _run(
        "your_data_your_loop.ipynb",
        monkeypatch,
        devices="jax.device_count()",
        difference="float(difference)",
        losses="pmap_losses",
        network="results['network']['mean']['dice']",
        threshold="results[\"Otsu's threshold\"]['mean']['dice']",
    )
    assert found["devices"] == 2
    assert found["difference"] < 1e-3
    assert found["losses"][-1] < 0.3 * found["losses"][0]
    assert found["network"] > 0.9 > found["threshold"]


@pytest.mark.slow
def test_a_u_net_is_better_than_every_threshold(monkeypatch):
    found = _run(
        "from_threshold_to_unet.ipynb",
        monkeypatch,
        dice="{name: result['mean']['dice'] for name, result in table.items()}",
        losses="[*curves, *shown]",
        cost="dict(zip(shown, relative.tolist()))",
    )
    dice = found["dice"]
    assert len(dice) == 10
    assert dice["U-Net"] == max(dice.values()) > 0.84
    # Uneven sensitivity: a threshold that follows it is better than one that does not.
    assert dice["Niblack"] > max(dice["fixed"], dice["Otsu"])
    assert dice["W-Net"] > 0.5
    # What the text says below the picture of the losses.
    small, large, far = found["cost"]["tversky_loss, beta 0.8"]
    assert small > 2 * large > far
    assert (
        found["cost"]["boundary_loss"][2] == found["cost"]["hausdorff_dt_loss"][2] == 1
    )


def test_the_notebook_has_a_formula_of_every_loss_and_metric():
    import unet_jax

    text = (FOLDER / "from_threshold_to_unet.ipynb").read_text()
    helpers = {"LossTerm", "create_loss_terms", "reduce"}
    named = set(unet_jax.losses.__all__) - helpers
    assert not [name for name in named if name not in text]
