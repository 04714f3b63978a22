import ast
import importlib
import pathlib

import pytest

from unet_jax.augment.policy import default_options
from unet_jax.configs import base
from unet_jax.errors import InputError
from unet_jax.experiment.check import check_config
from unet_jax.experiment.options import given_options
from unet_jax.models.presets import check_options

FOLDER = pathlib.Path(base.__file__).parent
NAMES = sorted(p.stem for p in FOLDER.glob("*.py") if p.stem != "__init__")


def _flat(config, prefix=""):
    for key, value in config.items():
        if hasattr(value, "items"):
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}"


def test_every_key_says_what_it_means():
    assert set(base.KEYS) == set(_flat(base.get_config()))
    for name, key in base.KEYS.items():
        assert len(key.meaning) > 5 or key.choices, name


def test_defaults_keep_their_own_limits():
    for name, key in base.KEYS.items():
        if key.choices:
            assert key.default in key.choices, name
        if isinstance(key.default, int | float):
            assert key.low <= key.default <= key.high, name


def test_augmentation_keys_are_the_options_with_their_defaults():
    augment = base.get_config().augment.to_dict()
    assert augment.pop("enabled") is True
    assert augment.pop("extra") == ()
    assert augment.pop("synthesis") is False
    assert augment.pop("previous_operator_probability") == 0.4
    assert augment.pop("previous_removal_probability") == 0.2
    assert augment == default_options()


@pytest.mark.parametrize("name", NAMES)
def test_every_config_is_base_plus_differences_and_can_run(name):
    config = importlib.import_module(f"unet_jax.configs.{name}").get_config()
    assert config.name == name
    keys = {key for key in _flat(config) if not key.startswith("model.options.")}
    assert keys == set(_flat(base.get_config()))
    check_config(config)
    check_options(config.model.name, given_options(config))


@pytest.mark.parametrize("name", [n for n in NAMES if n != "base"])
def test_every_config_names_its_command(name):
    source = (FOLDER / f"{name}.py").read_text()
    docstring = ast.get_docstring(ast.parse(source))
    assert f"python -m unet_jax.main --config=configs/{name}.py" in docstring


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("data.class_names", ("a",), "data.class_names: found"),
        ("data.class_names", ("a", "a"), "data.class_names: found"),
        ("data.class_colors", ((0, 0, 0),), "found 1 colours for 2 classes"),
        ("train.patch_size", (8,), "train.patch_size: found"),
        ("train.patch_size", (8, 0), r"train.patch_size: found \(8, 0\), expected 2"),
        ("data.class_colors", ((0, 0, 0), (1, 2)), r"data.class_colors\[1\]: found"),
        ("data.class_colors", ((0, 0, 0), (1, 2, 256)), r"data.class_colors\[1\]"),
        ("data.slice_axis", 7, "data.slice_axis: found 7, expected 0 to 2"),
        (
            "data.spacing",
            (1,),
            r"data.spacing: found \(1,\), expected 3",
        ),
        ("data.spacing", "mean", "data.spacing: found 'mean'"),
        ("data.size", (0, 5), r"data.size: found \(0, 5\), expected 2 whole numbers"),
        ("optimizer.learning_rate", float("nan"), "learning_rate: found nan"),
        (
            "train.early_stopping_patience",
            -1,
            "patience: found -1, expected at least 0",
        ),
        ("train.steps", 0, "train.steps: found 0, expected at least 1"),
        ("eval.overlap", 1.0, "eval.overlap: found 1.0"),
        ("data.foreground_oversampling", -0.1, "data.foreground_oversampling: found"),
        ("seed", -3, "seed: found -3"),
    ],
)
def test_values_out_of_range_are_refused(key, value, message):
    config = base.get_config()
    config.update_from_flattened_dict({key: value})
    with pytest.raises(InputError, match=message):
        check_config(config)


@pytest.mark.parametrize(
    "key", [name for name, key in base.KEYS.items() if key.from_data]
)
def test_only_the_folder_source_may_leave_a_value_to_the_data(key):
    config = importlib.import_module("unet_jax.configs.folder").get_config()
    check_config(config)
    section, _, name = key.rpartition(".")
    assert config[section][name] is None
    with pytest.raises(InputError, match="found None, expected a value; only"):
        check_config(config, complete=True)
    config.data.source = "tfds"
    with pytest.raises(InputError, match="found None, expected a value; only"):
        check_config(config)


def test_the_last_checkpoint_is_not_chosen_with_early_stopping():
    config = base.get_config()
    config.eval.choose = "last"
    check_config(config)
    config.train.early_stopping_patience = 3
    with pytest.raises(InputError, match=r"early_stopping_patience.*eval\.choose"):
        check_config(config)
