"""Connections of `xe` to a host: by its own socket, or by TCP with or without TLS.

The host's certificate is not checked, as the original does not: hosts sign their own. Whoever is between client and
host can read what is sent; `docs/xe.md` says so.
"""

from __future__ import annotations

import os
import socket

from domzero.client.xe_options import Options

TIMEOUT = 30.0
"""Seconds for the connection to come to be."""


class UnreachableError(Exception):
    """No host answers; the text is for a person."""


def own_sockets() -> list[str]:
    """Where the host of this machine may listen, the likeliest place first."""
    if os.geteuid() == 0:
        return ["/run/domzero/xapi", "/var/lib/xcp/xapi", "/var/xapi/xapi"]
    runtime, data = os.environ.get("XDG_RUNTIME_DIR", ""), os.environ.get("XDG_DATA_HOME", "")
    home = data if data.startswith("/") else os.path.expanduser("~/.local/share")
    places = [f"{runtime}/domzero/xapi"] if runtime.startswith("/") else []
    return [*places, f"{home}/domzero/run/xapi"]


def connect(options: Options) -> socket.socket:
    """A connection to the host that the options name. Raises `UnreachableError`."""
    if options.server.startswith("/"):
        return _unix(options.server)
    if not options.server and options.port is None:
        for path in own_sockets():
            if os.path.exists(path):
                return _unix(path)
    return connect_tcp(options.server or "127.0.0.1", options.tcp_port, options.tls)


def connect_tcp(server: str, port: int, tls: bool) -> socket.socket:
    """A connection by TCP. Raises `UnreachableError`."""
    host = server[1:-1] if server.startswith("[") and server.endswith("]") else server
    try:
        plain = socket.create_connection((host, port), TIMEOUT)
        plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connection = _secured(plain) if tls else plain
        connection.settimeout(None)
    except (OSError, UnicodeError) as error:
        raise UnreachableError(f"No host answers at {server}, port {port}: {error}") from None
    return connection


def _secured(plain: socket.socket) -> socket.socket:
    import ssl  # takes longer than all the rest, and the host's own socket needs none of it

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    try:
        return context.wrap_socket(plain)
    except OSError:
        plain.close()
        raise


def _unix(path: str) -> socket.socket:
    connection = socket.socket(socket.AF_UNIX)
    try:
        connection.connect(path)
    except OSError as error:
        connection.close()
        raise UnreachableError(f"No host answers at {path}: {error}") from None
    return connection
