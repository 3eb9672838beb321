"""The messages of the event class. Calls that wait end when their caller goes away."""

from __future__ import annotations

from typing import Any

from domzero.engine.binding import implements
from domzero.engine.context import Context
from domzero.idl.types import Ref


@implements("event.register")
def register(context: Context, classes: tuple[str, ...]) -> None:
    """Subscribe the session to classes, beside those it has; `*` stands for all."""
    context.events.register(context.caller.ref, classes)


@implements("event.unregister")
def unregister(context: Context, classes: tuple[str, ...]) -> None:
    """Take classes off the session's subscription."""
    context.events.unregister(context.caller.ref, classes)


@implements("event.next", abandoned_with_caller=True)
async def next_(context: Context) -> Any:
    """Wait for events of the subscription. Raises `SESSION_NOT_REGISTERED`, `EVENTS_LOST`, `SESSION_INVALID`."""
    return await context.events.next(context.caller.ref)


@implements("event.get_current_id")
def get_current_id(context: Context) -> int:
    """The number of the latest event."""
    return context.events.get_current_id()


@implements("event.from", abandoned_with_caller=True)
async def from_(context: Context, classes: tuple[str, ...], token: str, timeout: float) -> dict[str, Any]:
    """Wait for changes since a token, at most `timeout` seconds.

    Raises `EVENT_FROM_TOKEN_PARSE_FAILURE`, `EVENT_SUBSCRIPTION_PARSE_FAILURE`, `SESSION_INVALID`.
    """
    return await context.events.from_(context.caller.ref, classes, token, timeout)


@implements("event.inject")
def inject(context: Context, class_: str, ref: Ref) -> str:
    """Mark an object as changed; the token tells when a watcher is past that point. Raises `HANDLE_INVALID`."""
    return context.events.inject(class_, ref)
