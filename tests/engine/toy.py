"""A small datamodel for tests of the engine: crates full of parcels that go to depots, and ledgers nobody watches.

* crate: every kind of field, a derived set (`parcels`), operations, a constructor, a measurement (`temperature`);
* parcel: a single reference (`crate`) and a set of references (`depots`), both with derived sets at the other end;
* depot: derived sets from a single reference and from a set (`crates`, `parcels`);
* ledger: emits no events and has no uuid.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from domzero.datamodel.errors import ERRORS
from domzero.datamodel.roles import ROLES
from domzero.engine.database import Database
from domzero.engine.errors import ApiError
from domzero.idl.graph import Graph
from domzero.idl.model import CONSTRUCTOR, RUNTIME, RW, Class, Enum, Field, Message, Param
from domzero.idl.records import EMPTY_MAP
from domzero.idl.types import (
    BOOL,
    DATETIME,
    FLOAT,
    INT,
    NULL_REF,
    STRING,
    STRING_MAP,
    STRING_SET,
    VOID,
    EnumOf,
    MapOf,
    Ref,
    RefTo,
    SetOf,
)

CRATE_STATE = Enum("crate_state", "What a crate is in.", {"open": "Takes parcels.", "sealed": "Is ready to go."})
CRATE_OPERATIONS = Enum(
    "crate_operations",
    "What can be done to a crate.",
    {"seal": "Close it.", "open": "Open it again.", "weigh": "Measure it.", "destroy": "Break it up."},
)

UUID = Field("uuid", STRING, RUNTIME, "rio", "The object's uuid.")
LABEL = Field("name_label", STRING, RW, "rio", "A name for people.", default="", setter_role="vm-operator")

CRATE = Class(
    "crate",
    "Holds parcels.",
    "rio",
    fields=(
        UUID,
        LABEL,
        Field("name_description", STRING, RW, "rio", "Words about it.", default=""),
        Field("state", EnumOf("crate_state"), RUNTIME, "rio", "Whether it is open.", default="open"),
        Field("allowed_operations", SetOf(EnumOf("crate_operations")), RUNTIME, "rio", "What can be done now."),
        Field(
            "current_operations",
            MapOf(STRING, EnumOf("crate_operations")),
            RUNTIME,
            "rio",
            "Task to what it does.",
        ),
        Field("size", INT, CONSTRUCTOR, "rio", "Litres."),
        Field("weight", INT, RW, "rio", "Grams.", default=0, setter_role="vm-admin"),
        Field("fragile", BOOL, RW, "rio", "Handle with care.", default=False),
        Field("packed", DATETIME, RUNTIME, "rio", "When it was sealed."),
        Field("temperature", FLOAT, RUNTIME, "rio", "Degrees, measured now and then.", default=0.0, volatile=True),
        Field("tags", STRING_SET, RW, "orlando", "Words to find it by.", default=(), setter_role="vm-operator"),
        Field("other_config", STRING_MAP, RW, "rio", "More settings.", default=EMPTY_MAP, entry_role="vm-operator"),
        Field("shelves", MapOf(INT, STRING), CONSTRUCTOR, "rio", "Level to what lies there.", default=EMPTY_MAP),
        Field("depot", RefTo("depot"), CONSTRUCTOR, "rio", "Where it stands.", default=NULL_REF),
        Field("parcels", SetOf(RefTo("parcel")), RUNTIME, "rio", "What is in it.", inverse="parcel.crate"),
    ),
    messages=(
        Message(
            "seal",
            (Param("crate", RefTo("crate"), "The crate."), Param("force", BOOL, "Even if it is empty.", False)),
            VOID,
            "rio",
            "Close the crate.",
            errors=("HANDLE_INVALID",),
            least_role="vm-operator",
        ),
        Message(
            "weigh",
            (Param("crate", RefTo("crate"), "The crate."),),
            INT,
            "rio",
            "Measure the crate.",
            result_doc="Grams.",
            least_role="read-only",
        ),
    ),
    enums=(CRATE_STATE, CRATE_OPERATIONS),
    has_get_by_name_label=True,
    constructor_role="vm-admin",
    destructor_role="vm-admin",
)

PARCEL = Class(
    "parcel",
    "Something wrapped up.",
    "rio",
    fields=(
        UUID,
        Field("crate", RefTo("crate"), CONSTRUCTOR, "rio", "Where it is."),
        Field("depots", SetOf(RefTo("depot")), RW, "rio", "Where it goes.", default=()),
        Field("other_config", STRING_MAP, RW, "rio", "More settings.", default=EMPTY_MAP),
    ),
    constructor_role="vm-admin",
    destructor_role="vm-admin",
)

DEPOT = Class(
    "depot",
    "A place.",
    "rio",
    fields=(
        UUID,
        LABEL,
        Field("crates", SetOf(RefTo("crate")), RUNTIME, "rio", "What stands here.", inverse="crate.depot"),
        Field("parcels", SetOf(RefTo("parcel")), RUNTIME, "rio", "What is to come here.", inverse="parcel.depots"),
    ),
    has_get_by_name_label=True,
)

LEDGER = Class(
    "ledger",
    "Lines that nobody watches.",
    "rio",
    fields=(Field("line", STRING, RW, "rio", "What was written.", default=""),),
    emits_events=False,
)

CLASSES = (CRATE, PARCEL, DEPOT, LEDGER)
GRAPH = Graph(CLASSES, ERRORS, ROLES)


class AbandonedError(Exception):
    """Raised by tests to leave a transaction's block."""


def create(database: Database, cls: str, /, **fields: Any) -> Ref:
    """One new object, in a transaction of its own."""
    with database.transaction() as transaction:
        return transaction.create(cls, fields)


def update(database: Database, cls: str, ref: Ref, /, **fields: Any) -> None:
    """Set fields of an object, in a transaction of its own."""
    with database.transaction() as transaction:
        transaction.update(cls, ref, **fields)


def destroy(database: Database, cls: str, ref: Ref) -> None:
    """Remove an object, in a transaction of its own."""
    with database.transaction() as transaction:
        transaction.destroy(cls, ref)


def contents(database: Database) -> dict[Ref, dict[str, Any]]:
    """Everything there is, as plain values that can be compared between databases."""
    return {
        ref: {"class": cls, **row.record} for cls in database.graph.classes for ref, row in database.rows(cls).items()
    }


async def disk_idle(database: Database) -> None:
    """Return when the writer thread has done what it was given and the event loop has heard of it."""
    assert database._writer is not None
    await asyncio.sleep(0)
    await database._writer.run(lambda: None)


@contextmanager
def raises(code: str, *params: str) -> Iterator[None]:
    """The block must fail with exactly this error."""
    with pytest.raises(ApiError) as caught:
        yield
    assert caught.value.description == (code, *params)
