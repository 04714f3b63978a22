"""XLA's compiled programs: their options, where they are kept, and what they cost."""

import contextlib
import functools
import math
import os
import pathlib
import re
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import jax
import numpy as np
from jax import lax


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


_ONEDNN = "xla_cpu_experimental_onednn_custom_call"
_YNN = "xla_cpu_experimental_ynn_fusion_type"
_ONEDNN_OPTIONS: dict[str, bool | int | str | float] = {
    _ONEDNN: True,
    # XLA's other library, YNNPACK, is asked first. It keeps what it is faster at.
    _YNN: "LIBRARY_FUSION_TYPE_INDIVIDUAL_DOT,LIBRARY_FUSION_TYPE_REDUCE",
}


@functools.cache
def onednn_options() -> dict[str, bool | int | str | float] | None:
    """Find out whether XLA hands convolutions to oneDNN, and what makes it do so.

    Whether it can depends on how jaxlib was built, so a small convolution is compiled
    and run. What the user has set for it in XLA_FLAGS stays. Several devices of a CPU
    share its threads, and one may wait for those that another has: they do without.

    Returns:
        Options of ``compile``; None where a convolution is XLA's own.
    """
    if jax.default_backend() != "cpu" or jax.local_device_count() > 1:
        return None
    chosen = _is_set_by_user(_ONEDNN) or _is_set_by_user(_YNN)
    options = {} if chosen else _ONEDNN_OPTIONS
    ones = np.ones((1, 8, 8, 8), np.float32)
    kernel = np.ones((3, 3, 8, 8), np.float32)
    numbers = ("NHWC", "HWIO", "NHWC")

    def convolved(x, kernel):
        return lax.conv_general_dilated(
            x, kernel, (1, 1), "VALID", dimension_numbers=numbers
        )

    try:
        with _kept_out_of_cache(options):
            lowered: Any = jax.jit(convolved).lower(ones, kernel)
            compiled = lowered.compile(options)
        known = "__onednn$convolution" in compiled.as_text()
        right = known and bool((np.asarray(compiled(ones, kernel)) == 72).all())
    except jax.errors.JaxRuntimeError:  # a jaxlib that has no such option
        return None
    return dict(options) if right else None


def compiler_options(deterministic: bool) -> dict[str, bool | int | str | float]:
    """Options of a step: oneDNN on a CPU, and the same bits each time on a GPU.

    On CPU and TPU the bits are the same anyway. On GPU some operations add in the order
    in which threads come, unless told otherwise.

    Args:
        deterministic: of the config.

    Returns:
        Options of ``compile``.
    """
    if jax.default_backend() == "gpu":
        return {"xla_gpu_deterministic_ops": True} if deterministic else {}
    return onednn_options() or {}


def compile_with_options(
    lowered: Any, options: dict[str, bool | int | str | float]
) -> Any:
    """Compile a lowered function.

    Args:
        lowered: by ``jax.jit(f).lower(...)`` or as a mapped one.
        options: of `compiler_options`.
    """
    with _kept_out_of_cache(options):
        return lowered.compile(options)


def jit_network(function: Callable[..., Any]) -> Callable[..., Any]:
    """Compile a function that applies a network, with the options that it needs.

    Args:
        function: of arrays.
    """
    options = onednn_options() or {}
    compiled = jax.jit(function, compiler_options=options)

    @functools.wraps(function)
    def call(*arguments: Any) -> Any:
        with _kept_out_of_cache(options):
            return compiled(*arguments)

    return call


def _is_set_by_user(name: str) -> bool:
    """Whether XLA_FLAGS has something to say of an option."""
    return name in os.environ.get("XLA_FLAGS", "")


@contextlib.contextmanager
def _kept_out_of_cache(options: dict[str, bool | int | str | float]) -> Iterator[None]:
    """Compile without a cache what calls oneDNN: jaxlib 0.12 cannot write such down.

    It runs out of memory when it tries.
    """
    if not (_ONEDNN in options or _is_set_by_user(_ONEDNN)):
        yield
        return
    name = "jax_persistent_cache_min_compile_time_secs"
    before = getattr(jax.config, name)
    jax.config.update(name, math.inf)
    try:
        yield
    finally:
        jax.config.update(name, before)


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
