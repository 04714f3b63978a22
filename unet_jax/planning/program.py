"""Adds up the cost of a compiled TPU program on one chip from its HLO text."""

import dataclasses
import math
import re
from collections.abc import Callable, Iterator


@dataclasses.dataclass(frozen=True)
class ProgramCost:
    """Cost of one run of a compiled program on one chip.

    Attributes:
        cycles: sum of the compiler's estimates for all instructions; it has none for
            exchanges between chips.
        hbm_bytes: bytes read from and written to HBM, including tile padding.
        all_reduces: number of all-reduces over the chips.
        all_reduce_bytes: bytes of the arrays that they sum, without padding.
    """

    cycles: int = 0
    hbm_bytes: int = 0
    all_reduces: int = 0
    all_reduce_bytes: int = 0

    def times(self, count: int) -> "ProgramCost":
        """Return the cost of several runs."""
        values = dataclasses.astuple(self)
        return ProgramCost(*(value * count for value in values))

    def plus(self, other: "ProgramCost") -> "ProgramCost":
        """Return the cost of both programs, one after the other."""
        pairs = zip(dataclasses.astuple(self), dataclasses.astuple(other), strict=True)
        return ProgramCost(*(one + another for one, another in pairs))


@dataclasses.dataclass(frozen=True)
class _Instruction:
    """One instruction: ``name = shape opcode(operands), attributes``."""

    name: str
    shape: str
    opcode: str
    operands: tuple[str, ...]
    attributes: str


_HEADER = re.compile(r"^(ENTRY )?%?([\w.\-]+) \(.*\{$")
_INSTRUCTION = re.compile(
    r"^\s+(?:ROOT )?%?([\w.\-]+) = (.*?)\s([a-z][a-z0-9\-]*)\(([^)]*)\)(.*)$"
)
_NAME = re.compile(r"%([\w.\-]+)")
_CYCLES = re.compile(r'"estimated_cycles":"(\d+)"')
_CALLED = re.compile(r"(?:calls|body|to_apply)=%?([\w.\-]+)")
_CONDITION = re.compile(r"condition=%?([\w.\-]+)")
_TRIPS = re.compile(r'"known_trip_count":\{"n":"(\d+)"\}')
_BRANCHES = re.compile(
    r"branch_computations=\{([^}]*)\}"
    r"|true_computation=%?([\w.\-]+), false_computation=%?([\w.\-]+)"
)
# An array: type, sizes, layout (minor axis first), and tile or memory space.
_ARRAY = re.compile(
    r"\b(pred|[a-z]+\d+)[a-z0-9]*\[([\d,]*)\](?:\{([\d,]*)(?::([^}]*))?\})?"
)
_TILE = re.compile(r"T\(([\d,]+)\)")
_ELSEWHERE = re.compile(r"S\(\d+\)")

_FREE = {
    "parameter",
    "constant",
    "tuple",
    "get-tuple-element",
    "bitcast",
    "custom-call",
    "while",
    "conditional",
    "call",
}
"""Opcodes that move nothing, or whose bytes are counted elsewhere."""

_PARTIAL = ("slice", "dynamic-slice", "gather")
"""Opcodes that read only as many bytes as their result has."""

_PARTIAL_START = ("slice-start", "dynamic-slice-start")
"""Asynchronous forms of these; their result is operand, result and a flag."""


def program_cost(text: str) -> ProgramCost:
    """Add up the compiler's estimates over a program.

    The body of a loop counts as often as it runs. Of several branches the most
    expensive one counts. A fusion has the estimate of its instruction.

    Args:
        text: text of a scheduled HLO module, from ``compiled.as_text()``.

    Returns: The cost of one run.
    Raises: ValueError: the text has no ENTRY computation.
    """
    computations, entry = _computations(text)
    known: dict[str, ProgramCost] = {}

    def cost_of(name: str) -> ProgramCost:
        if name not in known:
            found = computations.get(name, {})
            total = ProgramCost()
            for one in found.values():
                total = total.plus(ProgramCost(hbm_bytes=_moved(one, found)))
                total = total.plus(_own_and_called(one, computations, cost_of))
            known[name] = total
        return known[name]

    return cost_of(entry)


def _computations(text: str) -> tuple[dict[str, dict[str, _Instruction]], str]:
    """Instructions of each computation by name, and the name of the entry."""
    computations: dict[str, dict[str, _Instruction]] = {}
    entry, current = None, None
    for line in text.splitlines():
        header = _HEADER.match(line)
        if header:
            current = computations.setdefault(header[2], {})
            entry = header[2] if header[1] else entry
            continue
        found = _INSTRUCTION.match(line)
        if found and current is not None:
            operands = tuple(_NAME.findall(found[4]))
            if found[3] == "constant":
                operands = (found[4],)
            current[found[1]] = _Instruction(
                found[1], found[2], found[3], operands, found[5]
            )
    if entry is None:
        raise ValueError("found no ENTRY computation in the program's text")
    return computations, entry


