"""What derived messages do: one small function for each kind, made for a class and a field.

Readers answer from memory; writers change one object in one transaction. All are plain functions of a context and the
message's parameters, like the implementations of explicit messages.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

from domzero.engine.binding import Implementation
from domzero.engine.context import Context
from domzero.engine.errors import ApiError
from domzero.idl.graph import Method
from domzero.idl.records import Record
from domzero.idl.types import NULL_REF, Ref, RefTo

SetHook: TypeAlias = Callable[[Context, Ref, Any], None]
"""Looks at the value that a field is about to get, and raises `ApiError` to refuse it."""

READERS = frozenset(
    {
        "get_field",
        "get_record",
        "get_by_uuid",
        "get_by_name_label",
        "get_all",
        "get_all_records",
        "get_all_records_where",
    }
)
"""Kinds of derived messages that change nothing."""


def implementation(method: Method, on_set: Mapping[str, SetHook]) -> Implementation:
    """The function that carries out a derived message. `on_set` holds a hook for some `"Class.field"`."""
    cls, message = method.cls.name, method.message
    if message.field is not None:
        if message.implicit == "get_field":
            return _get_field(cls, message.field)
        check = on_set.get(f"{cls}.{message.field}", _accept)
        if message.implicit == "set_field" and isinstance(message.params[-1].type, RefTo):
            check = _after_looking_for(message.params[-1].type.cls, check)
        return _WRITERS[message.implicit or ""](cls, message.field, check)
    return _OF_CLASS[message.implicit or ""](cls)


def _accept(context: Context, self: Ref, value: Any) -> None:
    """The hook of a field that has none."""


def _after_looking_for(target: str, check: SetHook) -> SetHook:
    """The hook of a field that refers to an object of a class: there has to be one, or the reference is null."""

    def look(context: Context, self: Ref, value: Any) -> None:
        if value != NULL_REF:
            context.database.row(target, value)
        check(context, self, value)

    return look


def _get_field(cls: str, field: str) -> Implementation:
    return lambda context, self: context.database.get(cls, self, field)


def _get_record(cls: str) -> Implementation:
    return lambda context, self: context.database.record(cls, self)


def _get_by_uuid(cls: str) -> Implementation:
    return lambda context, uuid: context.database.by_uuid(cls, uuid)


def _get_by_name_label(cls: str) -> Implementation:
    return lambda context, label: context.database.by_name_label(cls, label)


def _get_all(cls: str) -> Implementation:
    return lambda context: context.database.refs(cls)


def _get_all_records(cls: str) -> Implementation:
    def get_all_records(context: Context) -> dict[Ref, Record]:
        return {ref: row.record for ref, row in context.database.rows(cls).items()}

    return get_all_records


def _get_all_records_where(cls: str) -> Implementation:
    return lambda context, expr: context.database.select(cls, expr)


def _create(cls: str) -> Implementation:
    def create(context: Context, args: Mapping[str, Any]) -> Ref:
        with context.database.transaction() as transaction:
            return transaction.create(cls, args)

    return create


def _destroy(cls: str) -> Implementation:
    def destroy(context: Context, self: Ref) -> None:
        with context.database.transaction() as transaction:
            transaction.destroy(cls, self)

    return destroy


def _set_field(cls: str, field: str, check: SetHook) -> Implementation:
    def set_field(context: Context, self: Ref, value: Any) -> None:
        context.database.row(cls, self)
        _store(cls, field, check, context, self, value)

    return set_field


def _add_to_field(cls: str, field: str, check: SetHook) -> Implementation:
    def add_to_field(context: Context, self: Ref, key: Any, value: Any) -> None:
        entries = context.database.get(cls, self, field)
        if key in entries:
            raise ApiError("MAP_DUPLICATE_KEY", cls, field, self, str(key))
        _store(cls, field, check, context, self, {**entries, key: value})

    return add_to_field


def _remove_from_field(cls: str, field: str, check: SetHook) -> Implementation:
    def remove_from_field(context: Context, self: Ref, key: Any) -> None:
        entries = context.database.get(cls, self, field)
        if key in entries:
            left = {name: value for name, value in entries.items() if name != key}
            _store(cls, field, check, context, self, left)

    return remove_from_field


def _add_field(cls: str, field: str, check: SetHook) -> Implementation:
    def add_field(context: Context, self: Ref, value: Any) -> None:
        entries = context.database.get(cls, self, field)
        if value not in entries:
            _store(cls, field, check, context, self, (*entries, value))

    return add_field


def _remove_field(cls: str, field: str, check: SetHook) -> Implementation:
    def remove_field(context: Context, self: Ref, value: Any) -> None:
        entries = context.database.get(cls, self, field)
        if value in entries:
            _store(cls, field, check, context, self, tuple(entry for entry in entries if entry != value))

    return remove_field


def _store(cls: str, field: str, check: SetHook, context: Context, ref: Ref, value: Any) -> None:
    check(context, ref, value)
    with context.database.transaction() as transaction:
        transaction.update(cls, ref, **{field: value})


_OF_CLASS: Mapping[str, Callable[[str], Implementation]] = {
    "get_record": _get_record,
    "get_by_uuid": _get_by_uuid,
    "get_by_name_label": _get_by_name_label,
    "get_all": _get_all,
    "get_all_records": _get_all_records,
    "get_all_records_where": _get_all_records_where,
    "create": _create,
    "destroy": _destroy,
}

_WRITERS: Mapping[str, Callable[[str, str, SetHook], Implementation]] = {
    "set_field": _set_field,
    "add_to_field": _add_to_field,
    "remove_from_field": _remove_from_field,
    "add_field": _add_field,
    "remove_field": _remove_field,
}
