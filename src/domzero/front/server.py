"""The front door: one object that listens on HTTPS, on plain HTTP where asked for, and on Unix sockets."""

from __future__ import annotations

import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from domzero.front.dispatching import Dispatcher
from domzero.front.hub import Door, Hub
from domzero.front.limits import Limits
from domzero.front.listeners import Listener, open_tcp, open_unix
from domzero.front.routes import Routes
from domzero.front.rpc import Endpoint, JsonEndpoint, JsonFromXmlEndpoint, XmlEndpoint
from domzero.wire.xmlrpc import Model

SOCKET_MODE = 0o600


@dataclass(frozen=True, slots=True)
class _Outside:
    """What it takes to listen at a TCP address once more."""

    door: Door
    host: str
    port: int
    context: ssl.SSLContext | None


def endpoints(model: Model) -> Mapping[str, Endpoint[Any]]:
    """Where calls are taken: the classic path, two others that clients use for XML-RPC, JSON-RPC, and both mixed."""
    xml = XmlEndpoint(model)
    return {
        "/": xml, "/RPC2": xml, "/xmlrpc": xml, "/jsonrpc": JsonEndpoint(), "/json": JsonFromXmlEndpoint(model),
    }  # fmt: skip


class Server:
    """Serves calls, pages and raw connections. Made and used inside a running event loop.

    Nothing listens until one of the `listen_…` methods was awaited; each may be used several times.
    """

    def __init__(
        self, dispatcher: Dispatcher, model: Model, routes: Routes | None = None, limits: Limits | None = None
    ) -> None:
        self.limits = limits or Limits()
        self.routes = routes or Routes()
        self._hub = Hub(dispatcher, endpoints(model), self.routes, self.limits)
        self._listeners: list[Listener] = []
        self._shut: list[_Outside] = []
        """The doors for callers from outside that were closed and may be opened again."""
        self._outside: list[_Outside] = []

    @property
    def connections(self) -> int:
        """How many connections are open."""
        return len(self._hub.members)

    def listen_https(self, host: str, port: int, context: ssl.SSLContext) -> int:
        """Listen with TLS. An empty host means all addresses, port 0 a free port. Returns the port.

        Raises `ListenError`.
        """
        door = Door("https", tls=True, local=False, limit=self.limits.tcp_connections)
        return self._listen_tcp(door, host, port, context)

    def listen_http(self, host: str, port: int) -> int:
        """The same without TLS: whoever is on the way can read passwords, so only for tests and closed networks."""
        door = Door("http", tls=False, local=False, limit=self.limits.tcp_connections)
        return self._listen_tcp(door, host, port, None)

    def listen_unix(self, path: Path, mode: int = SOCKET_MODE) -> None:
        """Listen on a Unix socket, whose peers are trusted as root: the mode decides who they are.

        Raises `ListenError`.
        """
        door = Door(f"unix {path}", tls=False, local=True, limit=self.limits.unix_connections)
        self._listeners.append(Listener(self._hub, door, open_unix(path, mode), path=path))

    async def close_outside(self) -> None:
        """Let nobody in but by Unix sockets: TCP listeners are closed, and connections when they have answered."""
        outside = [listener for listener in self._listeners if not listener.door.local]
        self._listeners = [listener for listener in self._listeners if listener.door.local]
        for listener in outside:
            await listener.close()
        self._shut, self._outside = self._shut + self._outside, []
        self._hub.dismiss_outside()

    def open_outside(self) -> None:
        """Open again what `close_outside` closed, on the same ports. Raises `ListenError`."""
        self._hub.outside_shut = False
        while self._shut:
            place = self._shut[-1]
            self._listen_tcp(place.door, place.host, place.port, place.context)
            self._shut.pop()

    async def stop(self, grace: float = 10.0) -> None:
        """Stop listening, let requests under way finish for up to `grace` seconds, and close everything."""
        for listener in self._listeners:
            await listener.close()
        self._listeners.clear()
        await self._hub.stop(grace)

    def _listen_tcp(self, door: Door, host: str, port: int, context: ssl.SSLContext | None) -> int:
        sockets = open_tcp(host, port)
        self._listeners += [Listener(self._hub, door, listening, context) for listening in sockets]
        chosen = int(sockets[0].getsockname()[1])
        self._outside.append(_Outside(door, host, chosen, context))
        return chosen
