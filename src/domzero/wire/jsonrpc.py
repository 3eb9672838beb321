"""JSON-RPC 1.0 and 2.0 as XenAPI speaks them: positional parameters, one call a body, no notifications.

Integers are JSON numbers, dates are strings, and there is no Status envelope in either version; see
`docs/decisions/0012-json-rpc-envelope.md` for why version 1.0 has none.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import orjson

from domzero.idl.records import Record
from domzero.idl.types import EVENT_BATCH, VOID, Type
from domzero.wire.xml_decode import MAX_VALUES

MAX_DEPTH = 64
"""How deep arrays and objects may be nested."""
_OPTIONS = orjson.OPT_NON_STR_KEYS


class JsonRpcError(Exception):
    """The body is not an acceptable JSON-RPC call or response; the text says why."""


@dataclass(slots=True)
class JsonCall:
    """A decoded call. `version` is 1 or 2; `id` goes back with the answer."""

    method: str
    params: list[Any]
    id: str | int
    version: int


@dataclass(slots=True)
class JsonResponse:
    """A decoded response: `result`, or `error` as a code and its parameters."""

    result: Any
    error: list[str] | None
    id: Any


def decode_call(body: bytes) -> JsonCall:
    """Decode a call. Raises `JsonRpcError` and nothing else, whatever the bytes.

    A call needs a method, an array of parameters, and an id that is a string or an integer.
    """
    call = _load(body, MAX_VALUES)
    if not isinstance(call, dict):
        raise JsonRpcError("a call is one JSON object; batches are not supported")
    method, params, id_ = call.get("method"), call.get("params"), call.get("id")
    if not isinstance(method, str):
        raise JsonRpcError("the member method must be a string")
    if not isinstance(params, list):
        raise JsonRpcError("the member params must be an array")
    if type(id_) is not int and not isinstance(id_, str):
        raise JsonRpcError("the member id must be a string or an integer")
    if "jsonrpc" not in call:
        return JsonCall(method, params, id_, 1)
    if call["jsonrpc"] != "2.0":
        raise JsonRpcError("the member jsonrpc must be absent or the string 2.0")
    return JsonCall(method, params, id_, 2)


def decode_response(body: bytes) -> JsonResponse:
    """Decode a response of either version. Raises `JsonRpcError`."""
    response = _load(body)
    if not isinstance(response, dict):
        raise JsonRpcError("a response is one JSON object")
    match response.get("error"):
        case None:
            if "result" not in response:
                raise JsonRpcError("a response has a result or an error")
            return JsonResponse(response["result"], None, response.get("id"))
        case {"message": str(code), "data": [*params]}:
            return JsonResponse(None, [code, *map(str, params)], response.get("id"))
        case [str(code), *params]:
            return JsonResponse(None, [code, *map(str, params)], response.get("id"))
    raise JsonRpcError("the error has an unknown form")


def encode_call(method: str, params: tuple[Any, ...] | list[Any], id_: str | int) -> bytes:
    """A version 2.0 call. Raises `TypeError` for a value that has no JSON form."""
    return _dump({"jsonrpc": "2.0", "method": method, "params": params, "id": id_})


def encode_answer(call: JsonCall, type_: Type, value: Any) -> bytes:
    """The response to a call that succeeded."""
    result = _result(type_, value)
    if call.version == 1:
        return _dump({"result": result, "error": None, "id": call.id})
    return _dump({"jsonrpc": "2.0", "result": result, "id": call.id})


def encode_failure(call: JsonCall, description: Sequence[str]) -> bytes:
    """The response to a call that failed. The description is the error's code and its parameters."""
    if call.version == 1:
        return _dump({"result": None, "error": description, "id": call.id})
    problem = {"code": 1, "message": description[0], "data": description[1:]}
    return _dump({"jsonrpc": "2.0", "error": problem, "id": call.id})


def encode_status(type_: Type, value: Any, bare: bool) -> bytes:
    """What an XML-RPC response says to a call that succeeded, in JSON. `bare` values have no Status around them."""
    result = _result(type_, value)
    return _dump(result if bare else {"Status": "Success", "Value": result})


def encode_status_failure(description: Sequence[str]) -> bytes:
    """The same for a call that failed."""
    return _dump({"Status": "Failure", "ErrorDescription": description})


def _result(type_: Type, value: Any) -> Any:
    if type_ == VOID:
        return ""
    if type_ == EVENT_BATCH:
        return {**value, "events": [_event(event) for event in value["events"]]}
    return value


def _event(event: dict[str, Any]) -> dict[str, Any]:
    """An event; what is absent (a snapshot of something deleted) is left out and not null."""
    return {name: value for name, value in event.items() if value is not None}


def _load(body: bytes, most: int | None = None) -> Any:
    try:
        value = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise JsonRpcError(f"the JSON is malformed: {error}") from None
    containers = body.count(b"[") + body.count(b"{")
    if containers > MAX_DEPTH or (most is not None and containers + body.count(b",") > most):
        _check_size(value, most)
    return value


def _check_size(value: Any, most: int | None) -> None:
    """Walks level by level, since recursion is what a deep value would break."""
    level, left = [value], most
    for _ in range(MAX_DEPTH + 1):
        if left is not None:
            left -= len(level)
            if left < 0:
                raise JsonRpcError(f"more than {most} values")
        containers = [item for item in level if isinstance(item, list | dict)]
        if not containers:
            return
        level = [child for item in containers for child in (item.values() if isinstance(item, dict) else item)]
    raise JsonRpcError(f"nested deeper than {MAX_DEPTH}")


def _dump(value: Any) -> bytes:
    try:
        return orjson.dumps(value, default=_fragment, option=_OPTIONS)
    except orjson.JSONEncodeError as error:
        if "surrogates" not in str(error):
            raise
        return orjson.dumps(_without_surrogates(value), default=_fragment, option=_OPTIONS)


def _fragment(value: Any) -> orjson.Fragment:
    """A record's JSON, made once and kept on the record."""
    if not isinstance(value, Record):
        raise TypeError(f"a {type(value).__name__} has no JSON form")
    if value.json is None:
        value.json = _dump(dict(zip(value.layout.names, value.values_, strict=True)))
    return orjson.Fragment(value.json)


def _without_surrogates(value: Any) -> Any:
    """The same value with lone surrogates, which no encoding can carry, dropped from its texts."""
    match value:
        case str():
            return value.encode("utf-8", "ignore").decode()
        case dict():
            return {_without_surrogates(key): _without_surrogates(item) for key, item in value.items()}
        case list() | tuple():
            return [_without_surrogates(item) for item in value]
    return value
