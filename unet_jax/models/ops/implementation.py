"""Names the implementation in which operations are traced.

All give the same values and gradients up to rounding.

- ``"plain"``: XLA's own operations, which TPU and GPU compilers are made for.
- ``"cpu"``: dense products, slices and element-wise operations, which XLA's CPU
  compiler runs several times faster, above all in the backward pass.
- ``"onednn"``: as ``"cpu"``, with convolutions that XLA hands to oneDNN. Programs need
  the options of `compilation.compiler_options`; without them they are slow.
- ``"tpu"``: pixels packed into channels (`packing`), and ``"plain"`` for what is not.
"""

import contextlib
import contextvars
from collections.abc import Iterator

import jax

IMPLEMENTATIONS = ("cpu", "onednn", "tpu", "plain")

_chosen: contextvars.ContextVar[str | None] = contextvars.ContextVar(
    "implementation", default=None
)


@contextlib.contextmanager
def use_implementation(implementation: str | None) -> Iterator[None]:
    """Trace the operations inside of the block in one implementation.

    Enter it inside of the function that jax traces, as `network.Implemented` does, and
    not around a jitted function: jax keeps the program of the first call. A new thread
    starts with the default. Gradient rules are traced later, after the block has ended,
    so none may ask for the current implementation.

    Args:
        implementation: one of ``IMPLEMENTATIONS``; None for the surrounding
            block's, or for the best one of the default backend.

    Raises:
        ValueError: the implementation is not known.
    """
    if implementation is not None and implementation not in IMPLEMENTATIONS:
        raise ValueError(
            f"Unknown implementation {implementation!r}; expected one of "
            f"{IMPLEMENTATIONS}"
        )
    token = _chosen.set(implementation or _chosen.get())
    try:
        yield
    finally:
        _chosen.reset(token)


def current_implementation() -> str:
    """Return the implementation to trace: the block's, or the platform's own.

    Returns:
        One of ``IMPLEMENTATIONS``.
    """
    chosen = _chosen.get()
    if chosen is not None:
        return chosen
    platform = jax.default_backend()
    return platform if platform in ("cpu", "tpu") else "plain"
