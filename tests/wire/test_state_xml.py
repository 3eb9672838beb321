"""The database as XML: every value survives, another parser agrees, and rubbish is refused in one way."""

from __future__ import annotations

import contextlib
from typing import Any
from xml.etree import ElementTree as ET

import pytest
from hypothesis import given
from hypothesis import strategies as st

from domzero.datamodel.graph import GRAPH
from domzero.idl.model import Durability
from domzero.idl.records import Layout
from domzero.idl.types import (
    BOOL,
    DATETIME,
    FLOAT,
    INT,
    NEVER,
    NULL_REF,
    STRING,
    STRING_MAP,
    STRING_SET,
    EnumOf,
    MapOf,
    RefTo,
    SetOf,
    Type,
)
from domzero.wire import state_xml
from domzero.wire.state_xml import (
    CLOSING,
    LONGEST_ROW,
    TABLE_CLOSING,
    StateError,
    StateReader,
    decode_value,
    encode_row,
    opening,
    table_opening,
)
from domzero.wire.strict_xml import strict_parser
from tests.wire.late import LateParser

UNFIT = (*range(9), 11, 12, *range(14, 32), 0xFFFE, 0xFFFF)
TEXT = st.text(st.characters(codec="utf-8", exclude_characters="".join(map(chr, UNFIT))))
VALUES: list[tuple[Type, st.SearchStrategy[Any]]] = [
    (STRING, TEXT),
    (INT, st.integers(-(2**63), 2**63 - 1)),
    (FLOAT, st.floats(allow_nan=False, allow_infinity=False)),
    (BOOL, st.booleans()),
    (DATETIME, st.just(NEVER)),
    (RefTo("VM"), st.just(NULL_REF)),
    (EnumOf("vm_power_state"), st.sampled_from(["Halted", ""])),
    (STRING_SET, st.lists(TEXT).map(tuple)),
    (STRING_MAP, st.dictionaries(TEXT, TEXT)),
    (MapOf(INT, SetOf(STRING)), st.dictionaries(st.integers(0, 9), st.lists(TEXT).map(tuple))),
    (MapOf(INT, FLOAT), st.dictionaries(st.integers(0, 9), st.floats(0, 1))),
]


def document(*rows: bytes) -> bytes:
    return b"".join([opening({"a": "b"}), table_opening("VM"), *rows, TABLE_CLOSING, CLOSING])


def read(content: bytes) -> None:
    reader = StateReader()
    reader.feed(content)
    reader.finish()


@given(st.data(), st.integers(1, 50))
def test_every_value_survives(data: st.DataObject, piece: int) -> None:
    fields = [(f"field{at}", type_, data.draw(values)) for at, (type_, values) in enumerate(VALUES)]
    encoded = document(encode_row("OpaqueRef:1", fields))
    reader = StateReader()
    rows = [row for at in range(0, len(encoded), piece) for row in reader.feed(encoded[at : at + piece])]
    rows += reader.finish()
    assert reader.manifest == {"a": "b"}
    assert [(row.table, row.ref) for row in rows] == [("VM", "OpaqueRef:1")]
    for name, type_, value in fields:
        assert decode_value(GRAPH, type_, rows[0].fields[name]) == value
    other = ET.fromstring(encoded).find("table/row")
    assert other is not None
    assert other.attrib == rows[0].fields


def test_rows_that_expat_put_off_come_at_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(state_xml, "strict_parser", lambda *arguments: LateParser(strict_parser(*arguments)))
    reader = StateReader()
    rows = [encode_row(f"OpaqueRef:{number}", [("field", INT, number)]) for number in range(3)]
    assert reader.feed(document(*rows)) == []
    assert [row.ref for row in reader.finish()] == ["OpaqueRef:0", "OpaqueRef:1", "OpaqueRef:2"]


def test_what_xml_cannot_carry_is_replaced() -> None:
    reader = StateReader()
    rows = reader.feed(document(encode_row("OpaqueRef:1", [("name", STRING, "a\x00b\x1fc\uffff")])))
    assert rows[0].fields["name"] == "a\ufffdb\ufffdc\ufffd"


