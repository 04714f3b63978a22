"""Finds and loads the config that ``--config`` or a workdir names."""

import contextlib
import difflib
import importlib
import importlib.abc
import importlib.machinery
import importlib.util
import json
import pathlib
import re
import sys
from collections.abc import Iterator, Sequence
from types import ModuleType
from typing import Any

from absl import flags
from ml_collections import ConfigDict, config_flags

from unet_jax.errors import InputError
from unet_jax.experiment.options import split_options
from unet_jax.experiment.record import as_tuples, flat_config, read_record
from unet_jax.experiment.renamed import current_config, rename_keys
from unet_jax.runtime.atomic import atomic_path
from unet_jax.runtime.home import expanded

_SHIPPED = "unet_jax.configs"
_FOLDS_CONFIG = "crossvalidation_config.json"


def shipped_folder() -> pathlib.Path:
    """Return the folder of the shipped configs; InputError without an installation."""
    package = pathlib.Path(__file__).resolve().parents[1]
    spec = importlib.util.find_spec(_SHIPPED)
    if spec is not None and spec.origin is not None:
        folder = pathlib.Path(spec.origin).resolve().parent
        # A checkout keeps the folder beside the package, a wheel inside of it. Any
        # other place belongs to another installation.
        if folder in (package / "configs", package.parent / "configs"):
            return folder
    raise InputError(
        f"{package}: this copy of unet_jax is not installed, expected an installed "
        f"package; run: pip install -e {package.parent}"
    )


def config_path(name: str) -> tuple[pathlib.Path, str]:
    """Find the file of a config.

    Args:
        name: path of a config, or name of a shipped one: ``brain`` or
            ``configs/brain.py``. An existing file wins over a shipped config.

    Returns:
        The file, and a line that says which was taken; "" where there is no choice.

    Raises:
        InputError: there is neither a file nor a shipped config of that name.
    """
    folder, path = shipped_folder(), pathlib.Path(expanded(name))
    names = sorted(file.stem for file in folder.glob("[!_]*.py"))
    match = re.fullmatch(r"(?:\./)?(?:configs/)?(\w+?)(?:\.py)?", name)
    shipped = None
    if match is not None and match[1] in names:
        shipped = folder / f"{match[1]}.py"
    if path.is_file():
        if shipped is None or shipped.samefile(path):
            return path, ""
        return path, f"config: the file {path}, not the shipped config {shipped.stem!r}"
    if shipped is None:
        raise InputError(
            f"--config: no file {name!r}, and no shipped config of that name; expected "
            f"the path of a config, or one of {', '.join(names)}"
        )
    return shipped, f"config: {shipped.stem!r}, shipped with unet_jax ({shipped})"


def load_config(path: pathlib.Path) -> ConfigDict:
    """Load a config from its file.

    Args:
        path: Python file with a function ``get_config() -> ConfigDict``.

    Raises:
        InputError: the file cannot be loaded.
    """
    try:
        module = ModuleType("unet_jax_config")
        module.__file__ = str(path)
        with _old_import(path):
            exec(compile(path.read_bytes(), str(path), "exec"), module.__dict__)
            config = module.get_config()
        if not isinstance(config, ConfigDict):
            raise TypeError(f"get_config() returned {type(config).__name__}")
        for line in rename_keys(config):
            print(f"unet_jax: {path}: {line}", file=sys.stderr)
        _check_keys(path, config)
    except InputError:
        raise
    except Exception as error:  # whatever a config file raises
        reason = " ".join(str(error).split())
        raise InputError(
            f"--config: {path} cannot be loaded: {type(error).__name__}: {reason}; "
            "expected a Python file whose get_config() returns a ConfigDict"
        ) from error
    return config


def _check_keys(path: pathlib.Path, config: ConfigDict) -> None:
    """Refuse a key that no run reads: a mistyped one would leave the default."""
    known = importlib.import_module(f"{_SHIPPED}.base").KEYS
    for key in flat_config(config.to_dict()):
        if key not in known and not key.startswith("model.options."):
            near = difflib.get_close_matches(key, known, n=1)
            hint = f"; did you mean config.{near[0]}?" if near else ""
            raise InputError(
                f"--config: {path} sets config.{key}, which is no key of "
                f"configs/base.py{hint}"
            )


@contextlib.contextmanager
def _old_import(path: pathlib.Path) -> Iterator[None]:
    """Let a config import ``configs``, the name of the shipped ones before 0.2."""
    finder = _OldName(path)
    sys.meta_path.insert(0, finder)
    try:
        yield
    finally:
        sys.meta_path.remove(finder)
        if finder.used:
            for name in [*sys.modules]:
                if name.partition(".")[0] == "configs":
                    del sys.modules[name]


