"""Messages: alerts about objects, kept until somebody deletes them or newer ones push them out.

They are rows like any other, so they survive a restart and reach whoever listens to events of the class. The object
an alert is about may go; its alerts stay.
"""

from __future__ import annotations

from collections.abc import Callable

from domzero.engine.binding import implements
from domzero.engine.context import Context
from domzero.idl.records import Record
from domzero.idl.types import Ref
from domzero.toolstack.alerts import leave_message
from domzero.toolstack.stack import Stack

CLASSES = {
    "VM": "VM", "Host": "host", "SR": "SR", "Pool": "pool", "VMPP": "VMPP", "VMSS": "VMSS", "PVS_proxy": "PVS_proxy",
    "VDI": "VDI", "Certificate": "Certificate",
}  # fmt: skip
"""The class of the objects that each word of the enum `cls` stands for."""


@implements("message.create")
def create(stack: Stack, context: Context, name: str, priority: int, cls: str, obj_uuid: str, body: str) -> Ref:
    """A new message about an object, which must exist; when there are too many, the oldest go.

    Raises UUID_INVALID.
    """
    stack.database.by_uuid(CLASSES[cls], obj_uuid)
    return leave_message(stack, name, priority, cls, obj_uuid, body)


@implements("message.destroy")
def destroy(stack: Stack, context: Context, self: Ref) -> None:
    """Delete a message. Raises HANDLE_INVALID."""
    with stack.database.transaction() as transaction:
        transaction.destroy("message", self)


@implements("message.destroy_many")
def destroy_many(stack: Stack, context: Context, messages: tuple[Ref, ...]) -> None:
    """Delete several messages, or none of them: raises HANDLE_INVALID when one does not exist."""
    with stack.database.transaction() as transaction:
        for message in dict.fromkeys(messages):
            transaction.destroy("message", message)


@implements("message.get")
def get(stack: Stack, context: Context, cls: str, obj_uuid: str, since: str) -> dict[Ref, Record]:
    """The messages about one object that are later than a moment. Raises UUID_INVALID for an object that is gone."""
    stack.database.by_uuid(CLASSES[cls], obj_uuid)
    # Moments are always written alike, so their order is that of their texts.
    return _where(stack, lambda it: it["cls"] == cls and it["obj_uuid"] == obj_uuid and it["timestamp"] > since)


@implements("message.get_since")
def get_since(stack: Stack, context: Context, since: str) -> dict[Ref, Record]:
    """The messages that are later than a moment."""
    return _where(stack, lambda it: it["timestamp"] > since)


@implements("message.get_all")
def get_all(stack: Stack, context: Context) -> tuple[Ref, ...]:
    """All messages."""
    return stack.database.refs("message")


@implements("message.get_all_records")
def get_all_records(stack: Stack, context: Context) -> dict[Ref, Record]:
    """All messages with their fields."""
    return _where(stack, lambda _: True)


@implements("message.get_all_records_where")
def get_all_records_where(stack: Stack, context: Context, expr: str) -> dict[Ref, Record]:
    """The messages for which an expression holds. Raises INVALID_VALUE."""
    return stack.database.select("message", expr)


@implements("message.get_by_uuid")
def get_by_uuid(stack: Stack, context: Context, uuid: str) -> Ref:
    """The message with that uuid. Raises UUID_INVALID."""
    return stack.database.by_uuid("message", uuid)


@implements("message.get_record")
def get_record(stack: Stack, context: Context, self: Ref) -> Record:
    """All fields of a message. Raises HANDLE_INVALID."""
    return stack.database.record("message", self)


def _where(stack: Stack, wanted: Callable[[Record], bool]) -> dict[Ref, Record]:
    return {ref: row.record for ref, row in stack.database.rows("message").items() if wanted(row.record)}
