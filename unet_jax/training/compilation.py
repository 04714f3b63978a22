"""XLA's compiled programs: where they are kept, and what they cost."""

import contextlib
import pathlib
import re
import warnings
from typing import Any

import jax


def use_compilation_cache(directory: str) -> None:
    """Keep compiled programs between processes.

    A directory that the user has set for jax (``JAX_COMPILATION_CACHE_DIR``) stays. An
    entry that does not load (a kill may leave half of one) is deleted and made anew.

    Args:
        directory: where to; "" for nowhere.
    """
    if directory and not _cache_folder():
        path = str(pathlib.Path(directory).expanduser())
        jax.config.update("jax_compilation_cache_dir", path)
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.3)
    if _cache_folder() and not isinstance(warnings.showwarning, _DeleteBadEntries):
        warnings.showwarning = _DeleteBadEntries(warnings.showwarning)


class _DeleteBadEntries:
    """Deletes what jax says it cannot load, in the place of its warning.

    jax itself leaves the entry and would warn and compile at every start. It names the
    program and not the file: all entries of that name go.
    """

    def __init__(self, show: Any) -> None:
        """Keep the way other warnings are shown."""
        self._show = show

    def __call__(self, message: Warning | str, *args: Any, **kwargs: Any) -> None:
        """Delete, or show."""
        named = re.match(
            r"Error reading persistent compilation cache entry for '([^']+)'",
            str(message),
        )
        if named is None:
            self._show(message, *args, **kwargs)
            return
        for path in pathlib.Path(_cache_folder()).glob(f"{named[1]}-*-cache"):
            with contextlib.suppress(OSError):
                path.unlink()


def _cache_folder() -> str:
    """The folder that jax keeps compiled programs in; "" for none."""
    return getattr(jax.config, "jax_compilation_cache_dir", None) or ""


def compiler_options(deterministic: bool) -> dict[str, bool | int | str | float]:
    """Ask for operations that give the same bits each time, where that is not the rule.

    On CPU and TPU it is. On GPU some operations add in the order in which threads come.

    Args:
        deterministic: of the config.

    Returns:
        Options of ``compile``.
    """
    if deterministic and jax.default_backend() == "gpu":
        return {"xla_gpu_deterministic_ops": True}
    return {}


def step_cost(compiled: Any) -> dict[str, float]:
    """Read what the compiler says of one step.

    Args:
        compiled: a compiled, mapped step.

    Returns:
        ``flops`` and ``memory_bytes`` of one device; a figure that the backend does
        not give is left out.
    """
    cost: dict[str, float] = {}
    analysis = compiled.cost_analysis() or {}
    if isinstance(analysis, list | tuple):
        analysis = analysis[0]
    if analysis.get("flops", 0) > 0:
        cost["flops"] = float(analysis["flops"])
    memory = compiled.memory_analysis()
    if memory is not None:
        cost["memory_bytes"] = float(
            memory.temp_size_in_bytes
            + memory.argument_size_in_bytes
            + memory.output_size_in_bytes
            - memory.alias_size_in_bytes
        )
    return cost
