"""Options of the network, from config files, command lines and old workdirs."""

import pytest
from ml_collections import ConfigDict

from unet_jax.configs import base, smoke
from unet_jax.errors import InputError
from unet_jax.experiment.check import check_config
from unet_jax.experiment.config_file import load_config, override
from unet_jax.experiment.network import create_network
from unet_jax.experiment.options import given_options, split_options
from unet_jax.experiment.record import check_same_run, flat_config
from unet_jax.experiment.renamed import current_arguments, current_config, rename_keys
from unet_jax.models.unet import UNet

OLD = {
    "name": "unet_tiny",
    "features": [4, 8],
    "attention": True,
    "norm": None,
    "dropout": None,
    "clusters": None,
    "head": "softmax",
}
"""Section ``model`` of a config.json of version 0.1."""


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("True", True),
        ("false", False),
        ("None", None),
        ("batch", "batch"),
        ("'batch'", "batch"),
        ("0.25", 0.25),
        ("(4, 8)", (4, 8)),
        ("((1, 3), 3)", ((1, 3), 3)),
        ("4,8", (4, 8)),
        ("a=b", "a=b"),
    ],
)
def test_the_command_line_gives_any_option(text, value):
    config = smoke.get_config()
    override(config, [f"--config.model.options.it={text}", "--config.seed=3"])
    assert config.model.options.it == value
    assert config.seed == 3
    assert config.is_locked


def test_what_is_no_name_of_an_option_is_refused():
    for name in ("", "a.b", "features[0]"):
        with pytest.raises(InputError, match="expected one name such as"):
            split_options([f"--config.model.options.{name}=1"])


def test_options_reach_the_network():
    config = smoke.get_config()
    config.model.options = {"features": [4, 8], "norm": None}
    override(config, ["--config.model.options.attention=True"])
    assert given_options(config) == {"features": (4, 8), "attention": True}
    network = create_network(config.lock(), axis_name=None).network
    assert network == UNet(num_classes=4, features=(4, 8), attention=True)


def test_a_wrong_option_is_refused_with_those_there_are():
    config = smoke.get_config()
    config.model.options.atention = True
    with pytest.raises(InputError, match=r"did you mean 'attention'\? It has features"):
        create_network(config.lock(), axis_name=None)


def test_another_key_of_the_model_is_refused_with_the_place_of_options():
    config = smoke.get_config()
    config.model.attention = True
    with pytest.raises(InputError, match=r"network is --config\.model\.options\.att"):
        check_config(config.lock())


def test_old_keys_are_read_from_the_command_line():
    given = ["--config.model.attention=True", "--config.model.name=unet_tiny"]
    arguments, (advice,) = current_arguments(given)
    assert arguments == ["--config.model.options.attention=True", given[1]]
    assert advice.startswith("config.model.attention is now config.model.options.att")


def test_old_keys_are_read_from_a_config_file(tmp_path, capsys):
    path = tmp_path / "mine.py"
    path.write_text(
        "from unet_jax.configs import base\n\n\ndef get_config():\n"
        "    config = base.get_config()\n    config.model.norm = 'batch'\n"
        "    config.data.test_share = 0.3\n    return config\n"
    )
    config = load_config(path)
    assert config.model.options.to_dict() == {"norm": "batch"}
    assert config.data.test_fraction == 0.3
    assert "norm" not in config.model
    assert "test_share" not in config.data
    assert "config.model.norm is now config.model.opt" in capsys.readouterr().err
    assert rename_keys(config) == []
    path.write_text(path.read_text().replace("return config", "return config.lock()"))
    assert load_config(path).to_dict() == config.to_dict()
    assert load_config(path).is_locked


def test_old_workdirs_are_read_and_go_on(tmp_path):
    record = {"config": current_config({"model": OLD}), "dataset": {}}
    model = record["config"]["model"]
    assert model["options"] == {"features": [4, 8], "attention": True}
    assert set(model) == {"name", "options", "clusters", "head"}
    assert "options" not in OLD
    config = {"model": {**model, "options": {"features": (4, 8), "attention": True}}}
    check_same_run(tmp_path, record, config, {})
    config["model"]["options"]["norm"] = "batch"
    with pytest.raises(InputError, match=r"has model.options.norm=None, this config"):
        check_same_run(tmp_path, record, config, {})


def test_a_preset_without_options_of_an_old_workdir_has_none():
    config = ConfigDict(current_config({"model": {"name": "unet_tiny", "norm": None}}))
    assert given_options(config) == {}
    assert "model.options" not in flat_config(base.get_config().to_dict())
