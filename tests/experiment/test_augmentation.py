"""The augment section of a config: options, and functions of the user's own."""

import pytest

from unet_jax.augment.policy import default_options
from unet_jax.configs import base
from unet_jax.errors import InputError
from unet_jax.experiment import run
from unet_jax.experiment.network import create_augmentation, crop_size

MODULE = """
def swap_rows(key, image, label, *, every=2):
    return image[::-1], label[::-1]
"""


def _config(**changes):
    config = base.get_config()
    config.augment.update(changes)
    return config


def test_the_defaults_of_the_config_are_those_of_the_classes():
    defaults = {**default_options(), "extra": (), "synthesis": False}
    assert create_augmentation(_config()) == defaults
    assert create_augmentation(_config(synthesis=True))["synthesis"]
    assert create_augmentation(_config(enabled=False)) is None


def test_only_thin_volumes_that_turn_need_larger_crops():
    config = _config(rotation_probability=1.0)
    for patch, larger in (((48, 48, 8), True), ((48, 48), False), ((32,) * 3, False)):
        config.train.patch_size = patch
        size = crop_size(config, None)
        assert (size[0] > patch[0]) == larger
        assert size[2:] == patch[2:]
    config.train.patch_size = (48, 48, 8)
    config.augment.enabled = False
    assert crop_size(config, (1.0, 1.0, 4.0)) == (48, 48, 8)


@pytest.mark.parametrize(
    ("intensity", "empty", "full"),
    [
        ("zscore", True, False),
        ("full_range", False, True),
        ("percentile", False, False),
    ],
)
def test_images_are_drawn_on_the_scale_of_real_ones(
    monkeypatch, intensity, empty, full
):
    monkeypatch.setattr(run, "make_train_step", lambda *_, **given: given)
    config = _config(synthesis=True)
    config.data.update({"zero_outside": True, "intensity": intensity})
    given = run.create_train_step(config, None, None, (), None)["augmentation"]
    assert (given["zero_outside"], given["full_range"]) == (empty, full)


def test_a_record_older_than_a_key_has_its_default():
    config = base.get_config()
    del config.augment.extra
    assert create_augmentation(config)["extra"] == ()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"noise_std": (2.0, 1.0)},
            r"augment: Option noise_std is \(2.0, 1.0\); expect",
        ),
        ({"noise_deviation": (0.0, 1.0)}, "noise_deviation: is now augment.noise_std;"),
        (
            {"noise_stdd": (0.0, 1.0)},
            "augment: Unknown augmentation option 'noise_stdd'",
        ),
    ],
)
def test_what_no_augmentation_has_is_refused(changes, message):
    with pytest.raises(InputError, match=message):
        create_augmentation(_config(**changes))


def test_a_function_of_the_users_own_module_is_loaded(tmp_path, monkeypatch):
    (tmp_path / "lab_rows.py").write_text(MODULE)
    monkeypatch.syspath_prepend(tmp_path)
    options = create_augmentation(
        _config(extra=(("lab_rows:swap_rows", {"every": 3}),))
    )
    (own,) = options["extra"]
    assert own.name == "lab_rows:swap_rows"
    assert own.function.__name__ == "swap_rows"
    assert own.options == {"every": 3}


@pytest.mark.parametrize(
    ("extra", "message"),
    [
        (
            ("lab_rows:swap_rows",),
            r"found 'lab_rows:swap_rows', expected \('package.module",
        ),
        ((("lab_rows:swap_rows",),), r"found \('lab_rows:swap_rows',\), expected"),
        ((("lab_rows:swap_rows", {}),) * 2, "each function once"),
        ((("lab_rows:swop_rows", {}),), "did you mean 'swap_rows'"),
        ((("lab_rows:swap_rows", {"each": 1}),), "unexpected keyword argument 'each'"),
    ],
)
def test_an_entry_that_cannot_be_used_is_named(extra, message, tmp_path, monkeypatch):
    (tmp_path / "lab_rows.py").write_text(MODULE)
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(InputError, match=f"augment.extra: .*{message}"):
        create_augmentation(_config(extra=extra))
