"""Shortens a warm-up that the user did not set, where the run is shorter."""

from collections.abc import Collection

from ml_collections import ConfigDict

from unet_jax.configs.base import KEYS

_KEY = "optimizer.warmup_steps"


def fit_warmup(config: ConfigDict, *, given: Collection[str] = ()) -> str:
    """Shorten the warm-up to a tenth of the run, if it is not shorter and not given.

    It counts as given if the user set it, or if a config has a warm-up of its own and
    the user did not change its number of steps.

    Args:
        config: config of a run; it is changed.
        given: dotted keys that the user set beside the config's file.

    Returns:
        A line that tells the change; "" where there is none.
    """
    steps, warmup = config.train.steps, config.optimizer.warmup_steps
    left_alone = warmup == KEYS[_KEY].default or "train.steps" in given
    if _KEY in given or not left_alone or not 0 < steps <= warmup:
        return ""
    config.optimizer.warmup_steps = steps // 10
    return (
        f"{_KEY} is {steps // 10} for this run of {steps} steps, a tenth; it was "
        f"{warmup} by default, and you did not set it"
    )
