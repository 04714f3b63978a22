"""The cases agree with docs and configs; no package of a peer is imported here."""

import ast
import importlib
import json
import pathlib
import re

import jax
import pytest

from benchmarks import catalogue
from benchmarks.catalogue import CASES
from benchmarks.ours import nets
from benchmarks.turns import ROOT
from unet_jax.configs import brain_slab
from unet_jax.experiment.network import create_network

NAMES = {case.benchmark: case for case in CASES}


def test_every_benchmark_of_the_page_is_there():
    page = (ROOT / "docs" / "performance.md").read_text()
    named = re.findall(r"^\| `(\w+)` \|", page, flags=re.MULTILINE)
    assert named == list(NAMES)


def test_names_of_cases_are_their_own_and_options_go_through_a_pipe():
    keys = [(case.benchmark, case.name) for case in CASES]
    assert len(set(keys)) == len(keys)
    for case in CASES:
        options = {**case.options, **case.peer_options}
        assert json.loads(json.dumps(options)) == options


@pytest.mark.parametrize("module", sorted({case.ours for case in CASES}))
def test_our_side_of_every_case_can_be_imported(module):
    assert callable(importlib.import_module(module).prepare)


@pytest.mark.parametrize("module", sorted({case.peer for case in CASES}))
def test_the_peers_side_takes_the_same_options_and_nothing_of_ours(module):
    tree = ast.parse((ROOT / f"{module.replace('.', '/')}.py").read_text())
    functions = {
        node.name: node for node in tree.body if isinstance(node, ast.FunctionDef)
    }
    taken = {argument.arg for argument in functions["prepare"].args.kwonlyargs}
    for case in CASES:
        if case.peer == module:
            given = {"folder", "mode", *case.options, *case.peer_options}
            assert taken == given


def _imports(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom):
            yield node.module
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)


@pytest.mark.parametrize(
    ("folder", "forbidden"),
    [
        ("peers", ("unet_jax", "jax", "flax", "configs", "benchmarks.ours")),
        ("ours", ("torch", "monai", "batchgeneratorsv2", "benchmarks.peers")),
    ],
)
def test_no_side_imports_the_other(folder, forbidden):
    for path in sorted((pathlib.Path(ROOT) / "benchmarks" / folder).glob("*.py")):
        for name in _imports(path):
            wrong = [one for one in forbidden if f"{name}.".startswith(f"{one}.")]
            assert not wrong, f"{path} imports {name}"


def test_the_brain_case_is_the_brain_config():
    work, config = catalogue._BRAIN, brain_slab.get_config()
    assert tuple(work["patch"]) == config.train.patch_size
    assert work["batch"] == config.train.batch_size
    assert work["classes"] == len(config.data.class_names)
    for key, value in work["optimizer"].items():
        assert config.optimizer[key] == value
    named = create_network(config, axis_name=None)
    ours = create_network(nets.config_of(work), axis_name=None)
    image = jax.ShapeDtypeStruct((1, *work["patch"], work["channels"]), "float32")
    shapes = [
        jax.eval_shape(net.init, jax.random.key(0), image) for net in (named, ours)
    ]
    assert shapes[0] == shapes[1]
    named, ours = named.network, ours.network
    assert (named.norm, named.activation) == (ours.norm, ours.activation)


def test_the_peers_script_of_the_brain_run_has_its_numbers():
    path = ROOT / "benchmarks" / "peers" / "brain_script.py"
    values = {}
    for node in ast.parse(path.read_text()).body:
        if not isinstance(node, ast.Assign):
            continue
        (target,) = node.targets
        if isinstance(target, ast.Tuple):
            names = [element.id for element in target.elts]
            values |= dict(
                zip(names, map(ast.literal_eval, node.value.elts), strict=True)
            )
        elif target.id == "AUGMENT":
            values[target.id] = ast.literal_eval(node.value)
    config = brain_slab.get_config()
    assert values["PATCH"] == config.train.patch_size
    assert values["BATCH"] == config.train.batch_size
    assert values["STEPS"] == config.train.steps
    assert values["WARMUP"] == config.optimizer.warmup_steps
    assert values["PEAK"] == config.optimizer.learning_rate
    assert values["CLASSES"] == len(config.data.class_names)
    assert values["FEATURES"] == catalogue._BRAIN["network"]["features"]
    for key, value in values["AUGMENT"].items():
        assert config.augment[key] == value
    usual = {"flip_probability", "elastic_probability"}
    left = {key for key in config.augment if key.endswith("_probability")}
    left -= {*values["AUGMENT"], *usual}
    others = ("synthesis", "previous")
    assert all("channel" in key or key.startswith(others) for key in left)
    assert not config.augment.synthesis
    assert config.augment.flip_probability == 0.5
    assert config.augment.elastic_probability == 0
