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


def test_constructors_never_ask_for_what_the_server_sets() -> None:
    for cls in GRAPH.classes.values():
        assert all(field.qualifier is not RUNTIME for field in constructor_fields(cls))


@pytest.mark.parametrize("name", sorted(GRAPH.classes))
def test_reference_defaults_are_null(name: str) -> None:
    for field in GRAPH.classes[name].fields:
        if isinstance(field.type, RefTo) and isinstance(field.default, str):
            assert field.default == NULL_REF
