"""Numbers of a step that are NaN or infinite: found on the device, named on the host.

The device masks such a step (`training.step`), so that it changes nothing. The host
reads the report with the metrics: it skips the step, or ends the run.
"""

import contextlib
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array

from unet_jax.errors import InputError, RunError, setting

KINDS = ("image", "augmented image", "network's output", "loss")
"""Values of an example that may not be finite, each a consequence of the one before."""

_MOST_EXAMPLES, _MOST_GROUPS = 3, 12
"""Names in one message; the others are counted."""

_OUTPUT = "network's output"
_RECORD_KEY = "skipped_steps"

_FIXES = {
    "image": "fix or remove these cases",
    "augmented image": "augmentation made it so: narrow the ranges of augment",
    _OUTPUT: "look at these cases, or lower optimizer.learning_rate",
    "loss": "look at these cases, or lower optimizer.learning_rate",
}
_SLOWER = "lower optimizer.learning_rate or set optimizer.gradient_clip"


# ---- On the device ----


def finite_rows(array: Array) -> Array:
    """Return which rows ``(batch,)`` of an array have finite values only."""
    return jnp.all(jnp.isfinite(array), axis=range(1, array.ndim))


def code_of(found: dict[str, Array]) -> Array:
    """Encode the non-finite values of each example in one number.

    Args:
        found: for names of ``KINDS``, ``(batch,)`` bool, True where finite.

    Returns:
        ``(batch,)`` int32, one bit for each kind that is not finite; 0 if all are.
    """
    bits = [
        (~finite).astype(jnp.int32) << KINDS.index(kind)
        for kind, finite in found.items()
    ]
    return jnp.sum(jnp.stack(bits), axis=0)


def problem_report(
    metrics: dict[str, Array],
    *,
    gradients: Any,
    batch_stats: Any,
    example_index: Array,
    codes: Array,
    axis_name: str | None,
) -> tuple[Array, dict[str, Array]]:
    """Decide whether a step may change the state, and report what is not finite.

    Args:
        metrics: scalars of the global batch.
        gradients: gradients of the global batch.
        batch_stats: statistics that batch norm would keep.
        example_index: ``(batch,)`` global indices of the examples on this device.
        codes: `code_of` these examples.
        axis_name: the mapped axis; None for one device.

    Returns:
        Whether all is finite, and arrays that are equal on all devices: ``masked``, 1
        if not; ``groups`` of `groups_not_finite`; ``examples`` ``(global batch, 2)``,
        index and code of each example.
    """
    groups = groups_not_finite(gradients, batch_stats)
    sound = jnp.isfinite(jnp.stack(list(metrics.values())))
    finite = jnp.all(sound) & jnp.all(groups == 0)
    examples = jnp.stack([example_index, codes], axis=-1)
    if axis_name is not None:
        # (devices, rows, 2) -> in the order in which the rows were dealt
        examples = jax.lax.all_gather(examples, axis_name)
        examples = jnp.swapaxes(examples, 0, 1).reshape(-1, 2)
    masked = (~finite).astype(jnp.int32)
    return finite, {"masked": masked, "groups": groups, "examples": examples}


def groups_not_finite(gradients: Any, batch_stats: Any) -> Array:
    """Return which groups of parameters have gradients that are not finite.

    A norm that overflows counts too: a clipped gradient, and Adam's second moment,
    would be wrong.

    Returns:
        ``(groups + 1,)`` int32, 1 where not finite, in the order of `group_names`; the
        last entry stands for the statistics.
    """
    # The norms of the parts are those that the norm of the whole is made of, so that
    # the compiler computes each once.
    norms = [optax.tree.norm(leaves) for leaves in _groups(gradients).values()]
    found = [~jnp.isfinite(norm) for norm in norms]
    wrong = [jnp.any(~jnp.isfinite(leaf)) for leaf in jax.tree.leaves(batch_stats)]
    found.append(jnp.any(jnp.stack(wrong)) if wrong else jnp.bool_(False))
    return jnp.stack(found).astype(jnp.int32)


def group_names(params: Any) -> tuple[str, ...]:
    """Name the groups of parameters whose gradients are checked.

    A group is a module as deep as the shallowest one that has parameters of its own: a
    stage or the head of a U-Net, and a stage of either half of a W-Net, such as
    ``encoder/encoder_0``.

    >>> group_names({"encoder_0": {"c": {"kernel": 0}}, "head": {"kernel": 0}})
    ('encoder_0', 'head')
    """
    return tuple(_groups(params))


def _groups(tree: Any) -> dict[str, list[Any]]:
    """Collect the leaves of each group."""
    leaves = [
        ([str(key.key) for key in path], leaf)
        for path, leaf in jax.tree_util.tree_leaves_with_path(tree)
    ]
    depth = max(1, min(len(path) for path, _ in leaves) - 1)
    groups: dict[str, list[Any]] = {}
    for path, leaf in leaves:
        groups.setdefault("/".join(path[:depth]), []).append(leaf)
    return groups


# ---- On the host ----


