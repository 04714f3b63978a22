"""What becomes of a run in which a step, or a case, turned out to be no good."""

import contextlib
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from unet_jax.errors import InputError, RunError
from unet_jax.training.finite import kind_of

_MOST_EXAMPLES, _MOST_GROUPS = 3, 12
"""Names in one message; the others are counted."""

_OUTPUT = "network's output"
_RECORD_KEY = "skipped_steps"

_MENDS = {
    "image": "fix or remove these cases",
    "augmented image": "augmentation made it so: narrow the ranges of augment",
    _OUTPUT: "look at these cases, or lower optimizer.learning_rate",
    "loss": "look at these cases, or lower optimizer.learning_rate",
}
_SLOWER = "lower optimizer.learning_rate or set optimizer.gradient_clip"


class NonfiniteSteps:
    """Judges the steps that the device masked: some are left out, one more is the end.

    A masked step has not touched the state (`training.step`), so that to leave it out
    is to do no more than say so.
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
        """Begin a run, or go on with one.

        Args:
            allowed: masked steps that are left out, over the whole run.
            record: of the run that goes on; empty for a new one.
            groups: names of the groups of parameters, in the step's order.
            name_example: names the case of an example index.
            report: prints a line.
        """
        self._allowed = allowed
        self._skipped = int(record.get(_RECORD_KEY, 0))
        self._groups = tuple(groups)
        self._name_example = name_example
        self._report = report

    def leaves_out(
        self, step: int, metrics: Mapping[str, Any], *, last_good: Callable[[], str]
    ) -> bool:
        """Say whether a step was masked and is left out.

        Args:
            step: its number.
            metrics: of the step, on the host.
            last_good: says in words which checkpoint is whole, for the message.

        Returns:
            False for a sound step.

        Raises:
            RunError: it was masked, and no more of them may be left out.
        """
        if not metrics["problems"]["masked"]:
            return False
        text = self._describe(metrics)
        if self._skipped >= self._allowed:
            before = f"{self._skipped} of them left out before; " * bool(self._skipped)
            raise RunError(
                f"step {step}: {text}; the step changed nothing; {before}"
                f"{last_good()}; train.skip_nonfinite=N leaves out N such steps"
            )
        self._skipped += 1
        self._report(
            f"step {step}: {text}; the step is left out ({self._skipped} of "
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
        """Name the examples that are to blame, or say that none of them is."""
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
                f"{_MENDS[kind]}"
            )
        return "; ".join(parts)


def _listed(names: Sequence[str]) -> str:
    """Write the first names, and count the others."""
    more = len(names) - _MOST_GROUPS
    listed = ", ".join(names[:_MOST_GROUPS])
    return f"{listed} and {more} more groups" if more > 0 else listed


@contextlib.contextmanager
def reading_data(step: int, last_good: Callable[[], str]) -> Iterator[None]:
    """Turn a problem of the data in mid-run into one line that says what is safe.

    Args:
        step: that cannot be made, or after which cannot be validated.
        last_good: says in words which checkpoint is whole.

    Raises:
        RunError: a case could not be read, in whatever thread.
    """
    try:
        yield
    except (InputError, RunError) as error:
        raise RunError(
            f"step {step}: {error}; {last_good()}; fix the data, and the same "
            "command goes on from there"
        ) from error
