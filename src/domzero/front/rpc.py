"""RPC endpoints: from a request's body to a call, from its outcome to a response's body."""

from __future__ import annotations

import logging
from abc import ABC, abstractmethod
from typing import Any, Generic, Protocol, TypeVar

from domzero.engine.calls import Answer
from domzero.engine.errors import ApiError
from domzero.wire import jsonrpc, xmlrpc
from domzero.wire.http import HttpError

log = logging.getLogger(__name__)

Outcome = Answer | BaseException
"""What a call came to: an answer or the exception that it raised."""


class Call(Protocol):
    """What every wire format decodes to."""

    @property
    def method(self) -> str: ...

    @property
    def params(self) -> list[Any]: ...


CallType = TypeVar("CallType", bound=Call)


class Endpoint(ABC, Generic[CallType]):
    """One wire format of calls."""

    content_type: str

    @abstractmethod
    def decode(self, body: bytes) -> CallType:
        """Raises `HttpError` 500 for a malformed body."""

    @abstractmethod
    def encode_answer(self, call: CallType, answer: Answer) -> list[bytes]:
        """The body, in pieces, for a call that succeeded. Raises if the value is not of its type."""

    @abstractmethod
    def encode_failure(self, call: CallType, error: tuple[str, ...]) -> list[bytes]:
        """The body for a call that failed."""

    def encode(self, call: CallType, outcome: Outcome) -> list[bytes]:
        """The body for any outcome. Defects, of the call or of its value, are logged and become INTERNAL_ERROR."""
        if type(outcome) is Answer:
            try:
                return self.encode_answer(call, outcome)
            except Exception as error:
                log.error("the answer of %s cannot be encoded", call.method, exc_info=error)
                return self.encode_failure(call, description(error))
        assert isinstance(outcome, BaseException)
        if not isinstance(outcome, ApiError):
            log.error("%s failed unexpectedly", call.method, exc_info=outcome)
        return self.encode_failure(call, description(outcome))


class XmlEndpoint(Endpoint[xmlrpc.Call]):
    """XML-RPC."""

    content_type = "text/xml"

    def __init__(self, model: xmlrpc.Model) -> None:
        self._encoder = xmlrpc.XmlEncoder(model)

    def decode(self, body: bytes) -> xmlrpc.Call:
        try:
            return xmlrpc.decode_call(body)
        except xmlrpc.XmlRpcError as error:
            raise HttpError(500, f"The body is no XML-RPC call: {error}") from None

    def encode_answer(self, _call: xmlrpc.Call, answer: Answer) -> list[bytes]:
        return self._encoder.answer_parts(answer.type, answer.value, answer.bare)

    def encode_failure(self, _call: xmlrpc.Call, error: tuple[str, ...]) -> list[bytes]:
        return [xmlrpc.encode_failure(error)]


class JsonFromXmlEndpoint(XmlEndpoint):
    """A call in XML-RPC, whose response is said in JSON: XenServer's oldest door to JSON, `/json`."""

    content_type = "application/json"

    def encode_answer(self, _call: xmlrpc.Call, answer: Answer) -> list[bytes]:
        return [jsonrpc.encode_status(answer.type, answer.value, answer.bare)]

    def encode_failure(self, _call: xmlrpc.Call, error: tuple[str, ...]) -> list[bytes]:
        return [jsonrpc.encode_status_failure(error)]


class JsonEndpoint(Endpoint[jsonrpc.JsonCall]):
    """JSON-RPC, both versions."""

    content_type = "application/json"

    def decode(self, body: bytes) -> jsonrpc.JsonCall:
        try:
            return jsonrpc.decode_call(body)
        except jsonrpc.JsonRpcError as error:
            raise HttpError(500, f"The body is no JSON-RPC call: {error}") from None

    def encode_answer(self, call: jsonrpc.JsonCall, answer: Answer) -> list[bytes]:
        return [jsonrpc.encode_answer(call, answer.type, answer.value)]

    def encode_failure(self, call: jsonrpc.JsonCall, error: tuple[str, ...]) -> list[bytes]:
        return [jsonrpc.encode_failure(call, error)]


def description(outcome: BaseException) -> tuple[str, ...]:
    """The documented error that an exception is on the wire."""
    if isinstance(outcome, ApiError):
        return outcome.description
    return ("INTERNAL_ERROR", f"{type(outcome).__name__}: {outcome}")
