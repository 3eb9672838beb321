"""Listening sockets: opening them safely, and accepting without letting half-open connections pile up."""

from __future__ import annotations

import asyncio
import errno
import logging
import os
import socket
import ssl
import stat
from contextlib import suppress
from pathlib import Path

from domzero.front.connection import Connection
from domzero.front.hub import Door, Hub

log = logging.getLogger(__name__)

BACKLOG = 128
FULL_PAUSE = 0.5
"""Seconds without accepting after the process ran out of descriptors; asyncio's own servers do the same."""
KEEP_ALIVE = (
    (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1),
    (socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 60),
    (socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 15),
    (socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 4),
)
"""The kernel asks now and then whether the peer is there: a call that waits, or a still screen, sends nothing by which
it would be noticed that a machine or a way to it is gone, and would keep connection and session for ever."""
_FULL = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)


class ListenError(Exception):
    """A socket cannot be opened; the text says which and why."""


def open_tcp(host: str, port: int) -> list[socket.socket]:
    """Listening sockets for an address, a host name (each of its addresses) or, for an empty host, all addresses.

    Raises `ListenError`. Port 0 takes a free port, the same for all sockets where there are several.
    """
    sockets: list[socket.socket] = []
    try:
        if not host and socket.has_dualstack_ipv6():
            return [socket.create_server(("", port), family=socket.AF_INET6, backlog=BACKLOG, dualstack_ipv6=True)]
        found = socket.getaddrinfo(host or "0.0.0.0", port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        for family, _, _, _, address in dict.fromkeys(found):
            name = str(address[0])
            sockets.append(socket.create_server((name, port), family=family, backlog=BACKLOG))
            port = sockets[0].getsockname()[1]
    except OSError as error:
        for opened in sockets:
            opened.close()
        raise ListenError(f"cannot listen on {host or '*'} port {port}: {error.strerror or error}") from error
    return sockets


def open_unix(path: Path, mode: int) -> socket.socket:
    """A listening Unix socket with the given mode from its first moment.

    What a dead server left behind is replaced; a socket that somebody listens on, and anything that is no socket, is
    left alone. Raises `ListenError`.
    """
    _check_replaceable(path)
    fresh = path.with_name(f".{path.name}.{os.getpid()}")
    listening = socket.socket(socket.AF_UNIX)
    try:
        with suppress(FileNotFoundError):
            fresh.unlink()
        listening.bind(os.fspath(fresh))
        # Nobody can connect before listen(), so the mode holds before it matters.
        fresh.chmod(mode)
        listening.listen(BACKLOG)
        fresh.rename(path)
    except OSError as error:
        listening.close()
        raise ListenError(f"cannot listen on {path}: {error.strerror or error}") from error
    return listening


def _check_replaceable(path: Path) -> None:
    try:
        mode = path.lstat().st_mode
    except FileNotFoundError:
        return
    except OSError as error:
        raise ListenError(f"cannot listen on {path}: {error.strerror}") from error
    if not stat.S_ISSOCK(mode):
        raise ListenError(f"cannot listen on {path}: there is something that is no socket")
    with socket.socket(socket.AF_UNIX) as probe:
        probe.setblocking(False)
        try:
            probe.connect(os.fspath(path))
        except (ConnectionRefusedError, FileNotFoundError):
            return
        except OSError as error:
            raise ListenError(f"cannot listen on {path}: {error.strerror}") from error
    raise ListenError(f"cannot listen on {path}: another server is using it")


class Listener:
    """Accepts connections of one socket until it is closed."""

    def __init__(
        self,
        hub: Hub,
        door: Door,
        listening: socket.socket,
        context: ssl.SSLContext | None = None,
        path: Path | None = None,
    ) -> None:
        self.door = door
        self._hub = hub
        self._socket = listening
        self._context = context
        self._opening: dict[asyncio.Task[None], None] = {}
        listening.setblocking(False)
        self._file = None if path is None else (path, path.stat().st_ino)
        self._task = hub.start(self._accept_all())

    async def close(self) -> None:
        """Stop listening. A Unix socket's file goes, unless somebody has put another in its place."""
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)
        if self._file is not None:
            path, inode = self._file
            with suppress(FileNotFoundError):
                if path.stat().st_ino == inode:
                    path.unlink()
        self._socket.close()

    async def _accept_all(self) -> None:
        while True:
            try:
                accepted, _ = await self._hub.loop.sock_accept(self._socket)
            except OSError as error:
                log.error("cannot accept on %s: %s", self.door.name, error.strerror)
                if error.errno in _FULL:
                    await asyncio.sleep(FULL_PAUSE)
                continue
            self._admit(accepted)
            # A flood is accepted without ever waiting: let the tasks of its connections begin, and others have a turn.
            await asyncio.sleep(0)

    def _admit(self, accepted: socket.socket) -> None:
        """Start the handshake. Half-open connections crowd out the oldest of their own kind, and nobody else."""
        if len(self._opening) >= self.door.limit:
            next(iter(self._opening)).cancel()
        task = self._hub.start(self._open(accepted))
        self._opening[task] = None
        task.add_done_callback(lambda done: self._opening.pop(done, None))

    async def _open(self, accepted: socket.socket) -> None:
        accepted.setblocking(False)
        if accepted.family != socket.AF_UNIX:
            for level, option, value in ((socket.IPPROTO_TCP, socket.TCP_NODELAY, 1), *KEEP_ALIVE):
                accepted.setsockopt(level, option, value)
        limits = self._hub.limits
        try:
            await self._hub.loop.connect_accepted_socket(
                lambda: Connection(self._hub, self.door),
                accepted,
                ssl=self._context,
                ssl_handshake_timeout=limits.handshake if self._context else None,
                ssl_shutdown_timeout=limits.linger if self._context else None,
            )
        except (OSError, ssl.SSLError, asyncio.IncompleteReadError) as error:
            log.debug("a connection on %s failed before its first request: %s", self.door.name, error)
