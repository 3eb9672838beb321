"""What holds of every row, beyond what the graph checks when it is built."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest

from domzero.datamodel.graph import GRAPH
from domzero.idl.implicit import constructor_fields
from domzero.idl.model import RUNTIME, Durability
from domzero.idl.types import NULL_REF, RefTo


def descriptions() -> Iterator[tuple[str, str]]:
    for cls in GRAPH.classes.values():
        yield cls.name, cls.doc
        for field in cls.fields:
            yield f"{cls.name}.{field.name}", field.doc
        for message in cls.messages:
            yield f"{cls.name}.{message.name}", message.doc
            for param in message.params:
                yield f"{cls.name}.{message.name}({param.name})", param.doc
    for enum in GRAPH.enums.values():
        yield enum.name, enum.doc
        yield from ((f"{enum.name}.{value}", doc) for value, doc in enum.values.items())
    yield from ((error.code, error.doc) for error in GRAPH.errors.values())
    yield from ((role.name, role.doc) for role in GRAPH.roles.values())


def test_every_description_is_a_sentence() -> None:
    bad = [name for name, doc in descriptions() if not re.fullmatch(r"[A-Z0-9].{8,}\.", doc, re.DOTALL)]
    assert bad == []


def test_descriptions_hold_no_double_spaces_or_markup() -> None:
    assert [name for name, doc in descriptions() if "  " in doc or "`" in doc or "\t" in doc] == []


def test_stored_classes_have_a_uuid() -> None:
    for cls in GRAPH.classes.values():
        if cls.durability is Durability.DURABLE and cls.name != "LVHD":
            assert "uuid" in GRAPH.fields[cls.name], cls.name


def test_roles_have_the_uuids_that_xenserver_s_manual_shows() -> None:
    assert {role.name: role.uuid for role in GRAPH.roles.values()} == {
        "pool-admin": "0165f154-ba3e-034e-6b27-5d271af109ba",
        "pool-operator": "b9ce9791-0604-50cd-0649-09b3284c7dfd",
        "vm-power-admin": "7955168d-7bec-10ed-105f-c6a7e6e63249",
        "vm-admin": "aaa00ab5-7340-bfbc-0d1b-7cf342639a6e",
        "vm-operator": "fb8d4ff9-310c-a959-0613-54101535d3d5",
        "read-only": "7233b8e3-eacb-d7da-2c95-f2e581cdbf4e",
    }


def test_constructors_never_ask_for_what_the_server_sets() -> None:
    for cls in GRAPH.classes.values():
        assert all(field.qualifier is not RUNTIME for field in constructor_fields(cls))


@pytest.mark.parametrize("name", sorted(GRAPH.classes))
def test_reference_defaults_are_null(name: str) -> None:
    for field in GRAPH.classes[name].fields:
        if isinstance(field.type, RefTo) and isinstance(field.default, str):
            assert field.default == NULL_REF
