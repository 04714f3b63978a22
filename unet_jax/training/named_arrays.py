"""Compares and copies the arrays of two states by name."""

import dataclasses
import pathlib
from typing import Any, NamedTuple

import jax
import numpy as np

from unet_jax.errors import InputError


def known_fields(template: Any, saved: Any) -> Any:
    """Return a template, as a dict of those fields that a saved state knows.

    It is the template itself where the state knows all, or where it is no dataclass.
    """
    if not dataclasses.is_dataclass(template):
        return template
    fields = dataclasses.fields(template)
    known = {
        field.name: getattr(template, field.name)
        for field in fields
        if field.name in saved or field.default is dataclasses.MISSING
    }
    return template if len(known) == len(fields) else known


def check_fit(path: pathlib.Path, *, saved: Any, template: Any) -> None:
    """Refuse a checkpoint with other arrays: Orbax may cut, pad or cast them.

    Raises:
        InputError: a name, a shape or a dtype differs.
    """
    there, here = _by_name(saved), _by_name(template)
    names = [*here, *(name for name in there if name not in here)]
    wrong = [
        f"{name} is {_kind(there, name)} there and {_kind(here, name)} here"
        for name in names
        if _kind(there, name) != _kind(here, name)
    ]
    if wrong:
        more = f", and {len(wrong) - 3} more" if len(wrong) > 3 else ""
        raise InputError(
            f"{path}: the checkpoint does not fit this network and optimizer: "
            f"{', '.join(wrong[:3])}{more}; use the config of that run, or init_from "
            "in a new workdir"
        )


def check_same_bits(path: pathlib.Path, found: Any, *, expected: Any) -> None:
    """Refuse arrays that differ in a bit from those that were saved.

    Args:
        path: folder of the checkpoint, for the message.
        found: arrays that were read from the checkpoint.
        expected: arrays that were saved, with the names of ``found``.

    Raises:
        InputError: a name, a shape, a dtype or a bit differs.
    """
    check_fit(path, saved=found, template=expected)
    there = _by_name(found)
    for name, leaf in _by_name(expected).items():
        if np.asarray(leaf).tobytes() != np.asarray(there[name]).tobytes():
            raise InputError(f"{path}: {name} differs from the array that was saved")


class Transfer(NamedTuple):
    """The result of `transfer`.

    Attributes:
        params: parameters with the values copied, dtypes and devices kept.
        copied: number of arrays copied.
        kernels: number of these with more than one axis; biases and norms alone carry
            nothing of what a network has learnt.
        skipped: one line for each array of either side that was not copied: its name
            and both shapes.
    """

    params: Any
    copied: int
    kernels: int
    skipped: list[str]


def transfer(params: Any, source_params: Any) -> Transfer:
    """Copy the parameters of another run where name and shape are equal."""
    here, there = _by_name(params), _by_name(source_params)
    skipped = [
        f"{name}: {_shape(there, name)} in the source, {_shape(here, name)} here"
        for name in sorted(here.keys() | there.keys())
        if _shape(here, name) != _shape(there, name)
    ]

    def fill(path: Any, leaf: Any) -> Any:
        name = _name(path)
        if _shape(here, name) != _shape(there, name):
            return leaf
        return jax.device_put(np.asarray(there[name], leaf.dtype), leaf.sharding)

    copied = [leaf for n, leaf in here.items() if _shape(here, n) == _shape(there, n)]
    return Transfer(
        params=jax.tree_util.tree_map_with_path(fill, params),
        copied=len(copied),
        kernels=sum(leaf.ndim > 1 for leaf in copied),
        skipped=skipped,
    )


def _by_name(tree: Any) -> dict[str, Any]:
    """Return the leaves by name, such as ``params/stage_0/kernel``."""
    return {
        _name(path): leaf for path, leaf in jax.tree_util.tree_leaves_with_path(tree)
    }


def _name(path: Any) -> str:
    """Join the keys of the path to a leaf; attributes and dict keys look the same."""
    return jax.tree_util.keystr(path, simple=True, separator="/")


def _shape(leaves: dict[str, Any], name: str) -> str:
    """Write the shape of a leaf, or that it is missing."""
    return str(tuple(leaves[name].shape)) if name in leaves else "missing"


def _kind(leaves: dict[str, Any], name: str) -> str:
    """Write the shape and dtype of a leaf, or that it is missing."""
    if name not in leaves:
        return "missing"
    return f"{_shape(leaves, name)} {np.dtype(leaves[name].dtype)}"
