"""Keeps the last checkpoint of a fold, where the user did not ask for the best."""

from collections.abc import Collection

from ml_collections import ConfigDict

_KEY = "eval.choose"


def keep_last(config: ConfigDict, *, given: Collection[str]) -> str:
    """Set ``eval.choose`` to the last checkpoint, if it is not given.

    The cases that a fold validates on are those that score it: if they choose its
    checkpoint too, the scores are too good. A run that stops early needs the best one.

    Args:
        config: config of a cross-validation; it is changed.
        given: dotted keys that the user set beside the config's file.

    Returns:
        A line that tells the change; "" where there is none.
    """
    early = config.train.early_stopping_patience > 0
    if _KEY in given or early or config.eval.choose == "last":
        return ""
    config.eval.choose = "last"
    return (
        f"{_KEY} is 'last' for the folds, so that no case chooses the network that "
        "segments it; --config.eval.choose=best takes the best checkpoint"
    )
