"""Decoding of XML-RPC: what is accepted, what is refused, and that garbage costs nothing but an `XmlRpcError`."""

from __future__ import annotations

import math
import time
import xmlrpc.client
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from domzero.wire.xml_decode import MAX_DEPTH, MAX_VALUES
from domzero.wire.xmlrpc import (
    DateTime,
    XmlRpcError,
    XmlRpcFaultError,
    decode_call,
    decode_response,
    encode_call,
)
from tests.sampling import each
from tests.wire.values import METHODS, WIRE_VALUES


def call(value: str, method: str = "a.b") -> bytes:
    return (
        f"<methodCall><methodName>{method}</methodName><params><param>{value}</param></params></methodCall>"
    ).encode()


def param(value: str) -> Any:
    (only,) = decode_call(call(value)).params
    return only


@pytest.mark.parametrize(
    ("xml", "value"),
    [
        ("<value>bare</value>", "bare"),
        ("<value><string>typed</string></value>", "typed"),
        ("<value/>", ""),
        ("<value></value>", ""),
        ("<value><string/></value>", ""),
        ("<value>  kept  </value>", "  kept  "),
        ("<value>a&lt;b&#38;c&#xe4;</value>", "a<b&cä"),
        ("<value><![CDATA[<b>]]></value>", "<b>"),
        ("<value>line\r\nend</value>", "line\nend"),
        ("<value>line&#13;end</value>", "line\rend"),
        ("<value>ein <!-- remark -->Wort</value>", "ein Wort"),
        ("<value><int>-5</int></value>", -5),
        ("<value><i4> 7 </i4></value>", 7),
        ("<value><i8>9223372036854775807</i8></value>", 2**63 - 1),
        ("<value><boolean>1</boolean></value>", True),
        ("<value><boolean>0</boolean></value>", False),
        ("<value><double>-1.5e3</double></value>", -1500.0),
        ("<value><double>.5</double></value>", 0.5),
        ("<value><dateTime.iso8601>20080301T12:00:00Z</dateTime.iso8601></value>", "20080301T12:00:00Z"),
        (
            "<value><dateTime.iso8601> 2008-03-01T12:00:00+01:00 </dateTime.iso8601></value>",
            "2008-03-01T12:00:00+01:00",
        ),
        ("<value><base64>aGVs\n bG8=</base64></value>", b"hello"),
        ("<value><nil/></value>", None),
        ("<value>\n <array>\n <data>\n <value>x</value> </data></array> </value>", ["x"]),
        ("<value><array><data/></array></value>", []),
        ("<value><struct/></value>", {}),
        ("<value><struct><member><name>a&amp;</name><value><nil/></value></member></struct></value>", {"a&": None}),
        ("<value><struct><member><name>n</name><value>1</value></member></struct></value>", {"n": "1"}),
    ],
)
def test_values(xml: str, value: object) -> None:
    decoded = param(xml)
    assert decoded == value
    assert type(decoded) in (type(value), DateTime)


def test_dates_are_recognisable() -> None:
    assert isinstance(param("<value><dateTime.iso8601>20080301T12:00:00Z</dateTime.iso8601></value>"), DateTime)
    assert not isinstance(param("<value>20080301T12:00:00Z</value>"), DateTime)


@pytest.mark.parametrize(
    "xml",
    [
        "<value><int>five</int></value>",
        "<value><int>1_0</int></value>",
        "<value><int></int></value>",
        "<value><i8>9223372036854775808</i8></value>",
        "<value><boolean>true</boolean></value>",
        "<value><boolean>2</boolean></value>",
        "<value><boolean/></value>",
        "<value><double>1_0.0</double></value>",
        "<value><double>0x1p3</double></value>",
        "<value><base64>!!!</base64></value>",
        "<value><nil>x</nil></value>",
        "<value>text<string>and type</string></value>",
        "<value><string>type</string>and text</value>",
        "<value><string>a</string><string>b</string></value>",
        "<value><i3>1</i3></value>",
        "<value><string><b/></string></value>",
        "<value><array><value>x</value></array></value>",
        "<value><array><data></data><data></data></array></value>",
        "<value><struct><member><name>n</name></member></struct></value>",
        "<value><struct><member><value>n</value></member></struct></value>",
        "<value><struct><member><value>v</value><name>n</name></member></struct></value>",
        "<value><struct><member><name>n</name><value/><value/></member></struct></value>",
        "<value><struct>text</struct></value>",
        "<value>x</value><value>y</value>",
        "",
        "text",
        "<value>\x01</value>",
        "<value>&#1;</value>",
        "<value>&nbsp;</value>",
        "<value>]]></value>",
        "<value>a</valu>",
        "<value>",
    ],
)
def test_refused_values(xml: str) -> None:
    with pytest.raises(XmlRpcError):
        decode_call(call(xml))


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"   ",
        b"{}",
        b"<methodCall/>",
        b"<methodCall><params/></methodCall>",
        b"<methodCall><methodName></methodName><params/></methodCall>",
        b"<methodCall><methodName>a</methodName><methodName>b</methodName><params/></methodCall>",
        b"<methodCall><methodName>a</methodName><params/><params/></methodCall>",
        b"<methodResponse><params><param><value>x</value></param></params></methodResponse>",
        b"<methodCall><methodName>a</methodName><params/></methodCall><more/>",
        b"<a><methodCall><methodName>a</methodName><params/></methodCall></a>",
        b"\x80" + call("<value>x</value>"),
        call("<value>x</value>")[:-1],
        b"<?xml version='1.0' encoding='utf-7'?>" + call("<value>x</value>"),
        b"<?xml version='1.0' encoding='rot13'?>" + call("<value>x</value>"),
        b"<?xml version='1.0' encoding='undefined'?>" + call("<value>x</value>"),
        call("<value>x</value>").replace(b"x", b"\xff"),
        call("<value>x</value>").replace(b"x", b"\xed\xa0\x80"),
        call("<value>x</value>").replace(b"x", b"\xef\xbf\xbf"),
    ],
)
def test_refused_calls(body: bytes) -> None:
    with pytest.raises(XmlRpcError):
        decode_call(body)


