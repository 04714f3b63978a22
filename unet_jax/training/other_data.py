"""Fits the weights of a network to data with other channels or classes."""

import re
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict


class Form(NamedTuple):
    """What the ends of a network depend on.

    Attributes:
        channels: number of channels of an image.
        classes: names of the classes; () where the channels of the logits are none.
    """

    channels: int
    classes: tuple[str, ...]


def fitted_to(
    source: Any, here: Any, *, there_form: Form, here_form: Form
) -> tuple[Any, list[str]]:
    """Return weights for other data, where a layer's shape follows from these.

    A kernel that reads the image, of another number of channels, becomes the mean over
    its channels times their number, divided among the new ones: an image whose channels
    are all the same gives what it gave. Of a head the channels of classes with the same
    name are taken; those of other classes stay as they are here.

    Args:
        source: nested dicts of arrays, the parameters of the other run.
        here: parameters of this run, at the start.
        there_form: channels and classes of the other run.
        here_form: those of this one.

    Returns:
        The parameters of the other run, changed where they are fitted, and a line for
        each of those.
    """
    weights, own = flatten_dict(source, sep="/"), flatten_dict(here, sep="/")
    lines = []
    for name in sorted(weights.keys() & own.keys()):
        array, mine = np.asarray(weights[name]), own[name]
        if _reads_image(array.shape, mine.shape, there_form, here_form):
            weights[name] = _with_channels(array, here_form.channels)
            lines.append(
                f"{name}: {there_form.channels} channels of images, "
                f"{here_form.channels} here"
            )
        elif _is_head(name, array.shape, mine.shape, there_form, here_form):
            weights[name], known = _by_class(
                array, np.asarray(mine), there_form.classes, here_form.classes
            )
            lines.append(f"{name}: by name, {', '.join(known) or 'no class'}")
    return unflatten_dict(weights, sep="/"), lines


def _reads_image(
    there: Sequence[int], here: Sequence[int], there_form: Form, here_form: Form
) -> bool:
    """Tell whether kernels differ by the channels of the image alone."""
    return (
        len(there) > 2
        and there_form.channels != here_form.channels
        and (there[-2], here[-2]) == (there_form.channels, here_form.channels)
        and (*there[:-2], there[-1]) == (*here[:-2], here[-1])
    )


def _with_channels(kernel: np.ndarray, channels: int) -> np.ndarray:
    """Divide the sum over the channels of a kernel among others."""
    total = kernel.sum(axis=-2, keepdims=True)
    return np.repeat(total / channels, channels, axis=-2).astype(kernel.dtype)


def _is_head(
    name: str,
    there: Sequence[int],
    here: Sequence[int],
    there_form: Form,
    here_form: Form,
) -> bool:
    """Tell whether a layer gives logits, of other classes in the other run."""
    return (
        re.search(r"(^|/)head(_\d+)?/\w+$", name) is not None
        and there_form.classes != here_form.classes
        and (there[-1], here[-1]) == (len(there_form.classes), len(here_form.classes))
        and tuple(there[:-1]) == tuple(here[:-1])
    )


def _by_class(
    there: np.ndarray,
    here: np.ndarray,
    there_names: Sequence[str],
    here_names: Sequence[str],
) -> tuple[np.ndarray, list[str]]:
    """Take the channels of equal names; return them and the names."""
    fitted = np.array(here)
    known = [name for name in here_names if name in there_names]
    for name in known:
        fitted[..., here_names.index(name)] = there[..., there_names.index(name)]
    return fitted, known