def test_every_stored_field_can_be_read_and_written() -> None:
    for cls in GRAPH.classes.values():
        if cls.durability is Durability.DURABLE:
            layout = Layout(cls)
            fields = [
                (field.name, field.type, value) for field, value in zip(layout.fields, layout.defaults, strict=True)
            ]
            (row,) = StateReader().feed(document(encode_row(NULL_REF, fields)))
            assert set(row.fields) == {"ref", *layout.names}
            assert tuple(decode_value(GRAPH, type_, row.fields[name]) for name, type_, _ in fields) == layout.defaults


@pytest.mark.parametrize(
    ("type_", "text"),
    [
        (INT, "1.5"), (INT, str(2**63)), (INT, "٣"), (INT, "1" * 5000), (FLOAT, "nan"), (FLOAT, "1e999"), (FLOAT, "x"),
        (BOOL, "True"), (DATETIME, "yesterday"), (RefTo("VM"), "../x"), (EnumOf("vm_power_state"), "halted"),
        (STRING_SET, ""), (STRING_SET, "'a'"), (STRING_SET, "('a'"), (STRING_SET, "('a'))"), (STRING_SET, "() ()"),
        (STRING_SET, "('a"), (STRING_SET, "(('a'))"), (STRING_MAP, "('a')"), (STRING_MAP, "(('a'))"),
        (STRING_MAP, "(('a' 'b' 'c'))"), (STRING_SET, "(" * 5000), (STRING_SET, ")"),
    ],
)  # fmt: skip
def test_what_is_no_value(type_: Type, text: str) -> None:
    with pytest.raises(StateError):
        decode_value(GRAPH, type_, text)


def test_others_may_leave_out_quotes_and_add_space() -> None:
    assert decode_value(GRAPH, STRING_SET, " ( a  'b c'\n) ") == ("a", "b c")
    assert decode_value(GRAPH, STRING_MAP, "((a b))") == {"a": "b"}


@pytest.mark.parametrize(
    "content",
    [
        b"", b"<database>", b"<other/>", b"\xff\xfe", b"<database/>x", b"<!DOCTYPE database><database/>",
        b'<?xml version="1.0" encoding="idna"?><database/>', b"<?php?><database/>",
        b"<database><table name='VM'/></database>", b"<database><row ref='OpaqueRef:1'/></database>",
        opening({"a": "b"}) + table_opening("VM") + TABLE_CLOSING + table_opening("VM") + TABLE_CLOSING + CLOSING,
        document(b"<row/>"), document(b"<row ref='x'/>"), document(b"text"), document(b"<row ref='OpaqueRef:1'><row/>"),
        b"<database><manifest><manifest/></manifest></database>",
    ],
)  # fmt: skip
def test_what_is_no_database(content: bytes) -> None:
    with pytest.raises(StateError):
        read(content)


@pytest.mark.slow
def test_a_row_without_end_is_given_up() -> None:
    reader = StateReader()
    reader.feed(opening({"a": "b"}) + table_opening("VM") + b'<row ref="OpaqueRef:1" name="')
    for _ in range(LONGEST_ROW // (4 << 20)):
        reader.feed(b"x" * (4 << 20))
    with pytest.raises(StateError, match="bytes"):
        reader.feed(b"x" * (4 << 20))


TYPES = (INT, FLOAT, BOOL, DATETIME, STRING_SET, STRING_MAP, RefTo("VM"), EnumOf("vm_power_state"))
WORDS = st.sampled_from(["(", ")", "'", "\\", " ", "a", "OpaqueRef:1", "19700101T00:00:00Z", "1", "-", "true", "e9"])


@given(st.one_of(st.text(max_size=20), st.lists(WORDS, max_size=16).map("".join)))
def test_any_text_is_a_value_or_none(text: str) -> None:
    for type_ in TYPES:
        with contextlib.suppress(StateError):
            decode_value(GRAPH, type_, text)


@given(st.binary())
def test_any_bytes(content: bytes) -> None:
    with contextlib.suppress(StateError):
        read(content)
