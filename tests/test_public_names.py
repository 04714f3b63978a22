"""``import unet_jax``: the public names, and what importing them does."""

import ast
import inspect
import pathlib
import re
import subprocess
import sys

import pytest

import unet_jax

NAMES = [
    "Case",
    "IGNORE",
    "InputError",
    "MedNeXt",
    "SegResNet",
    "SwinUNETR",
    "UNet",
    "WNet",
    "augment",
    "evaluate",
    "load",
    "losses",
    "metrics",
    "sliding_window",
    "train",
]
"""The names that docs/api.md calls stable: a change of this list is one of the API."""


def test_the_public_names_are_these():
    assert dir(unet_jax) == NAMES
    assert sorted(unet_jax.__all__) == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_every_name_resolves_and_says_what_it_is(name):
    found = getattr(unet_jax, name)
    assert getattr(unet_jax, name) is found
    if name != "IGNORE":
        assert inspect.getdoc(found)


def test_a_name_that_is_not_public_is_an_attribute_error():
    with pytest.raises(AttributeError, match="'unet_jax' has no attribute 'UNett'"):
        unet_jax.UNett  # noqa: B018


def test_a_function_is_an_attribute_of_its_room():
    for room in (unet_jax.augment, unet_jax.losses, unet_jax.metrics):
        for name in room.__all__:
            assert getattr(room, name).__module__.startswith(room.__name__)


def test_type_checkers_see_what_is_loaded():
    tree = ast.parse(pathlib.Path(unet_jax.__file__).read_text())
    (block,) = (node for node in tree.body if isinstance(node, ast.If))
    assert ast.unparse(block.test) == "TYPE_CHECKING"
    seen = {
        alias.name: node.module
        for node in ast.walk(block)
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    assert sorted(seen) == NAMES
    for name, module in seen.items():
        if module != "unet_jax":
            assert module == f"unet_jax.{unet_jax._MODULE_OF[name]}"


def test_importing_changes_nothing_and_loads_no_jax():
    code = """
import os, sys, warnings
before = dict(os.environ), list(warnings.filters), set(sys.modules)
import unet_jax
assert dict(os.environ) == before[0]
assert list(warnings.filters) == before[1]
dir(unet_jax)
new = {name.partition(".")[0] for name in set(sys.modules) - before[2]}
print(sorted(new & {"absl", "flax", "jax", "jaxlib", "ml_collections", "numpy"}))
from unet_jax import IGNORE
print(IGNORE, "jax" in sys.modules)
from unet_jax import UNet
print("jax" in sys.modules, dict(os.environ) == before[0])
import jax
print(jax._src.xla_bridge._backends)
"""
    answer = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    )
    # Not even a network starts a backend: a notebook can still choose its devices.
    assert answer.stdout.splitlines() == ["[]", "-1 False", "True True", "{}"]


def test_the_page_explains_every_name():
    page = (pathlib.Path(unet_jax.__file__).parents[1] / "docs/api.md").read_text()
    table = page[page.index("## Names of") :]
    assert set(NAMES) <= set(re.findall(r"`(\w+)`", table))
