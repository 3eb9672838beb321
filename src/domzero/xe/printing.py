"""The layout of what commands print. Pure: texts in, texts out."""

from __future__ import annotations

from collections.abc import Sequence

INDENT = 4


def record_text(fields: Sequence[tuple[str, str]]) -> str:
    """A record as a block of `label: value` lines, the first label on the left, the others on the right.

    The block ends with an empty line; whoever prints it ends the line once more, which makes the second one.
    """
    width = INDENT + max((len(label) for label, _ in fields), default=0)
    lines = [
        f"{label.rjust(width) if position else label.ljust(width)}: {value}"
        for position, (label, value) in enumerate(fields)
    ]
    return "\n".join(lines) + "\n\n"


def minimal_text(values: Sequence[str]) -> str:
    """Values on one line, separated by commas; commas within a value are marked by a backslash, as are backslashes."""
    return ",".join(value.replace("\\", "\\\\").replace(",", "\\,") for value in values)
