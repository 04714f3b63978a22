"""XLA's compiled programs: where they are kept, and what they cost."""

import pathlib
from typing import Any

import jax


def use_compilation_cache(directory: str) -> None:
    """Keep compiled programs between processes.

    A directory that the user has set for jax (``JAX_COMPILATION_CACHE_DIR``) stays.

    Args:
        directory: where to; "" for nowhere.
    """
    if not directory or getattr(jax.config, "jax_compilation_cache_dir", None):
        return
    path = str(pathlib.Path(directory).expanduser())
    jax.config.update("jax_compilation_cache_dir", path)
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.3)


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
