"""Formats bytes, counts, times and tables as plain text."""

from collections.abc import Sequence


def aligned_table(rows: Sequence[Sequence[str]]) -> str:
    """Lay out cells in columns: the first to the left, the others to the right.

    Args:
        rows: rows of equal length; the first one is the header.

    Returns: Lines of text with a rule below the header.

    Example:
        >>> print(aligned_table([["slice", "chips"], ["v5e:4x4", "16"]]))
        slice    chips
        --------------
        v5e:4x4     16
    """
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = []
    for first, *others in rows:
        cells = [f"{first:<{widths[0]}}"]
        cells += [f"{c:>{w}}" for c, w in zip(others, widths[1:], strict=True)]
        lines.append("  ".join(cells).rstrip())
    rule = "-" * (sum(widths) + 2 * (len(widths) - 1))
    return "\n".join([lines[0], rule, *lines[1:]])


def bytes_text(count: float) -> str:
    """Write a number of bytes with its unit.

    Returns: The number with three digits, or two decimals in GiB, and a binary unit.

    Example:
        >>> bytes_text(1.5 * 2**30)
        '1.50 GiB'
    """
    if count >= 2**30:
        return f"{count / 2**30:,.2f} GiB"
    for unit, size in (("MiB", 2**20), ("KiB", 2**10)):
        if count >= size:
            return f"{_digits(count / size)} {unit}"
    return f"{count:.0f} B"


def count_text(count: float, unit: str = "") -> str:
    """Write a large number with a decimal prefix.

    Args:
        count: number of units.
        unit: symbol of the unit.

    Returns: The number with three digits, a prefix and the unit.

    Example:
        >>> count_text(2.387e9, "FLOP")
        '2.39 GFLOP'
    """
    for prefix, size in (("T", 1e12), ("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if count >= size:
            return f"{_digits(count / size)} {prefix}{unit}"
    return f"{_digits(count)} {unit}".rstrip()


def seconds_text(seconds: float) -> str:
    """Write a short time.

    Returns: The time with three digits and a unit.

    Example:
        >>> seconds_text(0.00178)
        '1.78 ms'
    """
    for unit, size in (("s", 1.0), ("ms", 1e-3)):
        if seconds >= size:
            return f"{_digits(seconds / size)} {unit}"
    return f"{_digits(seconds / 1e-6)} us"


def _digits(value: float) -> str:
    """Three significant digits; numbers above 99 have no decimals."""
    if value >= 99.95:
        return f"{value:,.0f}"
    return f"{value:.1f}" if value >= 9.995 else f"{value:.2f}"
