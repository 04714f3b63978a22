"""A config that is written as Python is the config that it was."""

from unet_jax.configs import folder
from unet_jax.experiment.config_file import load_config
from unet_jax.experiment.config_writer import config_text

CHANGES = {
    "name": "mine",
    "data.path": '/data/it\'s "here"',
    "data.spacing": (0.5, 1.25, 3.0),
    "train.patch_size": (64, 64, 32),
    "loss": (("dice", 1.0, {"batch_dice": True}),),
    "model.options.kernel_sizes": ((3, 3, 1),) * 7,
}


def test_what_is_written_is_read_again(tmp_path):
    config = folder.get_config()
    config.update_from_flattened_dict(CHANGES)
    about = f"A plan of {config.data.path} and C:\\new."
    path = tmp_path / "mine.py"
    path.write_text(config_text(config, base="folder", about=about))
    assert load_config(path).to_dict() == config.to_dict()
    lines = path.read_text().splitlines()
    assert max(map(len, lines)) <= 88
    # Only what differs is written.
    keys = [line.split()[0] for line in lines if line.startswith("    config.")]
    assert sorted(keys) == sorted(f"config.{key}" for key in CHANGES)