def _own_and_called(
    one: _Instruction,
    computations: dict[str, dict[str, _Instruction]],
    cost_of: Callable[[str], ProgramCost],
) -> ProgramCost:
    """Cycles and exchanges of one instruction and the computations that it calls."""
    estimate = _CYCLES.search(one.attributes)
    own = ProgramCost(cycles=int(estimate[1]) if estimate else 0)
    called = _CALLED.search(one.attributes)
    inner = cost_of(called[1]) if called else ProgramCost()
    match one.opcode:
        case "all-reduce" | "all-reduce-start":
            summed = sum(size for size, _, _ in _arrays(one.shape))
            return own.plus(ProgramCost(all_reduces=1, all_reduce_bytes=summed))
        case "conditional":
            return own.plus(_most_expensive(one, cost_of))
        case "while":
            return own.plus(inner.times(_trips(one, computations)))
        case "fusion":  # its estimate includes its parts, which may communicate
            return dataclasses.replace(inner, cycles=own.cycles, hbm_bytes=0)
        case "call" | "async-start":
            return own.plus(inner)
    return own


def _most_expensive(
    one: _Instruction, cost_of: Callable[[str], ProgramCost]
) -> ProgramCost:
    """Cost of the branch with the most cycles."""
    found = _BRANCHES.search(one.attributes)
    if found is None:
        return ProgramCost()
    names = found[1].split(",") if found[1] else [found[2], found[3]]
    costs = [cost_of(name.strip().lstrip("%")) for name in names]
    return max(costs, key=lambda cost: cost.cycles)


def _trips(loop: _Instruction, computations: dict[str, dict[str, _Instruction]]) -> int:
    """Number of runs of a loop: the compiler's figure, or the bound of its counter.

    A loop with neither counts once; loops of jax's scan have one of them.
    """
    known = _TRIPS.search(loop.attributes)
    if known:
        return int(known[1])
    condition = _CONDITION.search(loop.attributes)
    inside = computations.get(condition[1], {}) if condition else {}
    for one in inside.values():
        if one.opcode == "compare" and "direction=LT" in one.attributes:
            bound = inside.get(one.operands[-1])
            if bound is not None and bound.opcode == "constant":
                return int(bound.operands[0])
    return 1


def _moved(one: _Instruction, inside: dict[str, _Instruction]) -> int:
    """Bytes of HBM that an instruction reads and writes."""
    if one.opcode in _FREE or one.opcode.endswith("-done"):
        return 0
    if one.opcode in _PARTIAL_START:
        (_, _, from_hbm), *_, (_, padded, to_hbm), _ = _arrays(one.shape)
        return padded * (from_hbm + to_hbm)
    written = _hbm_bytes(one.shape)
    if one.opcode == "copy-start":  # its result includes source and target
        return written
    operands = [inside[name].shape for name in one.operands if name in inside]
    if one.opcode in _PARTIAL:
        elsewhere = not operands or not _hbm_bytes(operands[0])
        return written + (0 if elsewhere else _padded_bytes(one.shape))
    if one.opcode == "dynamic-update-slice":  # in place
        return 2 * _padded_bytes(operands[1]) if written else 0
    return written + sum(map(_hbm_bytes, operands))


def _hbm_bytes(shape: str) -> int:
    """Bytes, with padding, of the arrays of a shape that are stored in HBM."""
    return sum(padded for _, padded, in_hbm in _arrays(shape) if in_hbm)


def _padded_bytes(shape: str) -> int:
    """Bytes, with padding, of all arrays of a shape."""
    return sum(padded for _, padded, _ in _arrays(shape))


def _arrays(shape: str) -> Iterator[tuple[int, int, bool]]:
    """For each array: bytes, bytes with padding, and whether it is stored in HBM."""
    for kind, sizes, order, stored in _ARRAY.findall(shape):
        bits = 8 if kind == "pred" else int(re.sub(r"\D", "", kind))
        axes = [int(size) for size in sizes.split(",") if size]
        minor_first = [axes[int(axis)] for axis in order.split(",") if axis]
        tile = _TILE.search(stored)
        steps = [int(size) for size in tile[1].split(",")][::-1] if tile else []
        padded = math.prod(minor_first[len(steps) :])
        for index, step in enumerate(steps):
            size = minor_first[index] if index < len(minor_first) else 1
            padded *= -(-size // step) * step
        if not order:
            padded = math.prod(axes) if not steps else padded
        yield (
            math.prod(axes) * bits // 8,
            padded * bits // 8,
            not _ELSEWHERE.search(stored),
        )
