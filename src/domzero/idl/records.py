"""Records: immutable versions of an object's fields.

A change to an object makes a new `Record`; whoever holds an old one (an event, a reader half way through an answer)
keeps a consistent view. The encoded forms that codecs make of a record are kept on it, so they die with the version
they belong to and need no invalidation.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from domzero.idl.model import MISSING, Class, Field
from domzero.idl.types import BOOL, DATETIME, FLOAT, INT, NEVER, NULL_REF, EnumOf, MapOf, Primitive, RefTo, SetOf, Type

EMPTY_MAP: dict[Any, Any] = {}
"""The one empty map that all records share; never changed, as no stored map is."""


class Layout:
    """The order of a class's fields in its records."""

    __slots__ = ("cls", "defaults", "fields", "name", "names", "position")

    def __init__(self, cls: Class) -> None:
        self.cls = cls
        self.name = cls.name
        self.fields: tuple[Field, ...] = cls.fields
        self.names: tuple[str, ...] = tuple(field.name for field in cls.fields)
        self.position: Mapping[str, int] = {name: index for index, name in enumerate(self.names)}
        self.defaults: tuple[Any, ...] = tuple(default_value(field) for field in cls.fields)


class Record(Mapping[str, Any]):
    """One version of an object: field name → value. Equal when layout and values are.

    `xml` and `json` are places for codecs to keep the encoded struct; they say nothing about the value.
    """

    __slots__ = ("json", "layout", "values_", "xml")

    def __init__(self, layout: Layout, values: tuple[Any, ...]) -> None:
        self.layout = layout
        self.values_ = values
        self.xml: bytes | None = None
        self.json: bytes | None = None

    def __getitem__(self, name: str) -> Any:
        return self.values_[self.layout.position[name]]

    def __iter__(self) -> Iterator[str]:
        return iter(self.layout.names)

    def __len__(self) -> int:
        return len(self.values_)

    def __hash__(self) -> int:
        return id(self)

    def __eq__(self, other: object) -> bool:
        if isinstance(other, Record):
            return self.layout is other.layout and self.values_ == other.values_
        return NotImplemented

    def __repr__(self) -> str:
        return f"<{self.layout.name} record {dict(self)!r}>"

    def changed(self, changes: Mapping[str, Any]) -> Record:
        """A new version with some fields replaced. Raises `KeyError` for a field the class does not have."""
        values = list(self.values_)
        for name, value in changes.items():
            values[self.layout.position[name]] = value
        return Record(self.layout, tuple(values))


def empty_value(type_: Type) -> Any:
    """What a field of this type holds before anybody set it. Enums have none but their first word's place: `""`."""
    match type_:
        case SetOf():
            return ()
        case MapOf():
            return EMPTY_MAP
        case RefTo():
            return NULL_REF
        case EnumOf():
            return ""
        case Primitive():
            return {INT: 0, BOOL: False, FLOAT: 0.0, DATETIME: NEVER}.get(type_, "")
    return ""


def default_value(field: Field) -> Any:
    """The field's default, or the empty value of its type where it has none."""
    return empty_value(field.type) if field.default is MISSING else field.default
