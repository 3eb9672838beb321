"""Checks values on their way into the database, and makes equal ones share memory.

What is stored must be readable again after a restart, so a value of the wrong type is refused where it is written: it
is a mistake of the caller's code, never of a client (the dispatcher checked the client's arguments before).
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable
from typing import Any, TypeAlias

from domzero.idl.graph import Graph
from domzero.idl.records import EMPTY_MAP
from domzero.idl.types import BOOL, FLOAT, INT, EnumOf, MapOf, OptionOf, Primitive, RefTo, SetOf, Type

Prepare: TypeAlias = Callable[[Any], Any]
"""Takes a value, gives back an equal one to store. Raises `TypeError` or `ValueError`."""

LARGEST_INT = 2**63 - 1


def preparer(graph: Graph, type_: Type, canonical_ref: Callable[[str, str], str]) -> Prepare:
    """The check for a type. `canonical_ref(class, ref)` gives the string that the referred row itself holds."""
    match type_:
        case EnumOf(name):
            return _enum(name, graph.enums[name].values)
        case RefTo(cls):
            return lambda value: canonical_ref(cls, _text(value))
        case SetOf(item):
            return _set(preparer(graph, item, canonical_ref))
        case MapOf(key, value_type):
            return _map(preparer(graph, key, canonical_ref), preparer(graph, value_type, canonical_ref))
        case OptionOf(item):
            prepare = preparer(graph, item, canonical_ref)
            return lambda value: None if value is None else prepare(value)
        case Primitive():
            return {INT: _int, BOOL: _bool, FLOAT: _float}.get(type_, _text)
    raise TypeError(f"no field can hold a {type_}")


def _text(value: Any) -> str:
    if type(value) is not str:
        raise TypeError(f"expected text, got {value!r}")
    if not value.isascii():
        value.encode()  # a lone surrogate cannot be stored: UnicodeEncodeError is a ValueError
    return value


def _int(value: Any) -> int:
    if type(value) is not int:
        raise TypeError(f"expected a whole number, got {value!r}")
    if not -LARGEST_INT - 1 <= value <= LARGEST_INT:
        raise ValueError(f"{value} does not fit into 64 bits")
    return value


def _bool(value: Any) -> bool:
    if type(value) is not bool:
        raise TypeError(f"expected true or false, got {value!r}")
    return value


def _float(value: Any) -> float:
    if type(value) not in (float, int):
        raise TypeError(f"expected a number, got {value!r}")
    if not math.isfinite(value):
        raise ValueError(f"{value} is no finite number")
    return float(value)


def _enum(name: str, words: dict[str, str]) -> Prepare:
    canonical = {word: word for word in ("", *words)}

    def prepare(value: Any) -> str:
        try:
            return canonical[value]
        except (KeyError, TypeError):
            raise ValueError(f"{value!r} is not in enum {name}") from None

    return prepare


def _set(prepare: Prepare) -> Prepare:
    def prepare_set(value: Any) -> tuple[Any, ...]:
        if type(value) is not tuple:
            raise TypeError(f"expected a tuple, got {value!r}")
        return tuple(prepare(item) for item in value) if value else ()

    return prepare_set


def _map(prepare_key: Prepare, prepare_value: Prepare) -> Prepare:
    def prepare_map(value: Any) -> dict[Any, Any]:
        if type(value) is not dict:
            raise TypeError(f"expected a dict, got {value!r}")
        return {_shared(prepare_key(k)): prepare_value(v) for k, v in value.items()} if value else EMPTY_MAP

    return prepare_map


def _shared(key: Any) -> Any:
    return sys.intern(key) if type(key) is str else key