@pytest.mark.parametrize("params", [b"", b"<params/>", b"<params></params>", b"<params>\n</params>"])
def test_calls_without_parameters(params: bytes) -> None:
    assert decode_call(b"<methodCall><methodName> a.b </methodName>" + params + b"</methodCall>").params == []


def test_other_encodings_that_clients_declare() -> None:
    for encoding in ("utf-8", "UTF-8", "us-ascii", "ISO-8859-1", "utf-16"):
        text = "grün" if encoding != "us-ascii" else "green"
        body = (f"<?xml version='1.0' encoding='{encoding}'?>" + call(f"<value>{text}</value>").decode()).encode(
            encoding
        )
        assert decode_call(body).params == [text]


def test_the_standard_client_is_understood() -> None:
    params: tuple[Any, ...] = ("a", 1, True, 1.5, ["x", {"y": "z"}], {}, "", "ä&<>\"'", None)
    decoded = decode_call(xmlrpc.client.dumps(params, "VM.get_record", allow_none=True).encode())
    assert decoded.method == "VM.get_record"
    assert decoded.params == list(params)


def test_both_ways_of_decoding_agree() -> None:
    """A remark makes a call miss the fast path."""
    for text in ("", " ", "x", "a b\n\tc", "ä漢\U0001f600", "\x7f", "OpaqueRef:1"):
        for count in range(7):
            values = "".join(f"<param><value>{text}</value></param>\r\n" for _ in range(count))
            fast = (
                f"<?xml version='1.0'?>\n<methodCall><methodName>m</methodName><params>{values}</params></methodCall>"
            )
            slow = fast.replace("<params>", "<!-- --><params>")
            assert decode_call(fast.encode()) == decode_call(slow.encode())
            assert decode_call(fast.encode()).params == [text] * count


VALUES = (
    "", "x", "<string>a</string>", "<string></string>", "<boolean> 1 </boolean>", "<boolean>2</boolean>",
    "<int>7</int>", "<int>7</i4>", "<i4>-7</i4>", "<int>99999999999999999999</int>",
    "<double>30.0</double>", "<double>x</double>",
    "<array><data></data></array>", "<array><data>\n<value><string>vm</string></value>\n<value></value></data></array>",
    "<array> <data><value>a</value></data> </array>", "<array><data><value>a</value>b</data></array>",
    "<array><data><value><int>1</int></value></data></array>", "<array></array>", " <int>1</int>", "a<int>1</int>",
    "<nil/>", "<struct></struct>", "<array><data><value><array><data></data></array></value></data></array>",
)  # fmt: skip


@pytest.mark.parametrize("value", VALUES)
def test_all_ways_of_decoding_agree(value: str) -> None:
    """Among strings, and in every place, a value means the same, or is as wrong, on the fast ways and the slow one."""
    for place in range(5):
        values = ["s"] * 5
        values[place] = value
        params = "".join(f"<param><value>{one}</value></param>\n" for one in values[: max(place + 1, 3)])
        fast = f"<methodCall><methodName>m</methodName>\n<params>\n{params}</params>\n</methodCall>\n"
        outcomes = []
        for body in (fast, fast.replace("<params>", "<!-- --><params>")):
            try:
                outcomes.append(repr(decode_call(body.encode())))
            except XmlRpcError as error:
                outcomes.append(str(error).partition(": line")[0])
        assert outcomes[0] == outcomes[1]


BOMB = (
    '<?xml version="1.0"?><!DOCTYPE lolz [<!ENTITY a "aaaaaaaaaa"><!ENTITY b "&a;&a;&a;&a;&a;&a;&a;&a;&a;&a;">'
    '<!ENTITY c "&b;&b;&b;&b;&b;&b;&b;&b;&b;&b;">]>'
)


