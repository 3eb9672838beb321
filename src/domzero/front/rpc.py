"""RPC endpoints: from a request's body to a call, from its outcome to a response's body."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

from domzero.engine.calls import Answer
from domzero.engine.errors import ApiError
from domzero.idl.graph import Graph
from domzero.wire import jsonrpc, xmlrpc
from domzero.wire.http import HttpError

log = logging.getLogger(__name__)

Outcome = Answer | BaseException
"""What a call came to: an answer or the exception that it raised."""


@dataclass(slots=True)
class Incoming:
    """A decoded call, and how to encode what it comes to."""

    method: str
    params: list[Any]
    encode: Callable[[Outcome], bytes]


class Endpoint(Protocol):
    """One wire format of calls."""

    content_type: str

    def decode(self, body: bytes) -> Incoming:
        """Raises `HttpError` 500 for a malformed body."""
        ...


class XmlEndpoint:
    """XML-RPC."""

    content_type = "text/xml"

    def __init__(self, graph: Graph) -> None:
        self._encoder = xmlrpc.XmlEncoder(graph)

    def decode(self, body: bytes) -> Incoming:
        try:
            call = xmlrpc.decode_call(body)
        except xmlrpc.XmlRpcError as error:
            raise HttpError(500, f"The body is no XML-RPC call: {error}") from None
        return Incoming(call.method, call.params, self._encode)

    def _encode(self, outcome: Outcome) -> bytes:
        if isinstance(outcome, Answer):
            return self._encoder.encode_answer(outcome.type, outcome.value, outcome.bare)
        return xmlrpc.encode_failure(description(outcome))


class JsonEndpoint:
    """JSON-RPC, both versions."""

    content_type = "application/json"

    def decode(self, body: bytes) -> Incoming:
        try:
            call = jsonrpc.decode_call(body)
        except jsonrpc.JsonRpcError as error:
            raise HttpError(500, f"The body is no JSON-RPC call: {error}") from None
        return Incoming(call.method, call.params, lambda outcome: self._encode(call, outcome))

    def _encode(self, call: jsonrpc.JsonCall, outcome: Outcome) -> bytes:
        if isinstance(outcome, Answer):
            return jsonrpc.encode_answer(call, outcome.type, outcome.value)
        return jsonrpc.encode_failure(call, description(outcome))


def description(outcome: BaseException) -> tuple[str, ...]:
    """The documented error that an exception is on the wire."""
    if isinstance(outcome, ApiError):
        return outcome.description
    return ("INTERNAL_ERROR", f"{type(outcome).__name__}: {outcome}")


def encode(incoming: Incoming, outcome: Outcome) -> bytes:
    """The response's body. Defects, of the call or of its encoding, are logged and become INTERNAL_ERROR."""
    if not isinstance(outcome, Answer | ApiError):
        log.error("%s failed unexpectedly", incoming.method, exc_info=outcome)
    try:
        return incoming.encode(outcome)
    except Exception as error:
        log.error("the answer of %s cannot be encoded", incoming.method, exc_info=error)
        return incoming.encode(error)
