"""What the TPU compiler says of a compiled step, read from its program and analyses."""

import dataclasses
import math
import re
from typing import Any

from unet_jax.training.compilation import step_cost


@dataclasses.dataclass(frozen=True)
class ProgramCost:
    """What one run of a compiled program takes on one chip.

    Attributes:
        cycles: the compiler's estimates of all instructions, added up; collectives
            have none.
        all_reduces: exchanges between the chips.
        all_reduce_bytes: of the arrays that are summed over the chips.
    """

    cycles: int
    all_reduces: int
    all_reduce_bytes: int

    def times(self, count: int) -> "ProgramCost":
        """Return the cost of as many runs."""
        return ProgramCost(
            self.cycles * count,
            self.all_reduces * count,
            self.all_reduce_bytes * count,
        )

    def plus(self, other: "ProgramCost") -> "ProgramCost":
        """Return the cost of both, one after the other."""
        return ProgramCost(
            self.cycles + other.cycles,
            self.all_reduces + other.all_reduces,
            self.all_reduce_bytes + other.all_reduce_bytes,
        )


@dataclasses.dataclass(frozen=True)
class StepCost:
    """What a training step takes on each chip.

    Attributes:
        flops: of convolutions and dense products.
        memory_bytes: of HBM: arguments, results, what lies between, and the program.
        moved_bytes: read and written by all instructions, in HBM or on the chip.
        program: cycles and exchanges.
    """

    flops: float
    memory_bytes: float
    moved_bytes: float
    program: ProgramCost


_NOTHING = ProgramCost(0, 0, 0)

_HEADER = re.compile(r"^(ENTRY )?%?([\w.\-]+) \(.*\{$")
_INSTRUCTION = re.compile(r"^\s+(?:ROOT )?%?[\w.\-]+ = (.*)$")
_CYCLES = re.compile(r'"estimated_cycles":"(\d+)"')
_TRIPS = re.compile(r'"known_trip_count":\{"n":"(\d+)"\}')
_CALLED = re.compile(r"(?:calls|body|to_apply|called_computation)=%?([\w.\-]+)")
_BRANCHES = re.compile(
    r"branch_computations=\{([^}]*)\}"
    r"|true_computation=%?([\w.\-]+), false_computation=%?([\w.\-]+)"
)
_OPCODE = re.compile(r"\s([a-z][a-z0-9\-]*)\(")
_SHAPE = re.compile(r"\b(pred|[a-z]+\d+)[a-z0-9]*\[([\d,]*)\]")


def read_step_cost(compiled: Any, *, flops: float) -> StepCost:
    """Read the cost of a step that was compiled for a TPU.

    Args:
        compiled: the compiled step.
        flops: of the traced step, on one chip.

    Returns:
        Its cost on one chip.
    """
    memory = compiled.memory_analysis()
    analysis = compiled.cost_analysis()
    return StepCost(
        flops=flops,
        memory_bytes=step_cost(compiled)["memory_bytes"]
        + memory.generated_code_size_in_bytes,
        moved_bytes=float(analysis["bytes accessed"]),
        program=program_cost(compiled.as_text()),
    )


def program_cost(text: str) -> ProgramCost:
    """Add up the compiler's estimates over a program.

    The body of a loop counts as often as it runs, of a branch the dearest; what is
    fused into one instruction has that instruction's estimate.

    Args:
        text: of a scheduled HLO module, as ``compiled.as_text()`` gives it.

    Returns:
        The cost of one run.

    Raises:
        ValueError: the text has no entry.
    """
    computations, entry = _computations(text)
    known: dict[str, ProgramCost] = {}

    def cost_of(name: str) -> ProgramCost:
        if name not in known:
            total = _NOTHING
            for line in computations.get(name, ()):
                total = total.plus(_instruction_cost(line, cost_of))
            known[name] = total
        return known[name]

    return cost_of(entry)


def _computations(text: str) -> tuple[dict[str, list[str]], str]:
    """Instructions of each computation by its name, and the name of the entry."""
    computations: dict[str, list[str]] = {}
    entry, current = None, None
    for line in text.splitlines():
        header = _HEADER.match(line)
        if header:
            current = header[2]
            computations[current] = []
            entry = current if header[1] else entry
        elif current is not None:
            instruction = _INSTRUCTION.match(line)
            if instruction:
                computations[current].append(instruction[1])
    if entry is None:
        raise ValueError("found no ENTRY computation in the program's text")
    return computations, entry


def _instruction_cost(line: str, cost_of) -> ProgramCost:
    """The cost of one instruction with all that it calls."""
    operation = _OPCODE.search(line)
    if operation is None:
        return _NOTHING
    opcode = operation[1]
    estimate = _CYCLES.search(line)
    own = ProgramCost(int(estimate[1]) if estimate else 0, 0, 0)
    if opcode in ("all-reduce", "all-reduce-start"):
        return own.plus(ProgramCost(0, 1, _bytes_of(line[: operation.start()])))
    if opcode == "conditional":
        return own.plus(_dearest(line, cost_of))
    if opcode == "while":
        trips = _TRIPS.search(line)
        return own.plus(_called(line, cost_of).times(int(trips[1]) if trips else 1))
    if opcode == "fusion":  # its estimate is that of its parts; they may communicate
        return dataclasses.replace(_called(line, cost_of), cycles=own.cycles)
    if opcode in ("call", "async-start"):
        return own.plus(_called(line, cost_of))
    return own


def _called(line: str, cost_of) -> ProgramCost:
    """The cost of the computation that an instruction runs."""
    called = _CALLED.search(line)
    return cost_of(called[1]) if called else _NOTHING


def _dearest(line: str, cost_of) -> ProgramCost:
    """The cost of the branch with the most cycles."""
    branches = _BRANCHES.search(line)
    if branches is None:
        return _NOTHING
    names = branches[1].split(",") if branches[1] else [branches[2], branches[3]]
    costs = [cost_of(name.strip().lstrip("%")) for name in names]
    return max(costs, key=lambda cost: cost.cycles)


def _bytes_of(shape: str) -> int:
    """Bytes of an array or of a tuple of arrays, without the padding of its tiles."""
    total = 0
    for kind, sizes in _SHAPE.findall(shape):
        bits = 8 if kind == "pred" else int(re.sub(r"\D", "", kind))
        count = math.prod(int(size) for size in sizes.split(",") if size)
        total += count * bits // 8
    return total
