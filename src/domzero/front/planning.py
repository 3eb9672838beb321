"""What to do with a request, decided from its head alone. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from domzero.front.limits import Limits
from domzero.front.routes import Route, Routes
from domzero.front.rpc import Endpoint
from domzero.wire.http import HttpError, RequestHead, could_be_request, response_head

CORS_HEADERS = (
    ("access-control-allow-origin", "*"),
    ("access-control-allow-headers", "X-Requested-With, Content-Type"),
)
PREFLIGHT_HEADERS = (*CORS_HEADERS, ("access-control-allow-methods", "POST, OPTIONS"))


def _rpc_heads(content_type: str) -> tuple[bytes, bytes]:
    """An RPC response's head with a place for the length: to close the connection, and to keep it alive."""
    headers = (*CORS_HEADERS, ("content-type", content_type), ("content-length", "%d"))
    close, keep = (response_head(200, headers, length=None, keep_alive=keep) for keep in (False, True))
    return close, keep


RPC_HEADS = {content_type: _rpc_heads(content_type) for content_type in ("text/xml", "application/json")}
_BODILESS = frozenset({"GET", "HEAD", "DELETE", "OPTIONS", "CONNECT"})


@dataclass(frozen=True, slots=True)
class Plan:
    """A request that is welcome: an RPC (`endpoint`), a page or raw connection (`route`), or a preflight (neither).

    `length` is the size of the body to wait for; for a raw connection it means nothing.
    """

    head: RequestHead
    length: int
    endpoint: Endpoint[Any] | None = None
    route: Route | None = None
    expects_continue: bool = False


class KnownHead:
    """The head that a client sent last, which it repeats byte by byte from call to call.

    `size` is that of a whole request that begins so and is a call; -1 for others.
    """

    __slots__ = ("head", "plan", "size")

    def __init__(self, head: bytes, plan: Plan) -> None:
        self.head = head
        self.plan = plan
        self.size = -1 if plan.endpoint is None else len(head) + plan.length


def plan(head: RequestHead, endpoints: Mapping[str, Endpoint[Any]], routes: Routes, limits: Limits) -> Plan:
    """Decide. Raises `HttpError` 404, 405, 411, 413 or 501."""
    endpoint = endpoints.get(head.path)
    if endpoint is not None and head.method == "POST":
        return Plan(head, _length(head, limits), endpoint=endpoint, expects_continue=_expects_continue(head))
    if endpoint is not None and head.method == "OPTIONS":
        return Plan(head, _length(head, limits))
    route = _route(head, endpoint is not None, routes)
    if route.raw is not None:
        return Plan(head, 0, route=route)
    return Plan(head, _length(head, limits), route=route, expects_continue=_expects_continue(head))


def _route(head: RequestHead, is_endpoint: bool, routes: Routes) -> Route:
    try:
        return routes.find(head.method, head.path)
    except HttpError as error:
        if is_endpoint and error.status == 404:
            text = f"{head.path} takes calls, by POST."
            raise HttpError(405, text, (("allow", "POST, OPTIONS"),)) from None
        raise


def _length(head: RequestHead, limits: Limits) -> int:
    if head.chunked:
        raise HttpError(411, "Bodies in chunks are not accepted; send a Content-Length.")
    if head.content_length is None:
        if head.method not in _BODILESS:
            raise HttpError(411, "A Content-Length is needed.")
        return 0
    if head.content_length > limits.body_size:
        raise HttpError(413, f"The body has {head.content_length} bytes; the limit is {limits.body_size}.")
    return head.content_length


def _expects_continue(head: RequestHead) -> bool:
    return head.version == "1.1" and (head.header("expect") or "").lower() == "100-continue"


def head_too_large(limits: Limits) -> HttpError:
    """What is wrong with a head above the limit."""
    return HttpError(431, f"The head of a request may have {limits.head_size} bytes.")


def start_error(start: bytes | bytearray, limits: Limits) -> HttpError | None:
    """What is wrong with an unfinished head that can never become a good one; `None` while it may."""
    if len(start) > limits.head_size:
        return head_too_large(limits)
    return None if could_be_request(start) else HttpError(400, "This is no HTTP/1.x request.")