@pytest.mark.parametrize(
    "doctype",
    [
        BOMB,
        '<!DOCTYPE x SYSTEM "file:///etc/passwd">',
        '<!DOCTYPE x [<!ENTITY c SYSTEM "file:///etc/passwd">]>',
        '<!DOCTYPE x [<!ENTITY % p SYSTEM "http://127.0.0.1/"> %p;]>',
        "<!DOCTYPE methodCall>",
    ],
)
def test_document_types_and_entities_are_refused(doctype: str) -> None:
    with pytest.raises(XmlRpcError, match="document types"):
        decode_call(doctype.encode() + call("<value>&c;</value>"))


def nested(depth: int) -> bytes:
    return call("<value><array><data>" * depth + "</data></array></value>" * depth)


def test_depth_is_limited() -> None:
    assert decode_call(nested(MAX_DEPTH)).method == "a.b"
    with pytest.raises(XmlRpcError, match="nested"):
        decode_call(nested(MAX_DEPTH + 1))
    with pytest.raises(XmlRpcError):
        decode_call(nested(100_000))


def test_the_number_of_values_is_limited() -> None:
    def many(count: int) -> bytes:
        return call(f"<value><array><data>{'<value/>' * count}</data></array></value>")

    assert len(decode_call(many(MAX_VALUES - 1)).params[0]) == MAX_VALUES - 1
    with pytest.raises(XmlRpcError, match="values"):
        decode_call(many(MAX_VALUES))


@pytest.mark.parametrize(
    "body",
    each(
        3,
        [
            call("<value>" + "x" * 4_000_000 + "&amp;</value>"),
            call("<value>" + "\n" * 1_000_000 + "&amp;</value>"),
            call("<value>" + "&lt;" * 1_000_000 + "</value>"),
            b" " * 2_000_000 + b"<",
            b"<methodCall>" + b" " * 2_000_000,
            b"<methodCall><methodName>m</methodName><params>" + b" <param> <value>x</value> </param> " * 100_000,
            call("<value><array><data>" + "<value/>" * 500_000 + "</data></array></value>"),
            b"<methodCall " + b"".join(b"a%d='' " % n for n in range(200_000)) + b">",
        ],
    ),
    ids=["text", "lines", "references", "blanks", "blanks inside", "params", "values", "attributes"],
)
def test_large_bodies_cost_time_in_proportion(body: bytes) -> None:
    """Four megabytes of whatever kind: well under what would make other clients wait (0.1 s here, usually)."""
    begin = time.process_time()
    with suppress(XmlRpcError):
        decode_call(body)
    assert time.process_time() - begin < 2


@given(st.binary(max_size=300))
def test_garbage_raises_only_the_own_error(body: bytes) -> None:
    for decode in (decode_call, decode_response):
        try:
            decode(body)
        except XmlRpcError:
            continue


ELEMENTS = [
    *("methodCall", "methodResponse", "fault", "methodName", "params", "param", "value", "array", "data", "struct"),
    *("member", "name", "int", "string", "boolean", "double", "base64", "dateTime.iso8601", "nil"),
]
FRAGMENTS = st.one_of(
    st.sampled_from(["1", "x", " ", "&lt;", "<!--", "-->", "<![CDATA[", "]]>", "<?xml ", "?>"]),
    st.builds(str.format, st.sampled_from(["<{}>", "</{}>", "<{}/>"]), st.sampled_from(ELEMENTS)),
)


@given(st.lists(FRAGMENTS, max_size=40), st.booleans())
def test_almost_calls_raise_only_the_own_error(parts: list[str], framed: bool) -> None:
    body = call("<value>" + "".join(parts) + "</value>") if framed else "".join(parts).encode()
    for decode in (decode_call, decode_response):
        try:
            decode(body)
        except XmlRpcError:
            continue


@given(METHODS, st.lists(WIRE_VALUES, max_size=6))
def test_calls_round_trip(method: str, params: list[Any]) -> None:
    decoded = decode_call(encode_call(method, params))
    assert (decoded.method, decoded.params) == (method, params)


@given(st.floats())
def test_every_double_round_trips(number: float) -> None:
    (decoded,) = decode_call(encode_call("m", [number])).params
    assert decoded == number or (math.isnan(decoded) and math.isnan(number))


def test_responses() -> None:
    body = xmlrpc.client.dumps(({"Status": "Success", "Value": ["a"]},), methodresponse=True).encode()
    assert decode_response(body) == {"Status": "Success", "Value": ["a"]}
    fault = xmlrpc.client.dumps(xmlrpc.client.Fault(4, "too bad")).encode()
    with pytest.raises(XmlRpcFaultError) as caught:
        decode_response(fault)
    assert (caught.value.code, caught.value.text) == (4, "too bad")
    for bad in (b"", b"<methodResponse/>", b"<methodResponse><fault/></methodResponse>", call("<value>x</value>")):
        with pytest.raises(XmlRpcError):
            decode_response(bad)


def test_a_call_with_a_value_of_no_known_kind() -> None:
    with pytest.raises(TypeError, match="set"):
        encode_call("m", [{1, 2}])
