"""The W-Net of a comparison: its config, and the trained method."""

import numpy as np
import pytest

from unet_jax.commands.compare_w_net import make_w_net_config, train_w_net
from unet_jax.configs import brain_slab, smoke
from unet_jax.experiment.check import check_config
from unet_jax.losses.terms import reads_labels


def test_the_config_needs_no_labels_for_any_run():
    config = brain_slab.get_config()
    config.model.name = "unet_base"
    config.model.options.attention = True
    config.model.head = "sigmoid"
    config.train.patch_size = (32, 128, 128)
    config.train.ema_decay = 0.9
    config.data.slice_axis = 1
    config.compare.w_net_steps = 7
    config.lock()
    before = config.to_dict()
    made = make_w_net_config(config)
    assert config.to_dict() == before
    check_config(made, complete=True)
    assert not reads_labels(made.loss)
    assert made.data.foreground_oversampling == 0
    assert made.train.patch_size == (32, 64)
    assert made.train.steps == 7
    assert made.model.clusters == 16
    assert made.model.options.to_dict() == {"features": (8, 16), "norm": "batch"}
    unchanged = ("class_names", "name", "intensity", "slice_axis", "spacing")
    assert all(made.data[key] == config.data[key] for key in unchanged)


@pytest.mark.slow
@pytest.mark.usefixtures("one_device", "no_figures")
def test_it_trains_in_its_own_folder_and_is_not_trained_twice(tmp_path, capsys):
    config = smoke.get_config()
    config.data.data_dir = str(tmp_path / "data")
    config.eval.train_images = 8
    config.eval.distance = False
    config.log.overlays = 0
    config.compare.w_net_steps = 2
    config.lock()
    predict_fn, chosen = train_w_net(config, tmp_path / "run")
    assert (tmp_path / "run" / "compare" / "w_net" / "clusters.json").exists()
    assert len(chosen["clusters_of_class"]) == 4
    image = np.full((40, 50, 3, 1), 90, np.uint8)
    labels = predict_fn(image, (1.0, 1.0, 1.0), reference=((150.0, 30.0),))
    assert labels.shape == (40, 50, 3)
    assert labels.max() < 4
    capsys.readouterr()
    _, again = train_w_net(config, tmp_path / "run")
    assert again == chosen
    assert "is complete" in capsys.readouterr().out