def kind_of(code: int) -> str:
    """Name the first value of an example that is not finite: the cause of the others.

    >>> kind_of(0b1110)
    'augmented image'
    """
    return next(kind for bit, kind in enumerate(KINDS) if code >> bit & 1)


class NonfiniteSteps:
    """Skips up to ``allowed`` of the steps that the device masked, then ends the run.

    Args:
        allowed: masked steps that may be skipped, over the whole run.
        record: record of the run that is resumed; empty for a new one.
        groups: names of the groups of parameters, in the step's order.
        name_example: names the case of an example index.
        report: prints a line.
    """

    def __init__(
        self,
        *,
        allowed: int,
        record: Mapping[str, Any],
        groups: Sequence[str],
        name_example: Callable[[int], str],
        report: Callable[[str], None],
    ) -> None:
        """Count from the skipped steps of the record."""
        self._allowed = allowed
        self._skipped = int(record.get(_RECORD_KEY, 0))
        self._groups = tuple(groups)
        self._name_example = name_example
        self._report = report

    def skips(self, step: int, metrics: Mapping[str, Any]) -> bool:
        """Return whether a step was masked and is skipped; its metrics are on the host.

        Raises:
            RunError: the step was masked, and no more steps may be skipped.
        """
        if not metrics["problems"]["masked"]:
            return False
        text = self._describe(metrics)
        if self._skipped >= self._allowed:
            before = f"{self._skipped} such steps skipped before; " * bool(
                self._skipped
            )
            raise RunError(
                f"step {step}: {text}; the step changed nothing; {before}"
                f"{setting('train.skip_nonfinite', self._allowed + 10)} skips up to "
                "that many such steps"
            )
        self._skipped += 1
        self._report(
            f"step {step}: {text}; the step is skipped ({self._skipped} of "
            f"train.skip_nonfinite={self._allowed})"
        )
        return True

    def record(self) -> dict[str, Any]:
        """Return what a resumed run needs to know."""
        return {_RECORD_KEY: self._skipped}

    def _describe(self, metrics: Mapping[str, Any]) -> str:
        """Name the terms, the groups and the examples, and how to fix it."""
        problems = metrics["problems"]
        *gradients, statistics = problems["groups"]
        groups = [
            name for name, wrong in zip(self._groups, gradients, strict=True) if wrong
        ]
        # The sum before its terms; the norm says no more than the groups do.
        names = sorted(
            metrics.keys() - {"problems"}, key=lambda name: (name != "loss", name)
        )
        terms = [
            f"{name} is {float(metrics[name])}"
            for name in names
            if not math.isfinite(metrics[name])
            and not (groups and name == "gradient_norm")
        ]
        parts = [", ".join(terms)] if terms else []
        if groups:
            parts.append(f"the gradient of {_listed(groups)} is not finite")
        if statistics:
            parts.append("the running statistics of batch norm are not finite")
        return "; ".join([*parts, self._examples(problems["examples"])])

    def _examples(self, examples: np.ndarray) -> str:
        """Name the examples that cause the problem, or say that none does."""
        codes = examples[:, 1]
        wrong = examples[codes != 0]
        if not len(wrong):
            return (
                "every example by itself is finite: gradients or a loss over the whole "
                f"batch overflow; {_SLOWER}"
            )
        kinds = [kind_of(int(code)) for code in wrong[:, 1]]
        if len(wrong) == len(examples) > 1 and set(kinds) == {_OUTPUT}:
            return (
                f"the {_OUTPUT} is not finite for any of {len(examples)} examples: its "
                f"weights, or the values of an image, have grown too large; {_SLOWER}"
            )
        if {"image", "augmented image"} & {*kinds}:
            # Batch norm spreads one bad image over the outputs of the whole batch.
            wrong = wrong[[kind != _OUTPUT for kind in kinds]]
            kinds = [kind for kind in kinds if kind != _OUTPUT]
        parts = []
        for kind in dict.fromkeys(kinds):
            of_kind = wrong[[one == kind for one in kinds], 0].tolist()
            named = [
                f"{index} ({self._name_example(index)})"
                for index in of_kind[:_MOST_EXAMPLES]
            ]
            more = len(of_kind) - len(named)
            named += [f"{more} more"] * bool(more)
            parts.append(
                f"the {kind} is not finite for example {', '.join(named)}; "
                f"{_FIXES[kind]}"
            )
        return "; ".join(parts)


def _listed(names: Sequence[str]) -> str:
    """Write the first names, and count the others."""
    more = len(names) - _MOST_GROUPS
    listed = ", ".join(names[:_MOST_GROUPS])
    return f"{listed} and {more} more groups" if more > 0 else listed


@contextlib.contextmanager
def reading_data(step: int) -> Iterator[None]:
    """Turn an unreadable case during training into one line that names the step.

    Raises:
        RunError: a case could not be read, in whatever thread.
    """
    try:
        yield
    except (InputError, RunError) as error:
        raise RunError(
            f"step {step}: {error}; fix the data, then start the same command again"
        ) from error
