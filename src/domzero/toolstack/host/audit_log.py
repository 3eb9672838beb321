"""`GET /audit_log`: who called what, from a moment on, oldest first; one JSON object a line."""

from __future__ import annotations

from contextlib import aclosing
from datetime import UTC, datetime

from domzero.engine.clock import moment
from domzero.engine.context import Context
from domzero.engine.exchange import Arguments, Peer, RequestError, serves
from domzero.toolstack.host.streams import attachment, threaded
from domzero.toolstack.stack import Stack

EARLIEST = 1970
"""The year before which nothing was told."""


@serves("GET", "/audit_log", role="read-only", label="audit_log")
async def audit_log(stack: Stack, context: Context, peer: Peer, arguments: Arguments) -> None:
    """Send the audit; `since` is a date, or a moment in the API's form or another of ISO 8601."""
    since = beginning(arguments.get("since", ""))
    stack.audit.flush()
    peer.begin(200, attachment("text/plain; charset=utf-8", "audit.log"))
    with context.task.cancellable():
        async with aclosing(threaded(stack.audit.read(since))) as pieces:
            async for piece in pieces:
                await peer.write(piece)


def beginning(text: str) -> str:
    """The moment that a query names, in the API's form; without a zone it is one of UTC. Raises `RequestError`."""
    if not text:
        return ""
    try:
        named = datetime.fromisoformat(text)
        # Years of less than four digits, which no line is from, would compare otherwise than they are.
        return moment(named if named.tzinfo else named.replace(tzinfo=UTC)) if named.year >= EARLIEST else ""
    except (ValueError, OverflowError):
        raise RequestError(400, "since is no date or moment, such as 2026-01-31 or 20260131T12:00:00Z.") from None
