"""The real host's own console: a login on a pseudo terminal, started for each viewer and ended with the viewing.

Who may look is decided before. Who may log in is decided by the host, as on any of its terminals (login(1), PAM).
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import socket
from collections.abc import Sequence

from domzero.finish import until_one_ends
from domzero.host.console.serial import Streams
from domzero.host.descriptors import ready
from domzero.host.process import ProcessError, spawn_on_terminal

log = logging.getLogger(__name__)

COLUMNS, LINES = 80, 24
PIECE = 4096
BETWEEN = 0.05
"""Seconds after which a terminal that nobody has open is looked at again, as long as the login lives: login(1) of
util-linux closes it for a moment (vhangup(2))."""
GRACE = 3.0
"""Seconds that a login may take to end after it was hung up on."""


class LoginTerminal:
    """Implements `HostTerminal` with the host's `login`."""

    def __init__(self, argv: Sequence[str] = ("login",)) -> None:
        self._argv = argv
        self._logins: set[asyncio.Task[None]] = set()

    async def open(self, kind: str) -> Streams:
        """See `HostTerminal`."""
        try:
            pid, terminal = spawn_on_terminal(self._argv, columns=COLUMNS, lines=LINES, environment={"TERM": kind})
        except ProcessError as error:
            raise OSError(str(error)) from error
        theirs, ours = socket.socketpair()
        task = asyncio.get_running_loop().create_task(_serve(pid, terminal, ours), name="login")
        self._logins.add(task)
        task.add_done_callback(self._logins.discard)
        return await asyncio.open_unix_connection(sock=theirs)

    async def close(self) -> None:
        """See `HostTerminal`."""
        for login in self._logins:
            login.cancel()
        await asyncio.gather(*self._logins, return_exceptions=True)


async def _serve(pid: int, terminal: int, connection: socket.socket) -> None:
    """Carry between a terminal and a connection until one of them ends; then end the other, and the process."""
    process = os.pidfd_open(pid)
    try:
        reader, writer = await asyncio.open_unix_connection(sock=connection)
        try:
            await until_one_ends(_say(terminal, process, writer), _type(reader, terminal))
        finally:
            writer.transport.abort()
    finally:
        os.close(terminal)  # the kernel hangs up on whoever still has it
        await _end(process)


async def _say(terminal: int, process: int, writer: asyncio.StreamWriter) -> None:
    """What the login says, as fast as it is taken, until the process has ended or nobody takes it any more."""
    while True:
        await ready(terminal)
        try:
            data = os.read(terminal, PIECE)
        except BlockingIOError:
            continue
        except OSError:  # EIO: nobody has the terminal open
            if await _has_ended(process, BETWEEN):
                return
            continue
        writer.write(data)
        await writer.drain()


async def _type(reader: asyncio.StreamReader, terminal: int) -> None:
    """What the viewer types, until it leaves."""
    while data := await reader.read(PIECE):
        while data:
            try:
                data = data[os.write(terminal, data) :]
            except BlockingIOError:
                await ready(terminal, writing=True)
            except OSError:  # EIO: nobody is there to read it
                break


async def _end(process: int) -> None:
    """Wait for a process that was hung up on, kill it where it does not go, reap it, and close its descriptor."""
    try:
        if not await _has_ended(process, GRACE):
            signal.pidfd_send_signal(process, signal.SIGKILL)
            await ready(process)
        os.waitid(os.P_PIDFD, process, os.WEXITED)  # noqa: ASYNC222 - it has ended; this only reaps it
    except (ProcessLookupError, ChildProcessError) as error:
        log.debug("a login was reaped by somebody else: %s", error)
    finally:
        os.close(process)


async def _has_ended(process: int, seconds: float) -> bool:
    """Whether the process ends within so many seconds: its descriptor becomes readable then (pidfd_open(2))."""
    try:
        async with asyncio.timeout(seconds):
            await ready(process)
    except TimeoutError:
        return False
    return True
