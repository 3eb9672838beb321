"""Values as the command line writes and reads them. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from domzero.idl.graph import Graph
from domzero.idl.types import BOOL, DATETIME, FLOAT, INT, EnumOf, SetOf, Type
from domzero.xe.errors import CommandError
from domzero.xe.line import truth

NULL = "<not in database>"
"""Shown for a reference to nothing."""
DANGLING = "<invalid reference>"
EXPENSIVE = "<expensive field>"
"""Shown in lists for what costs a call for each object."""

_SIZE = re.compile(r"(\d+)\s*(|B|bytes|KiB|MiB|GiB|TiB)", re.IGNORECASE)
_UNITS = {"": 1, "b": 1, "bytes": 1, "kib": 2**10, "mib": 2**20, "gib": 2**30, "tib": 2**40}
_LOWERED = frozenset({"vm_power_state", "task_status_type"})
"""Enums whose words the command line writes small."""
_LARGEST = 2**63 - 1


def shown(value: Any, type_: Type | None = None) -> str:
    """A scalar as text."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float):
        return f"{value:.3f}"
    if isinstance(type_, EnumOf) and type_.enum in _LOWERED:
        return str(value).lower()
    return str(value)


def shown_set(values: tuple[str, ...]) -> str:
    """The members of a set on one line."""
    return "; ".join(values)


def shown_map(entries: Mapping[str, str]) -> str:
    """The entries of a map on one line."""
    return "; ".join(f"{key}: {value}" for key, value in entries.items())


def read(name: str, text: str, type_: Type, graph: Graph) -> Any:
    """The API value that a parameter's text stands for. Raises `CommandError`."""
    match type_:
        case EnumOf(enum):
            return word(name, text, tuple(graph.enums[enum].values))
        case SetOf(item):
            return [read(name, part.strip(), item, graph) for part in text.split(",") if part.strip()]
    if type_ == BOOL:
        return truth(name, text)
    if type_ == INT:
        return number(name, text)
    if type_ == FLOAT:
        return fraction(name, text)
    if type_ == DATETIME:
        return moment(name, text)
    return text


def moment(name: str, text: str) -> str:
    """A time in the API's form. Raises `CommandError`."""
    if re.fullmatch(r"\d{8}T\d\d:\d\d:\d\dZ", text) is None:
        raise CommandError(f"Parameter {name} must be a time such as 20110930T12:00:00Z")
    return text


def fraction(name: str, text: str) -> float:
    """A number that need not be whole. Raises `CommandError`."""
    try:
        value = float(text)
    except ValueError:
        value = float("nan")
    if not abs(value) < float("inf"):
        raise CommandError(f"Parameter {name} must be a floating-point number")
    return value


def number(name: str, text: str) -> int:
    """A whole number, with a unit where it is a size (`10GiB`). Raises `CommandError`."""
    negative, digits = text.startswith("-"), text.removeprefix("-")
    match = _SIZE.fullmatch(digits)
    value = int(match[1]) * _UNITS[match[2].lower()] if match is not None and len(match[1]) < 20 else _LARGEST + 1
    if match is None or value > _LARGEST:
        raise CommandError(f"Parameter {name} must be an integer")
    return -value if negative else value


def word(name: str, text: str, words: tuple[str, ...]) -> str:
    """One of an enum's words, whatever its case and whether joined by `-` or `_`. Raises `CommandError`."""
    plain = text.lower().replace("-", "_")
    for candidate in words:
        if candidate.lower().replace("-", "_") == plain:
            return candidate
    raise CommandError(f"Parameter {name} must be one of: {', '.join(words)}")
