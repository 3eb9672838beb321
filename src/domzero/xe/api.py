"""The API as the commands see it: one coroutine. Every call is made with the caller's session, so roles hold."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Protocol

from domzero.engine.calls import Answer, Origin
from domzero.engine.errors import ApiError

ORIGINATOR = "cli"
VERSION = "1.0"


class Api(Protocol):
    """Makes calls."""

    session: str
    """The reference that other doors of the host take for this caller."""

    async def call(self, method: str, *params: Any) -> Any:
        """Make a call, the session left out. Raises `ApiError`."""
        ...


class Dispatching(Protocol):
    """What carries out calls; see the engine's dispatcher."""

    def call(self, method: str, params: Sequence[Any], origin: Origin) -> Answer | Awaitable[Answer]:
        """Carry out one call. Raises `ApiError`, now or when awaited."""
        ...


class SessionApi:
    """Calls made straight to the dispatcher, in one session."""

    def __init__(self, dispatcher: Dispatching, origin: Origin, session: str) -> None:
        self._dispatcher = dispatcher
        self._origin = origin
        self.session = session

    async def call(self, method: str, *params: Any) -> Any:
        """Make a call. Raises `ApiError`."""
        return await answer(self._dispatcher, method, (self.session, *params), self._origin)


class ToldApi:
    """The same API, which tells of every call: its name, what became of it and how long it took, but no values."""

    def __init__(self, api: Api, tell: Callable[[str], Awaitable[None]]) -> None:
        self._api = api
        self._tell = tell
        self.session = api.session

    async def call(self, method: str, *params: Any) -> Any:
        """Make a call. Raises `ApiError`."""
        begun, outcome = time.monotonic(), "done"
        try:
            return await self._api.call(method, *params)
        except ApiError as error:
            outcome = error.code
            raise
        finally:
            await self._tell(f"{method}: {outcome}, {(time.monotonic() - begun) * 1000:.1f} ms")


async def answer(dispatcher: Dispatching, method: str, params: Sequence[Any], origin: Origin) -> Any:
    """The value of a call, at once or after a wait. Raises `ApiError`."""
    outcome = dispatcher.call(method, params, origin)
    if not isinstance(outcome, Answer):
        outcome = await outcome
    return outcome.value


async def login(dispatcher: Dispatching, name: str, password: str, origin: Origin) -> SessionApi:
    """Log in, as any client does. A local caller is root whatever it says. Raises `ApiError`."""
    session = await answer(dispatcher, "session.login_with_password", (name, password, VERSION, ORIGINATOR), origin)
    return SessionApi(dispatcher, origin, session)
