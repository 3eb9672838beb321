"""What the front needs from whoever carries out calls."""

from __future__ import annotations

from collections.abc import Awaitable, Sequence
from typing import Any, Protocol

from domzero.engine.calls import Answer, Origin


class Dispatcher(Protocol):
    """Carries out calls, whatever the wire format they came in."""

    def call(self, method: str, params: Sequence[Any], origin: Origin) -> Answer | Awaitable[Answer]:
        """Carry out one call. An `Answer` comes back at once for cheap calls, an awaitable for those that wait.

        `params` are values as decoded from the wire (`str`, `int`, `bool`, `float`, `list`, `dict`, `None`, `bytes`,
        and `wire.xmlrpc.DateTime`, a `str`); turning them into API types is the dispatcher's work. Calling, or
        awaiting, raises `ApiError` for every documented failure; any other exception is a defect, which the front
        logs and reports as INTERNAL_ERROR.

        Who made the task owns it. A coroutine is run by the front and *cancelled* when its client goes away or the
        server stops: right for calls that only wait (`event.from`). A future or task belongs to the dispatcher: the
        front listens to it and never cancels it, so work that must not stop half way is handed over as a task.
        """
        ...


async def awaited(waiting: Awaitable[Answer]) -> Answer:
    """What is waited for, as a coroutine that a task can be made of."""
    return await waiting
