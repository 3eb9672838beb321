"""Encoding of answers as XML-RPC."""

from __future__ import annotations

import xmlrpc.client
from typing import Any
from xml.parsers import expat

import pytest
from hypothesis import given

from domzero.idl.records import Record
from domzero.idl.types import (
    ANY_RECORD,
    BOOL,
    DATETIME,
    EVENT_BATCH,
    FLOAT,
    INT,
    STRING,
    STRING_SET,
    VOID,
    MapOf,
    OptionOf,
    RecordOf,
    RefTo,
    SetOf,
    Type,
)
from domzero.wire.xmlrpc import DateTime, XmlEncoder, decode_response, encode_failure, escape
from tests.front.toy import BOX_LAYOUT, GRAPH, box, event_batch
from tests.wire.values import ANY_TEXT, Pair, on_the_xml_wire, typed_values

ENCODER = XmlEncoder(GRAPH)
BOX_ON_THE_WIRE = {
    "uuid": "00000000-0000-0000-0000-000000000001",
    "name_label": "box <1> & co",
    "size": str(2**40 + 1),
    "open": True,
    "weight": 0.1,
    "made": "20080301T12:00:00Z",
    "colour": "red",
    "lid": "OpaqueRef:NULL",
    "tags": ["a", "b<c"],
    "other_config": {"k<ey": "v&alue"},
    "load": {"0": 0.5, "1": 1e-9},
}


def value(type_: Type, plain: Any) -> Any:
    answer = decode_response(ENCODER.encode_answer(type_, plain))
    assert answer["Status"] == "Success"
    return answer["Value"]


@pytest.mark.parametrize(
    ("type_", "plain", "xml"),
    [
        (STRING, "a<b>&\"'\t\n", "<value>a&lt;b&gt;&amp;&quot;&apos;\t\n</value>"),
        (STRING, "a\x00\x0b\x1f\ud800\uffff\rb", "<value>a&#13;b</value>"),
        (INT, 2**62, "<value>4611686018427387904</value>"),
        (BOOL, True, "<value><boolean>1</boolean></value>"),
        (BOOL, False, "<value><boolean>0</boolean></value>"),
        (FLOAT, 0.1, "<value><double>0.1</double></value>"),
        (FLOAT, 3, "<value><double>3.0</double></value>"),
        (DATETIME, "19700101T00:00:00Z", "<value><dateTime.iso8601>19700101T00:00:00Z</dateTime.iso8601></value>"),
        (VOID, None, "<value></value>"),
        (STRING_SET, (), "<value><array><data></data></array></value>"),
        (STRING_SET, ("a",), "<value><array><data><value>a</value></data></array></value>"),
        (MapOf(INT, INT), {}, "<value><struct></struct></value>"),
        (
            MapOf(INT, FLOAT),
            {-1: 0.5},
            "<value><struct><member><name>-1</name><value><double>0.5</double></value></member></struct></value>",
        ),
        (
            MapOf(STRING, STRING),
            {"<&": ""},
            "<value><struct><member><name>&lt;&amp;</name><value></value></member></struct></value>",
        ),
    ],
)
def test_forms(type_: Type, plain: object, xml: str) -> None:
    assert ENCODER.encode_text(type_, plain) == xml


def test_the_envelope() -> None:
    assert ENCODER.encode_answer(STRING, "x") == (
        b'<?xml version="1.0"?><methodResponse><params><param><value><struct><member><name>Status</name>'
        b"<value>Success</value></member><member><name>Value</name><value>x</value></member></struct></value>"
        b"</param></params></methodResponse>"
    )
    assert decode_response(ENCODER.encode_answer(STRING_SET, ("a", "b"), bare=True)) == ["a", "b"]
    assert decode_response(encode_failure(("CODE", "<p>", "\x00"))) == {
        "Status": "Failure",
        "ErrorDescription": ["CODE", "<p>", ""],
    }


@given(typed_values())
def test_values_of_every_type_round_trip(pair: Pair) -> None:
    type_, plain = pair
    assert value(type_, plain) == on_the_xml_wire(type_, plain)


@given(ANY_TEXT)
def test_no_text_breaks_the_xml(text: str) -> None:
    kept = decode_response(ENCODER.encode_answer(STRING, text, bare=True))
    assert kept == "".join(c for c in text if xml_allows(c))
    assert list(value(MapOf(STRING, STRING), {text: text})) == [kept]
    decode_response(encode_failure((text, text)))


