"""Compiler options, the compilation cache, and the cost of compiled programs."""

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

from unet_jax.runtime.home import expanded


def use_compilation_cache(directory: str) -> None:
    """Keep compiled programs on disk for later processes.

    A directory that the user has set for jax (``JAX_COMPILATION_CACHE_DIR``) stays. An
    entry that does not load (a kill may leave half of one) is deleted and recompiled.

    Args:
        directory: folder of the cache; "" for no cache.
    """
    if directory and not _cache_folder():
        jax.config.update("jax_compilation_cache_dir", expanded(directory))
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.3)
    if _cache_folder() and not isinstance(warnings.showwarning, _DeleteBadEntries):
        warnings.showwarning = _DeleteBadEntries(warnings.showwarning)


class _DeleteBadEntries:
    """Deletes cache entries that jax cannot load, instead of showing its warning.

    jax keeps such an entry, and would warn and compile at every start. Its warning
    names the program, not the file, so all entries of that program are deleted.
    """

    def __init__(self, show: Any) -> None:
        """Remember the function that shows other warnings."""
        self._show = show

    def __call__(self, message: Warning | str, *args: Any, **kwargs: Any) -> None:
        """Delete the entries, or show a warning of another kind."""
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
    """Return the folder of the compilation cache; "" for none."""
    return getattr(jax.config, "jax_compilation_cache_dir", None) or ""


_ONEDNN = "xla_cpu_experimental_onednn_custom_call"
_YNN = "xla_cpu_experimental_ynn_fusion_type"
_ONEDNN_OPTIONS: dict[str, bool | int | str | float] = {
    _ONEDNN: True,
    # XLA asks its other library, YNNPACK, first: it keeps what it does faster.
    _YNN: "LIBRARY_FUSION_TYPE_INDIVIDUAL_DOT,LIBRARY_FUSION_TYPE_REDUCE",
}


@functools.cache
def onednn_options() -> dict[str, bool | int | str | float] | None:
    """Find the compiler options that make XLA call oneDNN for convolutions.

    It depends on the build of jaxlib, so a small convolution is compiled and run. Flags
    that the user has set in XLA_FLAGS stay. With several CPU devices oneDNN is off:
    they use one pool of threads, and one may wait for threads that another one holds.

    Returns:
        Options of ``compile``; None where XLA uses its own convolutions.
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
    """Return the options of a training step: oneDNN on CPU, determinism on GPU.

    On CPU and TPU equal runs give equal bits anyway. On GPU some operations add in the
    order in which threads finish, unless the option forbids it.
    """
    if jax.default_backend() == "gpu":
        return {"xla_gpu_deterministic_ops": True} if deterministic else {}
    return onednn_options() or {}


def compile_with_options(
    lowered: Any, options: dict[str, bool | int | str | float]
) -> Any:
    """Compile a lowered function with options from `compiler_options`."""
    with _kept_out_of_cache(options):
        return lowered.compile(options)


def jit_network(function: Callable[..., Any]) -> Callable[..., Any]:
    """Compile a function that applies a network, with this platform's options."""
    options = onednn_options() or {}
    compiled = jax.jit(function, compiler_options=options)

    @functools.wraps(function)
    def call(*arguments: Any) -> Any:
        with _kept_out_of_cache(options):
            return compiled(*arguments)

    return call


def _is_set_by_user(name: str) -> bool:
    """Tell whether XLA_FLAGS names an option."""
    return name in os.environ.get("XLA_FLAGS", "")


@contextlib.contextmanager
def _kept_out_of_cache(options: dict[str, bool | int | str | float]) -> Iterator[None]:
    """Keep programs that call oneDNN out of the compilation cache.

    jaxlib 0.12 cannot serialise them: it fails with ``std::bad_alloc``.
    """
    user_flags = os.environ.get("XLA_FLAGS", "")
    set_by_user = _ONEDNN in user_flags and f"{_ONEDNN}=false" not in user_flags
    if not (_ONEDNN in options or set_by_user):
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
    """Read ``flops`` and ``memory_bytes`` of one device, by the compiler's estimate.

    What the backend does not give is left out.
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
