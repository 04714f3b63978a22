"""The fast subset of a long list of cases."""

from collections.abc import Sequence
from typing import Any

import pytest


def slow_after(count: int, cases: Sequence[Any]) -> list[Any]:
    """Leave the first cases alone in the fast subset: the others are marked as slow.

    A case is a tuple with a value for each argument, or the value of the only one.
    """
    slow = (
        pytest.param(*(case if isinstance(case, tuple) else (case,)), marks=_SLOW)
        for case in cases[count:]
    )
    return [*cases[:count], *slow]


_SLOW = pytest.mark.slow
