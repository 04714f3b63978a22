"""Types of the options of augmentations, with the values that they accept.

Bounds keep out what has no meaning (a size of 0, a width that no image has), not what
is unwise.
"""

from typing import Annotated, Any, NamedTuple

Limits = tuple[float, float]
"""Lower and upper limit of what is drawn."""


class Between(NamedTuple):
    """Accepts a number between two bounds; integers become floats."""

    lowest: float
    highest: float

    def accept(self, value: Any) -> float:
        """Return the value in its type, or raise a ValueError with what is expected."""
        if not _is_number(value) or not self.lowest <= value <= self.highest:
            raise ValueError(f"a number between {self.lowest} and {self.highest}")
        return float(value)


class Within(NamedTuple):
    """Accepts a lower and an upper limit between two bounds."""

    lowest: float
    highest: float

    def accept(self, value: Any) -> Limits:
        """Return the value in its type, or raise a ValueError with what is expected."""
        if (
            not _is_tuple_of_numbers(value)
            or len(value) != 2
            or not self.lowest <= value[0] <= value[1] <= self.highest
        ):
            raise ValueError(
                f"a lower and an upper limit between {self.lowest} and {self.highest}"
            )
        return float(value[0]), float(value[1])


class SpatialAxes(NamedTuple):
    """Accepts any of the axes 0, 1 and 2."""

    def accept(self, value: Any) -> tuple[int, ...]:
        """Return the value in its type, or raise a ValueError with what is expected."""
        if not _is_tuple_of_numbers(value) or not set(value) <= {0, 1, 2}:
            raise ValueError("axes out of 0, 1, 2")
        return tuple(int(axis) for axis in value)


Probability = Annotated[float, Between(0.0, 1.0)]
Axes = Annotated[tuple[int, ...], SpatialAxes()]


def _is_number(value: Any) -> bool:
    """Tell whether a value is a real number."""
    return isinstance(value, int | float)


def _is_tuple_of_numbers(value: Any) -> bool:
    """Tell whether a value is a tuple or list of real numbers."""
    return isinstance(value, tuple | list) and all(map(_is_number, value))
