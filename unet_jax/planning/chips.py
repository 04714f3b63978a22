"""Lists TPU chips with their figures, and the slices that are made of them."""

import dataclasses
import math
import re

from unet_jax.errors import InputError


@dataclasses.dataclass(frozen=True)
class Chip:
    """One TPU chip by its maker's figures.

    Attributes:
        name: name in a topology, such as "v5e".
        axes: number of axes of the network between the chips of a slice.
        hbm_bytes: HBM that the compiler allows a program.
        vmem_bytes: memory on the chip; small arrays stay in it.
        flops_per_second: peak in bfloat16; by default a TPU multiplies float32 in
            bfloat16 too.
        hbm_bytes_per_second: bandwidth between the chip and its HBM.
        flops_per_cycle: operations of all matrix units together in one cycle.
        link_bytes_per_second: bandwidth of one link to a neighbour, in one direction.
        pod_chips: chips of the largest slice.
    """

    name: str
    axes: int
    hbm_bytes: float
    vmem_bytes: float
    flops_per_second: float
    hbm_bytes_per_second: float
    flops_per_cycle: float
    link_bytes_per_second: float
    pod_chips: int

    @property
    def cycles_per_second(self) -> float:
        """Clock rate: at the peak all matrix units are busy in every cycle."""
        return self.flops_per_second / self.flops_per_cycle

    @property
    def ring_bytes_per_second(self) -> float:
        """Bandwidth of a chip in a ring, which sends to both neighbours at once."""
        return 2 * self.link_bytes_per_second


# Peaks, HBM bandwidth and links are from the maker's public pages; a link is the chip's
# bidirectional bandwidth divided by its ports and by two. HBM is the limit that the
# compiler names when a program does not fit.
_CHIPS = (
    Chip(
        name="v5e",
        axes=2,
        hbm_bytes=15.75 * 2**30,
        vmem_bytes=128 * 2**20,
        flops_per_second=197e12,
        hbm_bytes_per_second=819e9,
        flops_per_cycle=4 * 2 * 128**2,
        link_bytes_per_second=50e9,
        pod_chips=256,
    ),
    Chip(
        name="v5p",
        axes=3,
        hbm_bytes=95.74 * 2**30,
        vmem_bytes=128 * 2**20,
        flops_per_second=459e12,
        hbm_bytes_per_second=2765e9,
        flops_per_cycle=8 * 2 * 128**2,
        link_bytes_per_second=100e9,
        pod_chips=8960,
    ),
)


@dataclasses.dataclass(frozen=True)
class Slice:
    """A grid of chips of one kind.

    Attributes:
        chip: kind of all chips.
        shape: chips along each axis.
    """

    chip: Chip
    shape: tuple[int, ...]

    @property
    def chips(self) -> int:
        """Number of chips."""
        return math.prod(self.shape)

    @property
    def name(self) -> str:
        """Topology in the spelling of libtpu."""
        return f"{self.chip.name}:{'x'.join(map(str, self.shape))}"


def parse_topology(topology: str | None) -> Slice:
    """Read the name of a slice.

    Args:
        topology: kind and shape, such as "v5e:4x4" or "v5p:2x2x1"; None if the user
            gave nothing.

    Returns: The slice.
    Raises: InputError: the topology is missing or unknown, or cannot be split into
        hosts.

    Example:
        >>> parse_topology("v5p:2x2x4").chips
        16
    """
    expected = (
        "expected a kind of TPU and the shape of the slice, such as v5e:4x4 or "
        "v5p:2x2x1"
    )
    if not topology:
        raise InputError(f"--topology: found nothing, {expected}")
    kind, _, sizes = topology.partition(":")
    chip = next((chip for chip in _CHIPS if chip.name == kind), None)
    if chip is None or not re.fullmatch(r"[1-9]\d*(x[1-9]\d*)*", sizes):
        raise InputError(f"--topology: found {topology!r}, {expected}")
    shape = tuple(int(size) for size in sizes.split("x"))
    found = Slice(chip, shape)
    if len(shape) != chip.axes:
        raise InputError(
            f"--topology: found {topology!r} with {len(shape)} axes, expected "
            f"{chip.axes} for {kind}, such as {growing_slices(chip)[0].name}"
        )
    if shape[0] % 2 or shape[1] % 2 or found.chips > chip.pod_chips:
        raise InputError(
            f"--topology: found {topology!r}, expected even sizes on the first two "
            f"axes (a host has 2x2 chips) and at most {chip.pod_chips} chips"
        )
    return found


def growing_slices(chip: Chip, *, most: int = 256) -> tuple[Slice, ...]:
    """List slices of a chip, each twice as large as the one before.

    Args:
        chip: kind of the chips.
        most: chips of the largest slice.

    Returns: Slices from the four chips of one host on, each as close to a square or
        cube as possible.

    Example:
        >>> [s.name for s in growing_slices(parse_topology("v5e:2x2").chip, most=32)]
        ['v5e:2x2', 'v5e:2x4', 'v5e:4x4', 'v5e:4x8']
    """
    shape = (2, 2, 1)[: chip.axes]
    found = [Slice(chip, shape)]
    while 2 * found[-1].chips <= most:
        smallest = max(axis for axis in range(chip.axes) if shape[axis] == min(shape))
        shape = tuple(n * (1 + (axis == smallest)) for axis, n in enumerate(shape))
        found.append(Slice(chip, shape))
    return tuple(found)
