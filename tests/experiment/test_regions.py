import pytest
from ml_collections import ConfigDict

from unet_jax.configs import folder
from unet_jax.errors import InputError
from unet_jax.experiment.check import check_config
from unet_jax.experiment.label_choices import fits_temperature
from unet_jax.experiment.network import score_channels
from unet_jax.experiment.regions import scored_names, with_regions

REGIONS = (("whole", (1, 2), 1), ("core", (2,), 2))


def _config(**changes) -> ConfigDict:
    config = folder.get_config()
    with config.unlocked():
        config.data.class_names = ("background", "a", "b")
        config.update_from_flattened_dict(changes)
    return config


def test_regions_of_the_data_choose_head_and_losses():
    config = _config()
    filled = with_regions(config, REGIONS)
    assert filled.model.head == "sigmoid"
    assert [name for name, *_ in filled.loss] == ["dice", "bce"]
    assert filled.data.regions == REGIONS
    assert score_channels(filled) == 3
    assert scored_names(filled) == ("whole", "core")
    assert fits_temperature(filled)
    check_config(filled)
    # Without them, or where the config wants classes, nothing changes.
    for one in (with_regions(config), with_regions(_config(**{"data.regions": ()}))):
        assert (one.model.head, one.loss) == (config.model.head, config.loss)
        assert fits_temperature(one)


def test_a_run_that_was_trained_on_classes_stays_so():
    recorded = {"data": {"class_names": ["background", "a", "b"]}}  # version 0.1
    assert with_regions(_config(), REGIONS, recorded).data.regions is None
    recorded["data"]["regions"] = REGIONS
    assert with_regions(_config(), (), recorded).data.regions == REGIONS


@pytest.mark.parametrize(
    ("loss", "message"),
    [
        (("lovasz_softmax", 1.0, {}), "expected 'lovasz_hinge' or 'dice'"),
        (
            ("cross_entropy", 1.0, {"label_smoothing": 0.1}),
            "'cross_entropy' with label_smoothing compares",
        ),
    ],
)
def test_losses_without_a_sigmoid_form_are_refused(loss, message):
    with pytest.raises(InputError, match=message):
        with_regions(_config(loss=(loss,)), REGIONS)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("data.include_background", True),
        ("data.labelled_classes", "some.csv"),
        ("eval.risk", ("a", 0.1)),
        ("eval.metrics", ("dice", "loss/bce")),
        ("loss", (("soft_ncut", 1.0, {}),)),
        ("data.regions", (("core", (2,), 1),)),
    ],
)
def test_what_does_not_go_with_regions_is_refused(key, value):
    config = _config(**{"data.regions": REGIONS})
    with config.unlocked(), config.ignore_type():
        config.update_from_flattened_dict({key: value})
    with pytest.raises(InputError, match=f"{key}: found"):
        check_config(config)
