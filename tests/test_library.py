"""The programs of docs/library.md run."""

import pathlib
import re

import pytest

import unet_jax

PAGE = (pathlib.Path(__file__).parents[1] / "docs" / "library.md").read_text()
PROGRAMS = re.findall(r"```python\n(.*?)```", PAGE, flags=re.DOTALL)


def test_every_name_of_the_page_exists():
    for room, name in re.findall(r"\b(losses|augment)\.(\w+)", PAGE):
        assert name in getattr(unet_jax, room).__all__, f"{room}.{name}"
    for name in re.findall(r"unet_jax\.(?!configs)(\w+)", PAGE):
        assert name in unet_jax.__all__


def test_the_loop_of_ones_own_is_thirty_lines():
    lines = [line for line in PROGRAMS[-1].splitlines() if line.strip()]
    assert len(lines) <= 30


@pytest.mark.slow
def test_the_loop_of_ones_own_learns(capsys):
    assert len(PROGRAMS) == 3
    exec(compile(PROGRAMS[-1], "docs/library.md", "exec"), {})
    assert float(capsys.readouterr().out) > 0.85
