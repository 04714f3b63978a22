"""What the TPU compiler says of a compiled step."""

import dataclasses
from typing import Any

from unet_jax.planning.program import ProgramCost, program_cost
from unet_jax.runtime.compilation import step_cost


@dataclasses.dataclass(frozen=True)
class StepCost:
    """What a training step takes on each chip.

    Attributes:
        flops: of convolutions and dense products.
        memory_bytes: of HBM: arguments, results, what lies between, and the program.
        program: cycles, bytes moved and exchanges.
    """

    flops: float
    memory_bytes: float
    program: ProgramCost


def read_step_cost(compiled: Any, *, flops: float) -> StepCost:
    """Read the cost of a step that was compiled for a TPU.

    Args:
        compiled: the compiled step.
        flops: of the traced step, on one chip.

    Returns:
        Its cost on one chip.
    """
    code = compiled.memory_analysis().generated_code_size_in_bytes
    return StepCost(
        flops=flops,
        memory_bytes=step_cost(compiled)["memory_bytes"] + code,
        program=program_cost(compiled.as_text()),
    )