def xml_allows(character: str) -> bool:
    parser = expat.ParserCreate()
    try:
        parser.Parse(f"<a>&#{ord(character)};</a>", True)
    except expat.ExpatError:
        return False
    return True


@pytest.mark.parametrize("number", [float("inf"), float("-inf"), float("nan")])
def test_odd_floats_do_not_break_the_xml(number: float) -> None:
    assert repr(value(FLOAT, number)) == repr(number)


def test_a_record() -> None:
    record = box()
    assert value(RecordOf("box"), record) == BOX_ON_THE_WIRE
    assert isinstance(value(RecordOf("box"), record)["made"], DateTime)
    assert list(value(RecordOf("box"), record)) == list(BOX_LAYOUT.names), "members keep the model's order"


def test_a_record_is_encoded_once() -> None:
    record = box()
    ENCODER.encode(RecordOf("box"), record)
    assert record.xml is not None
    assert record.xml.startswith(b"<struct><member><name>uuid</name>")
    record.xml = b"<struct></struct>"
    for type_, plain in (
        (RecordOf("box"), record),
        (ANY_RECORD, record),
    ):
        assert value(type_, plain) == {}
    assert value(MapOf(RefTo("box"), RecordOf("box")), {"r": record}) == {"r": {}}
    assert value(SetOf(RecordOf("box")), (record,)) == [{}]


def test_a_changed_record_is_encoded_anew() -> None:
    record = box()
    ENCODER.encode(RecordOf("box"), record)
    assert value(RecordOf("box"), record.changed({"name_label": "new"})) == BOX_ON_THE_WIRE | {"name_label": "new"}


def test_records_as_plain_dicts() -> None:
    assert value(RecordOf("box"), {"size": 5, "unknown": object()}) == {"size": "5"}
    lid = {"uuid": "u"}
    assert value(RecordOf("note"), {"text": "t", "about": lid}) == {"text": "t", "about": lid}
    assert value(RecordOf("note"), {"text": "t", "about": None}) == {"text": "t"}
    assert value(SetOf(RecordOf("note")), ({"text": "t"}, {})) == [{"text": "t"}, {}]
    assert value(SetOf(RecordOf("note")), ()) == []
    assert value(MapOf(INT, RecordOf("note")), {1: {"text": "t"}}) == {"1": {"text": "t"}}
    assert value(OptionOf(RecordOf("note")), None) is None


def test_maps_of_records() -> None:
    records: dict[str, Record] = {f"OpaqueRef:{n}": box(n) for n in range(3)}
    decoded = value(MapOf(RefTo("box"), RecordOf("box")), records)
    assert list(decoded) == list(records)
    assert decoded["OpaqueRef:1"] == BOX_ON_THE_WIRE
    assert value(MapOf(RefTo("box"), RecordOf("box")), {}) == {}


def test_event_batches() -> None:
    batch = value(EVENT_BATCH, event_batch())
    assert batch == {
        "events": [
            {
                "id": "1", "timestamp": "20080301T12:00:00Z", "class": "box", "operation": "add", "ref": "OpaqueRef:1",
                "obj_uuid": "u", "snapshot": BOX_ON_THE_WIRE,
            },
            {"id": "2", "timestamp": "20080301T12:00:00Z", "class": "box", "operation": "del", "ref": "OpaqueRef:2"},
        ],
        "valid_ref_counts": {"box": 1},
        "token": "00000000000000000002,00000000000000000000",
    }  # fmt: skip
    assert type(batch["valid_ref_counts"]["box"]) is int
    empty = {"events": [], "valid_ref_counts": {}, "token": ""}
    assert value(EVENT_BATCH, empty) == empty


def test_the_standard_client_reads_it() -> None:
    ((answer,), _) = xmlrpc.client.loads(ENCODER.encode_answer(RecordOf("box"), box()))
    assert isinstance(answer, dict)
    decoded = answer["Value"]
    assert decoded["made"] == "20080301T12:00:00Z"
    assert {**decoded, "made": "20080301T12:00:00Z"} == BOX_ON_THE_WIRE


def test_escape_leaves_plain_text_alone() -> None:
    text = "OpaqueRef:0001"
    assert escape(text) is text
