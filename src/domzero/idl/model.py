"""The rows that make up the datamodel: classes, fields, messages, enums, errors, roles.

They are plain data. What can be derived from them (implicit messages, defaults, back references) is derived
in `domzero.idl.graph` and `domzero.idl.implicit`, never written down.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum as PythonEnum
from typing import Any

from domzero.idl.types import Type


class Qualifier(PythonEnum):
    """Who may set a field, and when."""

    RW = "RW"
    """Clients set it, at any time, through the implicit setters, and may give it in the constructor."""
    CONSTRUCTOR = "RO/constructor"
    """Clients give it in the constructor; afterwards it changes only through explicit messages."""
    RUNTIME = "RO/runtime"
    """The server alone sets it."""


RW = Qualifier.RW
CONSTRUCTOR = Qualifier.CONSTRUCTOR
RUNTIME = Qualifier.RUNTIME


class Missing(PythonEnum):
    """Stands for “no default”."""

    MISSING = "missing"


MISSING = Missing.MISSING


class Durability(PythonEnum):
    """What a restart of the server does to the objects of a class."""

    DURABLE = "durable"
    """Every acknowledged change survives."""
    NONE = "none"
    """There are no stored objects: the class only groups messages or names a struct."""


@dataclass(frozen=True, slots=True)
class Field:
    """One field of a class, under its wire name (`memory_static_max`).

    `since`, `deprecated` and `removed` name releases, here and in the rows below.
    `default` is the value a constructor fills in; `MISSING` means the constructor refuses to do without, or,
    for a RUNTIME field, that the empty value of the type is stored until the server sets it.
    `inverse` names the field (`"VBD.VM"`) whose references this set collects: the database derives the set, and
    nobody writes it. `volatile` fields hold measurements: a change is not forced to disk before the answer.
    `setter_role` is the least role to set an RW field, `entry_role` to add and remove single entries of a map or set
    where that differs, `getter_role` to read it.
    """

    name: str
    type: Type
    qualifier: Qualifier
    since: str
    doc: str
    default: Any = MISSING
    deprecated: str | None = None
    removed: str | None = None
    inverse: str | None = None
    volatile: bool = False
    setter_role: str = "pool-admin"
    entry_role: str | None = None
    getter_role: str = "read-only"


@dataclass(frozen=True, slots=True)
class Param:
    """One parameter of a message, the session left out."""

    name: str
    type: Type
    doc: str = ""
    default: Any = MISSING
    """Trailing parameters with a default may be left out by older clients."""


@dataclass(frozen=True, slots=True)
class Message:
    """One call. `params` leave out the session, which every message takes first unless `session` is false."""

    name: str
    params: tuple[Param, ...]
    result: Type
    since: str
    doc: str
    result_doc: str = ""
    errors: tuple[str, ...] = ()
    least_role: str = "pool-admin"
    deprecated: str | None = None
    removed: str | None = None
    session: bool = True
    asynchronous: bool = True
    """Whether `Async.Class.message` exists."""
    implicit: str | None = None
    """For derived messages the kind (`"get_field"`, `"set_field"`, …); `None` for explicit ones."""
    field: str | None = None
    """For derived messages about one field, its name."""


@dataclass(frozen=True, slots=True)
class Enum:
    """A named set of words. `values` maps each to what it means."""

    name: str
    doc: str
    values: dict[str, str]


@dataclass(frozen=True, slots=True)
class Error:
    """An error code, the names of its parameters in order, and what it says to a person."""

    code: str
    params: tuple[str, ...]
    doc: str


@dataclass(frozen=True, slots=True)
class Role:
    """One of the six built-in roles; `rank` 0 is the least."""

    name: str
    rank: int
    uuid: str
    doc: str


@dataclass(frozen=True, slots=True)
class Class:
    """A class of the API: fields, explicit messages, and which implicit ones it has.

    `constructor_role` and `destructor_role` are the least roles of the generated `create` and `destroy`, or `None`
    where the class has none.
    `has_getters` tells whether `get_record`, `get_by_uuid` and the field getters exist, `has_get_all` the same of
    `get_all` and its kin, which sessions and users lack. `reader_role` is the least role to read whole records.
    """

    name: str
    doc: str
    since: str
    fields: tuple[Field, ...]
    messages: tuple[Message, ...] = ()
    enums: tuple[Enum, ...] = ()
    deprecated: str | None = None
    removed: str | None = None
    durability: Durability = Durability.DURABLE
    has_getters: bool = True
    has_get_all: bool = True
    has_get_by_name_label: bool = False
    reader_role: str = "read-only"
    constructor_role: str | None = None
    destructor_role: str | None = None
    emits_events: bool = True
