import pytest

from unet_jax.configs import base, bone, folder
from unet_jax.errors import InputError
from unet_jax.experiment.network import create_optimizer_and_schedule
from unet_jax.experiment.warmup import fit_warmup


def _config(module=base, **changes):
    config = module.get_config()
    config.train.steps = changes.get("steps", config.train.steps)
    config.optimizer.warmup_steps = changes.get("warmup", config.optimizer.warmup_steps)
    return config


@pytest.mark.parametrize(
    ("module", "steps", "given"),
    [
        (folder, 25, ["train.steps"]),
        (folder, 100, ["train.steps", "seed"]),
        (bone, 1, ["train.steps"]),
        (base, 50, []),  # from a program, or a config's file
    ],
)
def test_a_warm_up_that_nobody_set_fits_the_run(module, steps, given):
    config = _config(module, steps=steps)
    before = config.optimizer.warmup_steps
    line = fit_warmup(config, given=given)
    assert config.optimizer.warmup_steps == steps // 10
    assert f"is {steps // 10} for this run of {steps} steps" in line
    assert f"was {before} by default" in line
    create_optimizer_and_schedule(config)


@pytest.mark.parametrize(
    ("changes", "given"),
    [
        ({"steps": 25}, ["train.steps", "optimizer.warmup_steps"]),
        ({"steps": 25, "warmup": 60}, []),  # both of a program
        ({"steps": 0}, ["train.steps"]),
    ],
)
def test_what_was_set_is_refused_with_a_setting_to_paste(changes, given):
    config = _config(folder, **changes)
    assert fit_warmup(config, given=given) == ""
    with pytest.raises(InputError, match=r"; give --config\.optimizer\.warmup_steps="):
        create_optimizer_and_schedule(config)


def test_a_warm_up_that_fits_stays():
    config = _config(folder, steps=101)
    assert fit_warmup(config, given=["train.steps"]) == ""
    assert config.optimizer.warmup_steps == 100
