"""The types of the API and the Python values that stand for them inside domzero.

| API type  | Python value inside                                                        |
|-----------|----------------------------------------------------------------------------|
| string    | `str`                                                                      |
| int       | `int` (64 bit signed)                                                      |
| bool      | `bool`                                                                     |
| float     | `float`                                                                    |
| datetime  | `str`, always `YYYYMMDDTHH:MM:SSZ` (UTC); `NEVER` for “has not happened”    |
| enum      | `str`, one of the enum's values                                            |
| ref       | `str`, `OpaqueRef:` and a uuid, or `NULL_REF`                              |
| set       | `tuple` of the item's values                                               |
| map       | `dict`; nobody changes it after it was stored or handed on                 |
| record    | `dict` from wire field name to value, or a database row that acts like one |
| option    | the value, or `None`                                                       |
| void      | `None`                                                                     |

Values are immutable by convention: whoever wants another value builds a new one. That is what lets a
record be read, cached and sent without copying.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TypeAlias

NULL_REF = "OpaqueRef:NULL"
NEVER = "19700101T00:00:00Z"

Ref: TypeAlias = str
"""A reference to an object: `OpaqueRef:` followed by a uuid, or `NULL_REF`."""


@dataclass(frozen=True, slots=True)
class Primitive:
    """One of the built-in scalar types, or `void`."""

    name: str

    def __str__(self) -> str:
        return self.name


@dataclass(frozen=True, slots=True)
class EnumOf:
    """A value out of a named enum of the graph."""

    enum: str

    def __str__(self) -> str:
        return f"enum {self.enum}"


@dataclass(frozen=True, slots=True)
class RefTo:
    """A reference to an object of a class."""

    cls: str

    def __str__(self) -> str:
        return f"{self.cls} ref"


@dataclass(frozen=True, slots=True)
class RecordOf:
    """All fields of an object of a class."""

    cls: str

    def __str__(self) -> str:
        return f"{self.cls} record"


@dataclass(frozen=True, slots=True)
class SetOf:
    """An unordered collection; the API keeps the order it was given."""

    item: Type

    def __str__(self) -> str:
        return f"{self.item} set"


@dataclass(frozen=True, slots=True)
class MapOf:
    """A dictionary. On the wire its keys are strings whatever their type."""

    key: Type
    value: Type

    def __str__(self) -> str:
        return f"({self.key} -> {self.value}) map"


@dataclass(frozen=True, slots=True)
class OptionOf:
    """A value that may be absent."""

    item: Type

    def __str__(self) -> str:
        return f"{self.item} option"


Type: TypeAlias = Primitive | EnumOf | RefTo | RecordOf | SetOf | MapOf | OptionOf

STRING = Primitive("string")
INT = Primitive("int")
BOOL = Primitive("bool")
FLOAT = Primitive("float")
DATETIME = Primitive("datetime")
VOID = Primitive("void")
EVENT_BATCH = Primitive("event batch")
"""The result of `event.from`: a struct of `events`, `valid_ref_counts` and `token`."""
ANY_RECORD = Primitive("<class> record")
"""A record of whichever class the value says (the snapshot inside an event)."""

STRING_MAP = MapOf(STRING, STRING)
STRING_SET = SetOf(STRING)


def parts(type_: Type) -> Iterator[Type]:
    """The type itself and every type inside it."""
    yield type_
    match type_:
        case SetOf(item) | OptionOf(item):
            yield from parts(item)
        case MapOf(key, value):
            yield from parts(key)
            yield from parts(value)
        case _:
            return
