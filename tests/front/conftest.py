"""A certificate for the session, and servers with chosen limits."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest

from domzero.front.certificates import Certificate, ensure_certificate, tls_context
from domzero.front.limits import Limits
from domzero.front.routes import Routes
from domzero.front.server import Server
from tests.front.toy import GRAPH, Doors, Toy

Serve = Callable[..., Awaitable[Doors]]


@pytest.fixture(scope="session")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Certificate:
    return ensure_certificate(tmp_path_factory.mktemp("certificate"), ["localhost"], ["127.0.0.1", "::1"])


@pytest.fixture
async def serve(tmp_path: Path, certificate: Certificate) -> AsyncIterator[Serve]:
    """Starts servers with the limits and routes asked for; all are stopped at the end."""
    servers: list[Server] = []

    async def start(limits: Limits | None = None, routes: Routes | None = None) -> Doors:
        toy = Toy()
        server = Server(toy, GRAPH, routes, limits)
        servers.append(server)
        path = tmp_path / f"socket{len(servers)}"
        server.listen_unix(path)
        https = server.listen_https("127.0.0.1", 0, tls_context(certificate))
        return Doors(server, toy, https, server.listen_http("127.0.0.1", 0), path)

    yield start
    for server in servers:
        await server.stop(grace=0)


@pytest.fixture
async def doors(serve: Serve) -> Doors:
    """A server with the default limits."""
    return await serve()