class _OldName(importlib.abc.MetaPathFinder):
    """Finds the shipped configs under their former name, ``configs``."""

    def __init__(self, path: pathlib.Path) -> None:
        """Remember the file that the advice names."""
        self._path = path
        self.used = False

    def find_spec(
        self, fullname: str, path: Any = None, target: Any = None
    ) -> importlib.machinery.ModuleSpec | None:
        """Find the package, unless the user has another one of that name."""
        if fullname != "configs":
            return None
        ours = shipped_folder() / "__init__.py"
        other = importlib.machinery.PathFinder.find_spec(fullname)
        origin = None if other is None else other.origin
        if origin is not None and not ours.samefile(origin):
            return None
        self.used = True
        print(
            f"unet_jax: {self._path} imports configs, which is now {_SHIPPED}; write "
            f"'from {_SHIPPED} import ...'. The old name works until version 0.3",
            file=sys.stderr,
        )
        return importlib.util.spec_from_file_location(
            fullname, ours, submodule_search_locations=[str(ours.parent)]
        )


def remembered_config(workdir: pathlib.Path) -> ConfigDict | None:
    """Return the config that a workdir holds.

    Returns:
        The resolved config of the run, not locked; None where no run has begun.

    Raises:
        InputError: config.json is damaged, or of another version.
    """
    record = read_record(workdir)
    return None if record is None else _restored(record, workdir / "config.json")


def keep_folds_config(workdir: pathlib.Path, config: ConfigDict) -> None:
    """Write the config of a cross-validation as it was given, before any fold."""
    text = json.dumps({"config": config.to_dict()}, indent=1)
    with atomic_path(workdir / _FOLDS_CONFIG) as temporary:
        temporary.write_text(text + "\n", encoding="utf-8")


def remembered_folds_config(workdir: pathlib.Path) -> ConfigDict | None:
    """Return the config of a cross-validation as it was given; None where none began.

    Raises:
        InputError: the file is damaged.
    """
    path = workdir / _FOLDS_CONFIG
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        record = {"config": current_config(record["config"])}
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(
            f"{path}: does not describe a cross-validation ({error}); restore the "
            "file, or give --config"
        ) from None
    return _restored(record, path)


def _restored(record: dict[str, Any], path: pathlib.Path) -> ConfigDict:
    """Make a config of the values of a record."""
    # base.py knows the type of each key, which None in a record does not tell.
    config = importlib.import_module(f"{_SHIPPED}.base").get_config()
    try:
        _fill(config, as_tuples(record["config"]))
    except (TypeError, ValueError) as error:
        raise InputError(
            f"{path}: does not describe a run ({error}); restore "
            "the file, or name another --workdir"
        ) from error
    return config


def _fill(config: ConfigDict, values: dict[str, Any]) -> None:
    """Set all keys of a config that a record has."""
    for key, value in values.items():
        if isinstance(value, dict) and isinstance(config.get(key), ConfigDict):
            _fill(config[key], value)
        else:
            config[key] = value


def override(config: ConfigDict, arguments: Sequence[str]) -> None:
    """Change keys of a config, and lock it.

    Args:
        arguments: changes as on the command line, ``--config.train.steps=40``.

    Raises:
        InputError: the config has no such key, or the value is of another type.
    """
    arguments, options = split_options(arguments)
    if options:
        config.model.options.update(options)
    arguments = _without_none(config, arguments)
    values, argv = flags.FlagValues(), ["unet_jax", *arguments]
    try:
        config_flags.DEFINE_config_dict(
            "config", config, flag_values=values, sys_argv=argv
        )
        values(argv)
    except flags.Error as error:
        raise InputError(str(error)) from error
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise InputError(_explain(arguments, error)) from error


def _without_none(config: ConfigDict, arguments: Sequence[str]) -> list[str]:
    """Set the keys of ``=None`` that accept it, which absl would read as text."""
    keys = importlib.import_module(f"{_SHIPPED}.base").KEYS
    rest = []
    for argument in arguments:
        name, _, value = argument.partition("=")
        path = name.partition("config.")[2]
        key = keys.get(path)
        if value != "None" or key is None or not (key.default is None or key.from_data):
            rest.append(argument)
            continue
        section, _, leaf = path.rpartition(".")
        with config.unlocked(), config.ignore_type():
            place = config[section] if section else config
            place[leaf] = None
    return rest


def _explain(arguments: Sequence[str], error: Exception) -> str:
    """Name the argument whose key the config does not have."""
    reason = " ".join(str(error).replace("\\n", " ").split())
    key = re.search(r"\w+", reason)
    near = re.search(r"Did you mean \"(\w+)\"", reason)
    for argument in arguments:
        if key and key[0] in argument.partition("=")[0].split("."):
            hint = f"; did you mean {near[1]!r}?" if near else ""
            return f"{argument}: the config has no key {key[0]!r}{hint}"
    return f"--config: {type(error).__name__}: {reason}"
