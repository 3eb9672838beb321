"""Harmless values of every type, as a client would send them."""

from __future__ import annotations

from typing import Any

from domzero.datamodel.graph import GRAPH
from domzero.idl.types import (
    BOOL,
    DATETIME,
    FLOAT,
    INT,
    NEVER,
    NULL_REF,
    EnumOf,
    MapOf,
    OptionOf,
    RecordOf,
    RefTo,
    SetOf,
    Type,
)


def harmless(type_: Type) -> Any:
    match type_:
        case SetOf():
            return []
        case MapOf() | RecordOf():
            return {}
        case RefTo():
            return NULL_REF
        case EnumOf(name):
            return next(iter(GRAPH.enums[name].values))
        case OptionOf(item):
            return harmless(item)
        case _:
            return {INT: "0", BOOL: False, FLOAT: 0.0, DATETIME: NEVER}.get(type_, "")
