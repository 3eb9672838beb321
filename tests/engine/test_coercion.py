"""Parameters from the wire: each type takes what it should, and whatever comes makes nothing but an `ApiError`."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from domzero.engine.coercion import canonical_datetime, coercer
from domzero.engine.errors import ApiError
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
    OptionOf,
    RecordOf,
    RefTo,
    SetOf,
    Type,
)
from tests.engine.toy_calls import GRAPH
from tests.sampling import each

COLOUR = EnumOf("lamp_colour")
LAMP = RefTo("lamp")
TYPES: list[Type] = [
    STRING, INT, BOOL, FLOAT, DATETIME, COLOUR, LAMP, STRING_SET, STRING_MAP, SetOf(INT), MapOf(INT, FLOAT),
    MapOf(LAMP, SetOf(COLOUR)), OptionOf(DATETIME), RecordOf("lamp"), SetOf(RecordOf("lamp")),
]  # fmt: skip


def coerce(type_: Type, value: Any) -> Any:
    return coercer(GRAPH, type_, "it")(value)


GOOD: list[tuple[Type, Any, Any]] = [
    (STRING, "", ""),
    (STRING, "tab\tand\nemoji \U0001f600", "tab\tand\nemoji \U0001f600"),
    (INT, 7, 7),
    (INT, "7", 7),
    (INT, "-007", -7),
    (INT, "+7", 7),
    (INT, "9223372036854775807", 2**63 - 1),
    (INT, -(2**63), -(2**63)),
    (BOOL, True, True),
    (FLOAT, 1, 1.0),
    (FLOAT, -0.5, -0.5),
    (DATETIME, "20080301T12:00:00Z", "20080301T12:00:00Z"),
    (DATETIME, "2008-03-01T12:00:00Z", "20080301T12:00:00Z"),
    (DATETIME, "20080301T12:00:00", "20080301T12:00:00Z"),
    (DATETIME, "20080301T12:00:00+01:00", "20080301T11:00:00Z"),
    (DATETIME, "2008-03-01T23:30:00-0130", "20080302T01:00:00Z"),
    (DATETIME, "20080301T12:00:00.123Z", "20080301T12:00:00Z"),
    (DATETIME, "00010101T00:00:00Z", "00010101T00:00:00Z"),
    (COLOUR, "red", "red"),
    (LAMP, "OpaqueRef:x", "OpaqueRef:x"),
    (LAMP, "", NULL_REF),
    (STRING_SET, [], ()),
    (STRING_SET, ("b", "a", "b"), ("b", "a", "b")),
    (SetOf(INT), ["1", 2], (1, 2)),
    (STRING_MAP, {"a": "b"}, {"a": "b"}),
    (MapOf(INT, FLOAT), {"1": 2}, {1: 2.0}),
    (OptionOf(INT), None, None),
    (OptionOf(INT), "3", 3),
]


@pytest.mark.parametrize(("type_", "value", "inside"), GOOD)
def test_good_values(type_: Type, value: Any, inside: Any) -> None:
    coerced = coerce(type_, value)
    assert coerced == inside
    assert type(coerced) is type(inside)


BAD: list[tuple[Type, Any, str]] = [
    (STRING, 7, "<value><int>7</int></value>"),
    (STRING, None, "<value><nil/></value>"),
    (STRING, b"x", "<value><bytes/></value>"),
    (STRING, ["x"], "<value><array>1 values</array></value>"),
    (INT, "seven", "<value>seven</value>"),
    (INT, "", "<value></value>"),
    (INT, " 7", "<value> 7</value>"),
    (INT, "٧", "<value>٧</value>"),
    (INT, "0x7", "<value>0x7</value>"),
    (INT, "7_0", "<value>7_0</value>"),
    (INT, "7" * 5000, f"<value>{'7' * 193}"),
    (INT, "9223372036854775808", "<value><int>9223372036854775808</int></value>"),
    (INT, 2**100, "<value><int>beyond 64 bits</int></value>"),
    (INT, True, "<value><boolean>1</boolean></value>"),
    (INT, 7.0, "<value><double>7.0</double></value>"),
    (BOOL, "true", "<value>true</value>"),
    (BOOL, 1, "<value><int>1</int></value>"),
    (FLOAT, "1.0", "<value>1.0</value>"),
    (FLOAT, 10**400, "<value><int>beyond 64 bits</int></value>"),
    (FLOAT, False, "<value><boolean>0</boolean></value>"),
    (DATETIME, 20080301, "<value><int>20080301</int></value>"),
    (COLOUR, 1, "<value><int>1</int></value>"),
    (LAMP, {}, "<value><struct>0 members</struct></value>"),
    (STRING_SET, "x", "<value>x</value>"),
    (STRING_SET, {"x": "y"}, "<value><struct>1 members</struct></value>"),
    (STRING_MAP, [], "<value><array>0 values</array></value>"),
    (RecordOf("lamp"), "<&", "<value>&lt;&amp;</value>"),
]


@pytest.mark.parametrize(("type_", "value", "quoted"), BAD)
def test_wrong_types(type_: Type, value: Any, quoted: str) -> None:
    with pytest.raises(ApiError) as failure:
        coerce(type_, value)
    assert failure.value.description == ("XMLRPC_UNMARSHAL_FAILURE", str(type_), quoted)


@pytest.mark.parametrize("char", "\t\n\r ~\x7f\ud7ff\ue000\ufffd\U00010000\U0010ffff")
def test_characters_that_xml_carries(char: str) -> None:
    assert coerce(STRING, char) == char


@pytest.mark.parametrize("char", "\0\b\v\f\x0e\x1f\ud800\udfff\ufffe\uffff")
def test_characters_that_xml_does_not_carry(char: str) -> None:
    with pytest.raises(ApiError):
        coerce(STRING, char)


INVALID: list[tuple[Type, Any, tuple[str, str]]] = [
    (STRING, "a\0b", ("Invalid UTF-8 string in parameter", "a\ufffdb")),
    (STRING, "\ud800", ("Invalid UTF-8 string in parameter", "\ufffd")),
    (STRING, "\uffff", ("Invalid UTF-8 string in parameter", "\ufffd")),
    (STRING_MAP, {"\x1b": "x"}, ("Invalid UTF-8 string in parameter", "\ufffd")),
    (COLOUR, "green", ("it", "green")),
    (FLOAT, float("nan"), ("it", "nan")),
    (FLOAT, float("-inf"), ("it", "-inf")),
    (DATETIME, "", ("it", "")),
    (DATETIME, "yesterday", ("it", "yesterday")),
    (DATETIME, "20080230T12:00:00Z", ("it", "20080230T12:00:00Z")),
    (DATETIME, "2008-0301T12:00:00Z", ("it", "2008-0301T12:00:00Z")),
    (DATETIME, "20080301T12:00:00+99:00", ("it", "20080301T12:00:00+99:00")),
    (DATETIME, "00010101T00:00:00+01:00", ("it", "00010101T00:00:00+01:00")),
    (DATETIME, "٢٠٠٨0301T12:00:00Z", ("it", "٢٠٠٨0301T12:00:00Z")),
    (RecordOf("lamp"), {}, ("lamp.name_label", "missing, and there is no default")),
    (RecordOf("lamp"), {"name_label": "x", "watts": 1, "colour": "green"}, ("colour", "green")),
]


@pytest.mark.parametrize(("type_", "value", "description"), INVALID)
def test_values_that_the_type_does_not_have(type_: Type, value: Any, description: tuple[str, str]) -> None:
    with pytest.raises(ApiError) as failure:
        coerce(type_, value)
    assert failure.value.description == ("INVALID_VALUE", *description)


def test_record_takes_constructor_fields_and_fills_in_defaults() -> None:
    given_ = {"name_label": "desk", "watts": "40", "uuid": "mine", "on": True, "unheard_of": 7, "tags": ["a"]}
    assert coerce(RecordOf("lamp"), given_) == {
        "name_label": "desk",
        "watts": 40,
        "colour": "white",
        "bright": 1.0,
        "bought": "19700101T00:00:00Z",
        "host": NULL_REF,
        "spare": NULL_REF,
        "tags": ("a",),
        "other_config": {},
        "levels": {},
    }


def test_no_parameter_is_void() -> None:
    with pytest.raises(TypeError):
        coercer(GRAPH, VOID, "it")


wire_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary(max_size=5)
    | st.sampled_from(["red", "OpaqueRef:x", "7", "20080301T12:00:00Z"]),
    lambda inner: st.lists(inner, max_size=4)
    | st.dictionaries(st.text() | st.sampled_from(list(GRAPH.fields["lamp"])),
                      inner, max_size=4),
    max_leaves=12,
)  # fmt: skip


@given(value=wire_values)
@pytest.mark.parametrize("type_", each(2, TYPES), ids=str)
def test_whatever_comes_is_a_value_or_an_error_that_can_be_sent(type_: Type, value: Any) -> None:
    try:
        inside = coerce(type_, value)
    except ApiError as error:
        for part in error.params:
            part.encode()
            assert "\0" not in part
    else:
        assert coerce(type_, _outside(inside)) == inside


def _outside(value: Any) -> Any:
    """An inner value as a codec would hand it over."""
    match value:
        case tuple():
            return [_outside(item) for item in value]
        case dict():
            return {str(key): _outside(item) for key, item in value.items()}
    return value


@given(
    days=st.integers(1, 3_000_000),
    seconds=st.integers(0, 86_399),
    minutes=st.integers(-23 * 60, 23 * 60),
)
def test_offset_moves_a_datetime_to_utc(days: int, seconds: int, minutes: int) -> None:
    when = datetime(1000, 1, 2, tzinfo=UTC) + timedelta(days=days, seconds=seconds)
    sign, distance = ("-", -minutes) if minutes < 0 else ("+", minutes)
    text = f"{when:%Y%m%dT%H:%M:%S}{sign}{distance // 60:02}:{distance % 60:02}"
    assert canonical_datetime(text) == (when - timedelta(minutes=minutes)).strftime("%Y%m%dT%H:%M:%SZ")


@given(st.text(alphabet="0123456789-:TZ+. ", max_size=30))
def test_datetime_parser_never_raises(text: str) -> None:
    canonical = canonical_datetime(text)
    assert canonical is None or len(canonical) == 18
