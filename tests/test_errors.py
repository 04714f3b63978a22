"""Settings that messages propose can be pasted into a shell."""

import ast
import pathlib
import re
import shlex
import subprocess

import numpy as np
import pytest

from unet_jax.configs import base
from unet_jax.data.files.colors import ColorsError
from unet_jax.data.folder.traits import TiffAxesError
from unet_jax.data.label_map import LabelMap
from unet_jax.errors import InputError, setting
from unet_jax.experiment.config_file import override
from unet_jax.experiment.record import check_same_run
from unet_jax.losses.terms import create_loss_terms
from unet_jax.main import _one_line
from unet_jax.training.devices import check_batch_size
from unet_jax.training.images_alone import check_losses_of_images
from unet_jax.training.memory import StepMemory

ROOT = pathlib.Path(__file__).parents[1]


def _pasted(arguments):
    """Return a config with settings as a command line gives them."""
    config = base.get_config()
    override(config, arguments)
    return config


def _value(config, key):
    for part in key.split("."):
        config = config[part]
    return config


VALUES = {
    "data.palette": ((0, 0, 0), (255, 1, 2)),
    "data.label_map": (((0, 3), 1), (4, -1)),
    "data.class_names": ("it's", 'the "core"', "two  spaces", "$HOME `x`!"),
    "data.path": "/scans [2026]/it's/$x",
    "data.group_regex": r"^(p\d+)_",
    "data.spacing": (1.0, 0.5, 0.5),
    "data.stack": True,
    "data.dims": 3,
    "data.tiff_axes": "CYX",
    "loss": (("dice", 1.0, {"smooth": 1e-5}), ("focal", 0.5, {})),
    "eval.postprocess": (("min_size", 1, 20),),
    "train.batch_size": 16,
    "optimizer.learning_rate": 1e-4,
    "model.options.padding": "SAME",
    "model.options.features": (4, 8),
    "model.options.attention": False,
}


def test_a_shell_and_the_flags_give_every_value_back():
    line = " ".join(setting(key, value) for key, value in VALUES.items())
    script = f"for word in {line}; do printf '%s\\0' \"$word\"; done"
    shell = subprocess.run(["sh", "-c", script], capture_output=True, check=True)
    config = _pasted(shell.stdout.decode().split("\0")[:-1])
    assert {key: _value(config, key) for key in VALUES} == VALUES


def test_every_default_can_be_pasted():
    keys = {key: one.default for key, one in base.KEYS.items()}
    keys = {key: value for key, value in keys.items() if value is not None}
    line = " ".join(setting(key, value) for key, value in keys.items())
    config = _pasted(shlex.split(line))
    assert {key: _value(config, key) for key in keys} == keys


def test_spaces_of_a_setting_survive_the_printing_of_its_message():
    message = f"masks: found 2;\n   give {setting('data.class_names', ('a  b', 'c'))}"
    assert _one_line(message).endswith(
        'give --config.data.class_names=\'("a  b", "c")\''
    )


def _raised(function, *arguments, **options):
    """Return the message of a refusal."""
    with pytest.raises(InputError) as caught:
        function(*arguments, **options)
    return str(caught.value)


def _another_run():
    old = {"data": {"palette": [[0, 0, 0], [9, 9, 9]]}}
    record, new = {"config": old, "dataset": {}}, {"data": {"palette": ()}}
    return _raised(check_same_run, pathlib.Path("run"), record, new, {})


MESSAGES = {
    "colours": (
        lambda: str(ColorsError("a.png", {(255, 0, 0): 3, (0, 0, 0): 9})),
        {"data.palette": ((0, 0, 0), (255, 0, 0))},
    ),
    "one colour": (
        lambda: str(ColorsError("a.png", {(0, 0, 0): 9})),
        {"data.palette": ((0, 0, 0),)},
    ),
    "labels": (
        lambda: _raised(
            LabelMap(None, num_classes=2), np.array([0, 1, 255]), where="a"
        ),
        {"data.label_map": ((0, 0), (1, 1), (255, -1))},
    ),
    "instances": (
        lambda: _raised(LabelMap(None, num_classes=2), np.arange(40), where="a"),
        {"data.label_map": ((0, 0), ((1, 39), 1))},
    ),
    "axes": (lambda: str(TiffAxesError("a.tif", "CYX")), {"data.tiff_axes": "CYX"}),
    "another run": (_another_run, {"data.palette": ((0, 0, 0), (9, 9, 9))}),
    "devices": (
        lambda: _raised(check_batch_size, 9, devices=4, accumulation=1),
        {"train.batch_size": 8},
    ),
    "images alone": (
        lambda: _raised(
            check_losses_of_images,
            (("soft_ncut", 1.0, {}),),
            foreground_oversampling=0.5,
        ),
        {"data.foreground_oversampling": 0.0},
    ),
    "head": (
        lambda: _raised(
            create_loss_terms, (("bce", 1.0, {}),), head="softmax", num_classes=2
        ),
        {"model.head": "sigmoid"},
    ),
    "memory": (
        lambda: StepMemory(
            state=1,
            gradients=1,
            batch=1,
            batch_size=8,
            devices=1,
            accumulation=1,
            total=100,
            limit=60,
        ).advice(),
        {"train.batch_size": 4, "train.accumulation": 2},
    ),
}


@pytest.mark.parametrize("name", MESSAGES)
def test_what_a_message_proposes_is_taken(name):
    message, expected = MESSAGES[name]
    text = message()
    found = shlex.split(
        " ".join(re.findall(r"--config\.\S+=(?:'[^']*'|[^\s;,]+)", text))
    )
    assert found, text
    config = _pasted(found)
    assert {key: _value(config, key) for key in expected} == expected


_PROPOSAL = re.compile(
    r"\b(?:set|use|give|try|add|as|or|and) (?:config\.)?"
    r"(?:data|model|train|optimizer|eval|augment|compare|log)\.[a-z_.]+ ?=|label_map = "
)


def test_no_message_proposes_a_setting_in_another_form():
    wrong = []
    for path in sorted((ROOT / "unet_jax").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if not isinstance(node, ast.Raise | ast.JoinedStr | ast.Call):
                continue
            for text in _texts(node):
                if _PROPOSAL.search(text):
                    wrong.append(f"{path.relative_to(ROOT)}:{node.lineno}: {text}")
    assert wrong == []
    assert _PROPOSAL.search("a mask; set data.stack=False")


def _texts(node):
    """Yield the strings of a node, with {} for what is filled in."""
    if isinstance(node, ast.JoinedStr):
        yield "".join(
            part.value if isinstance(part, ast.Constant) else "{}"
            for part in node.values
        )
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.Constant) and isinstance(child.value, str):
            yield child.value
