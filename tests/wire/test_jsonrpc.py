"""JSON-RPC 1.0 and 2.0."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from domzero.idl.types import EVENT_BATCH, FLOAT, INT, STRING, STRING_MAP, VOID, MapOf, RecordOf, RefTo, Type
from domzero.wire.jsonrpc import (
    MAX_DEPTH,
    JsonCall,
    JsonRpcError,
    decode_call,
    decode_response,
    encode_answer,
    encode_call,
    encode_failure,
)
from tests.front.toy import box, event_batch
from tests.wire.values import ANY_TEXT, METHODS, Pair, typed_values

ONE, TWO = JsonCall("m", [], "id", 1), JsonCall("m", [], 5, 2)


def result(type_: Type, value: Any) -> Any:
    answer = json.loads(encode_answer(TWO, type_, value))
    assert answer.keys() == {"jsonrpc", "result", "id"}
    return answer["result"]


def test_the_two_versions() -> None:
    assert decode_call(b'{"method": "a.b", "params": ["x", 1], "id": "i"}') == JsonCall("a.b", ["x", 1], "i", 1)
    assert decode_call(b'{"jsonrpc":"2.0","method":"a.b","params":[],"id":0}') == JsonCall("a.b", [], 0, 2)
    assert json.loads(encode_answer(ONE, STRING, "x")) == {"result": "x", "error": None, "id": "id"}
    assert json.loads(encode_answer(TWO, STRING, "x")) == {"jsonrpc": "2.0", "result": "x", "id": 5}
    assert json.loads(encode_failure(ONE, ("C", "p"))) == {"result": None, "error": ["C", "p"], "id": "id"}
    error = {"code": 1, "message": "C", "data": ["p"]}
    assert json.loads(encode_failure(TWO, ("C", "p"))) == {"jsonrpc": "2.0", "error": error, "id": 5}


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"[]",
        b"null",
        b'{"method":"m","params":[],"id":1',
        b'[{"method":"m","params":[],"id":1}]',
        b'{"params":[],"id":1}',
        b'{"method":5,"params":[],"id":1}',
        b'{"method":"m","id":1}',
        b'{"method":"m","params":{"a":1},"id":1}',
        b'{"method":"m","params":[]}',
        b'{"method":"m","params":[],"id":null}',
        b'{"method":"m","params":[],"id":1.5}',
        b'{"method":"m","params":[],"id":true}',
        b'{"method":"m","params":[],"id":[1]}',
        b'{"jsonrpc":"1.0","method":"m","params":[],"id":1}',
        b'{"jsonrpc":null,"method":"m","params":[],"id":1}',
        b'{"method":"\xff","params":[],"id":1}',
        b'{"method":"m","params":["\\ud800"],"id":1}',
    ],
)
def test_refused_calls(body: bytes) -> None:
    with pytest.raises(JsonRpcError):
        decode_call(body)


def test_depth_is_limited() -> None:
    def nested(depth: int) -> bytes:
        return b'{"method":"m","id":1,"params":' + b"[" * depth + b"]" * depth + b"}"

    assert decode_call(nested(MAX_DEPTH - 1)).method == "m"
    for depth in (MAX_DEPTH, 900, 100_000):
        with pytest.raises(JsonRpcError):
            decode_call(nested(depth))


def test_the_number_of_values_is_limited() -> None:
    def call(params: bytes) -> bytes:
        return b'{"method":"m","id":1,"params":[' + params + b"]}"

    assert len(decode_call(call(b"[]," * 1000 + b"1," * 40_000 + b"1")).params) == 41_001
    assert decode_call(call(b'"' + b"[1," * 100_000 + b'"')).params == ["[1," * 100_000], "text is text"
    for params in (b"[]," * 60_000 + b"1", b"1," * 60_000 + b"1", b'{"a":1},' * 30_000 + b"1"):
        with pytest.raises(JsonRpcError, match="values"):
            decode_call(call(params))


@given(st.binary(max_size=200) | st.text(alphabet='{}[]",:0123456789truefalsnmethodparid\\u').map(str.encode))
def test_garbage_raises_only_the_own_error(body: bytes) -> None:
    for decode in (decode_call, decode_response):
        try:
            decode(body)
        except JsonRpcError:
            continue


JSON_VALUES = st.recursive(
    st.text() | st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.floats(allow_nan=False, allow_infinity=False),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=10,
)


@given(METHODS, st.lists(JSON_VALUES, max_size=5), st.text() | st.integers(0, 2**60))
def test_calls_round_trip(method: str, params: list[Any], id_: str | int) -> None:
    assert decode_call(encode_call(method, params, id_)) == JsonCall(method, params, id_, 2)


@given(typed_values(), st.sampled_from([ONE, TWO]))
def test_answers_round_trip(pair: Pair, call: JsonCall) -> None:
    type_, value = pair
    if "inf" in repr(value):
        return
    response = decode_response(encode_answer(call, type_, value))
    assert (response.id, response.error) == (call.id, None)
    assert response.result == json.loads(json.dumps(value))


@given(ANY_TEXT)
def test_no_text_breaks_the_json(text: str) -> None:
    assert result(STRING_MAP, {text: text}) == {k: k for k in [text.encode("utf-8", "ignore").decode()]}
    decode_response(encode_failure(TWO, (text, text)))


def test_values() -> None:
    assert result(INT, 2**63 - 1) == 2**63 - 1
    assert result(VOID, None) == ""
    assert result(FLOAT, float("nan")) is None
    assert result(MapOf(INT, FLOAT), {1: 0.5}) == {"1": 0.5}
    assert encode_answer(TWO, INT, 5) == b'{"jsonrpc":"2.0","result":5,"id":5}'


def test_a_record_is_encoded_once() -> None:
    record = box()
    first = result(RecordOf("box"), record)
    assert first["size"] == 2**40 + 1
    assert first["load"] == {"0": 0.5, "1": 1e-9}
    assert first["made"] == "20080301T12:00:00Z"
    record.json = b'{"kept":true}'
    assert result(RecordOf("box"), record) == {"kept": True}
    assert result(MapOf(RefTo("box"), RecordOf("box")), {"r": record}) == {"r": {"kept": True}}


def test_event_batches() -> None:
    batch = result(EVENT_BATCH, event_batch())
    assert batch["valid_ref_counts"] == {"box": 1}
    assert [event["id"] for event in batch["events"]] == [1, 2]
    assert batch["events"][0]["snapshot"]["uuid"] == box().values_[0]
    assert "snapshot" not in batch["events"][1]


def test_responses() -> None:
    assert decode_response(encode_failure(ONE, ("C", "p"))).error == ["C", "p"]
    assert decode_response(encode_failure(TWO, ("C", "p"))).error == ["C", "p"]
    for bad in (b"[]", b"{}", b'{"error":5,"id":1}', b'{"error":{"code":1},"id":1}'):
        with pytest.raises(JsonRpcError):
            decode_response(bad)


def test_a_value_of_no_known_kind() -> None:
    with pytest.raises(TypeError):
        encode_call("m", [object()], 1)
