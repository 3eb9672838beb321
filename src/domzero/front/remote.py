"""The doors for callers from outside, in the toolstack's hands."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from domzero.engine.calls import Origin
from domzero.front.listeners import ListenError
from domzero.front.server import Server


class Guarded(Protocol):
    """A dispatcher that can be made to tell of each call."""

    guard: Callable[[str, Origin], None] | None


class RemoteDoors:
    """Opens, closes and watches what a server listens on besides Unix sockets."""

    def __init__(self, server: Server, dispatcher: Guarded) -> None:
        self._server = server
        self._dispatcher = dispatcher

    async def close(self) -> None:
        """Let nobody in from outside any more; calls under way still answer."""
        await self._server.close_outside()

    async def open(self) -> None:
        """Let them in again. Raises `OSError`."""
        try:
            self._server.open_outside()
        except ListenError as error:
            raise OSError(str(error)) from error

    def watch(self, witness: Callable[[Origin], None] | None) -> None:
        """Have every call told to the witness from now on, or to nobody."""
        self._dispatcher.guard = None if witness is None else lambda _, origin: witness(origin)
