"""Derives the messages that nobody writes: getters, setters, adders, removers, record and class getters, constructors.

Source: the API guide's chapter on the types of messages; the exact list was compared with the published reference, and
`tests/datamodel/test_surface.py` keeps it as it is.
"""

from __future__ import annotations

from collections.abc import Iterator

from domzero.idl.model import RUNTIME, RW, Class, Field, Message, Param
from domzero.idl.types import STRING, VOID, MapOf, RecordOf, RefTo, SetOf, Type


def implicit_messages(cls: Class) -> Iterator[Message]:
    """Every derived message of a class, in a stable order. Explicit messages of the same name take precedence."""
    if cls.has_getters:
        yield from _object_getters(cls)
        for field in cls.fields:
            yield from _field_messages(cls, field)
    if cls.has_get_all:
        yield from _class_getters(cls)
    if cls.constructor_role:
        yield _constructor(cls, cls.constructor_role)
    if cls.destructor_role:
        yield _destructor(cls, cls.destructor_role)


def constructor_fields(cls: Class) -> tuple[Field, ...]:
    """The fields that a client may give when it creates an object."""
    return tuple(field for field in cls.fields if field.qualifier is not RUNTIME)


def _self(cls: Class) -> Param:
    return Param("self", RefTo(cls.name), f"The {cls.name} object.")


def _object_getters(cls: Class) -> Iterator[Message]:
    ref = RefTo(cls.name)
    yield _reader(cls, "get_record", (_self(cls),), RecordOf(cls.name), f"All fields of the given {cls.name}.")
    yield _reader(
        cls,
        "get_by_uuid",
        (Param("uuid", STRING, "The uuid to look for."),),
        ref,
        f"The {cls.name} with the given uuid. Fails with UUID_INVALID when there is none.",
    )
    if cls.has_get_by_name_label:
        yield _reader(
            cls,
            "get_by_name_label",
            (Param("label", STRING, "The name to look for, compared exactly."),),
            SetOf(ref),
            f"Every {cls.name} that bears the given name; none is no error.",
        )


def _class_getters(cls: Class) -> Iterator[Message]:
    ref = RefTo(cls.name)
    record_map = MapOf(ref, RecordOf(cls.name))
    yield _reader(cls, "get_all", (), SetOf(ref), f"References to every {cls.name} known.")
    yield _reader(cls, "get_all_records", (), record_map, f"Every {cls.name} known, with all of its fields.")
    yield _reader(
        cls,
        "get_all_records_where",
        (Param("expr", STRING, 'An expression such as `field "power_state" = "Running"`, with and, or, not.'),),
        record_map,
        f"Every {cls.name} for which the expression holds. Fails with INVALID_VALUE when it cannot be understood.",
    )


def _reader(cls: Class, name: str, params: tuple[Param, ...], result: Type, doc: str) -> Message:
    return Message(
        name, params, result, cls.since, doc, least_role=cls.reader_role, implicit=name, asynchronous=False,
        deprecated=cls.deprecated, removed=cls.removed,
    )  # fmt: skip


def _field_messages(cls: Class, field: Field) -> Iterator[Message]:
    yield _about(field, f"get_{field.name}", "get_field", (_self(cls),), field.type, field.getter_role,
                 f"The {field.name} field of the given {cls.name}.")  # fmt: skip
    if field.qualifier is not RW:
        return
    yield _about(field, f"set_{field.name}", "set_field", (_self(cls), Param("value", field.type, "The new value.")),
                 VOID, field.setter_role, f"Sets the {field.name} field of the given {cls.name}.")  # fmt: skip
    yield from _entry_messages(cls, field)


def _entry_messages(cls: Class, field: Field) -> Iterator[Message]:
    role = field.entry_role or field.setter_role
    match field.type:
        case MapOf(key, value):
            yield _about(field, f"add_to_{field.name}", "add_to_field",
                         (_self(cls), Param("key", key, "The key."), Param("value", value, "Its value.")), VOID, role,
                         f"Adds a key to the {field.name} field. MAP_DUPLICATE_KEY if it is there.")  # fmt: skip
            yield _about(field, f"remove_from_{field.name}", "remove_from_field",
                         (_self(cls), Param("key", key, "The key.")), VOID, role,
                         f"Removes a key from the {field.name} field. One that is not there is no error.")  # fmt: skip
        case SetOf(item):
            yield _about(field, f"add_{field.name}", "add_field",
                         (_self(cls), Param("value", item, "The new entry.")), VOID, role,
                         f"Adds an entry to the {field.name} set, once.")  # fmt: skip
            yield _about(field, f"remove_{field.name}", "remove_field",
                         (_self(cls), Param("value", item, "The entry.")), VOID, role,
                         f"Removes an entry from the {field.name} set. One that is not there is no error.")  # fmt: skip
        case _:
            return


def _about(field: Field, name: str, kind: str, params: tuple[Param, ...], result: Type, role: str, doc: str) -> Message:
    return Message(
        name, params, result, field.since, doc, least_role=role, implicit=kind, field=field.name, asynchronous=False,
        deprecated=field.deprecated, removed=field.removed,
    )  # fmt: skip


def _constructor(cls: Class, role: str) -> Message:
    record = Param("args", RecordOf(cls.name), "The fields of the new object; those with a default may be left out.")
    return Message("create", (record,), RefTo(cls.name), cls.since, f"Makes a new {cls.name} from a record.",
                   least_role=role, implicit="create", deprecated=cls.deprecated, removed=cls.removed)  # fmt: skip


def _destructor(cls: Class, role: str) -> Message:
    return Message("destroy", (_self(cls),), VOID, cls.since, f"Removes the given {cls.name}.",
                   least_role=role, implicit="destroy", deprecated=cls.deprecated, removed=cls.removed)  # fmt: skip
