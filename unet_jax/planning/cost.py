"""Reads the cost of a training step that was compiled for a TPU."""

import dataclasses
from typing import Any

from unet_jax.planning.chips import Slice
from unet_jax.planning.program import ProgramCost, program_cost
from unet_jax.runtime.compilation import step_cost


@dataclasses.dataclass(frozen=True)
class StepCost:
    """Cost of a training step on each chip.

    Attributes:
        flops: operations of convolutions and dense products.
        memory_bytes: HBM for arguments, results, temporary arrays and the program.
        program: cycles, bytes moved and exchanges.
    """

    flops: float
    memory_bytes: float
    program: ProgramCost


@dataclasses.dataclass(frozen=True)
class Compiled:
    """Result of compiling the step for one batch.

    Attributes:
        rows: crops on a chip.
        memory_bytes: HBM that a chip needs.
        cost: cost of the step; None where the compiler refused it for its memory.
    """

    rows: int
    memory_bytes: float
    cost: StepCost | None

    def fits(self, target: Slice) -> bool:
        """Whether the compiler accepts the step and its memory is within the chip's.

        The compiler has accepted a step whose figures exceed the memory of the chip.
        Such a step counts as not fitting.
        """
        return self.cost is not None and self.memory_bytes <= target.chip.hbm_bytes


def read_step_cost(compiled: Any, *, flops: float) -> StepCost:
    """Read the cost, on one chip, of a step that was compiled for a TPU.

    Args:
        compiled: the compiled step.
        flops: operations of the traced step on one chip.
    """
    code = compiled.memory_analysis().generated_code_size_in_bytes
    return StepCost(
        flops=flops,
        memory_bytes=step_cost(compiled)["memory_bytes"] + code,
        program=program_cost(compiled.as_text()),
    )
