"""Loads a function of the user's own module by its name in a config.

A network, a loss or an augmentation named ``"package.module:function"`` needs no change
of this package.
"""

import difflib
import importlib
import inspect
import os
import re
import sys
from collections.abc import Callable
from types import ModuleType
from typing import Any

from unet_jax.errors import InputError

_NAME = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)*:[^\W\d]\w*")


def is_user_code(name: str) -> bool:
    """Return whether a name of a config means a function of a module.

    >>> is_user_code("unet"), is_user_code("my_lab.networks:wide_unet")
    (False, True)
    """
    return ":" in name


def load_function(name: str) -> Callable[..., Any]:
    """Import a module and return a function, or a class, of it.

    Modules are found where Python looks for them, and then in the current folder.

    Raises:
        InputError: the name has another form than ``"package.module:function"``, the
            module cannot be imported, it has no such function, or the arguments are
            unknown. The message is one line; an error in the module is its cause.

    >>> load_function("math:sqrt")(4.0)
    2.0
    """
    if not _NAME.fullmatch(name):
        raise InputError(
            f"found {name!r}, expected 'package.module:function', such as "
            "'my_lab.networks:wide_unet'"
        )
    module_name, _, function_name = name.partition(":")
    module = _import(name, module_name)
    function = getattr(module, function_name, None)
    if function is None:
        known = [key for key, value in vars(module).items() if callable(value)]
        near = difflib.get_close_matches(function_name, known, n=1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise InputError(
            f"{name!r}: module {module_name!r} ({_file(module)}) has no function "
            f"{function_name!r}{hint}"
        )
    if not callable(function):
        raise InputError(
            f"{name!r}: found {type(function).__name__}, expected a function or class"
        )
    try:
        inspect.signature(function)
    except ValueError:  # some functions written in C
        raise InputError(
            f"{name!r}: Python cannot tell its arguments; call it from a function of "
            "your own"
        ) from None
    return function


def _import(name: str, module_name: str) -> ModuleType:
    """Import a module, from the current folder if it is nowhere else."""
    folder = os.getcwd()
    if folder not in sys.path and "" not in sys.path:
        # The installed command does not look there, `python -m` does. At the end, so
        # that a file of the user's hides no module of Python.
        sys.path.append(folder)
        importlib.invalidate_caches()
    try:
        return importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        parts = module_name.split(".")
        own = {".".join(parts[: n + 1]) for n in range(len(parts))}
        if error.name in own:
            raise InputError(
                f"{name!r}: no module {error.name!r}; install it, or start from the "
                "folder that holds it"
            ) from error
        raise InputError(
            f"{name!r}: module {module_name!r} needs {error.name!r}, which is not "
            "installed"
        ) from error
    except Exception as error:
        reason = " ".join(str(error).split())
        raise InputError(
            f"{name!r}: module {module_name!r} cannot be imported: "
            f"{type(error).__name__}: {reason}"
        ) from error


def _file(module: ModuleType) -> str:
    """The file of a module, for a message."""
    return getattr(module, "__file__", None) or "built in"
