"""Text screens, each in a process of its own that is shut in (decision 0033): what guests write is parsed there.

The process has two sockets: one is the serial line, over the other it is told what to do and handed its viewers'
connections. It goes when they close.
"""

from __future__ import annotations

import asyncio
import json
import logging
import socket
import sys
from asyncio.subprocess import DEVNULL, Process
from collections.abc import Callable
from contextlib import ExitStack, suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from domzero.host.console.line import PIECE, SocketLine
from domzero.host.console.serial import SerialViewer, Streams
from domzero.host.process import ProcessError, spawn

log = logging.getLogger(__name__)

PROGRAM = "domzero.host.console.terminal_program"
PATIENCE = 30.0
"""Seconds that the process may take until it is shut in."""
ENDING = 5.0
BACKLOG = 16 << 10
"""Bytes that wait to be shown; older ones are left out, lest what is shown is long past."""
SENT_AHEAD = 4096
"""Bytes that the kernel may keep for the process, for the same reason."""
READY = b"ready"
VIEWER = b"viewer"
MESSAGE = 64 << 10


@dataclass(frozen=True, slots=True)
class Order:
    """What the process is told first."""

    title: str
    past: int
    """How many of the line's first bytes were written before anybody looked."""
    directory: str | None
    """As `user`, see `confinement.Confinement`; None to stay at large."""
    user: int | None

    def packed(self) -> bytes:
        """One message."""
        return json.dumps(asdict(self)).encode()

    @classmethod
    def parse(cls, message: bytes) -> Order:
        """The other way round."""
        return cls(**json.loads(message))


@dataclass(frozen=True, slots=True)
class Prison:
    """Where a host shuts its text screens in."""

    directory: Path
    """Is made, and stays empty."""
    users: range | None
    """Numbers of users that are nobody's; None where we are not root."""


class Terminals:
    """All text screens of this host. Used inside one event loop."""

    def __init__(self, prison: Prison | None) -> None:
        """`prison` is None where only text of our own is shown."""
        self._prison = prison
        self._living: set[ShownTerminal] = set()
        self._taken: set[int | None] = set()

    async def show(self, place: SerialViewer, title: str, forget: Callable[[], None]) -> ShownTerminal:
        """Show a serial line. It lasts as long as it has viewers, the first of which joins next; `forget` is called at
        the end. Raises `OSError`; the place is left then."""
        place.backlog = BACKLOG
        with ExitStack() as undo:
            undo.callback(place.close)
            user = self._user()
            undo.callback(self._taken.discard, user)
            process, line, control = await _start(Order(title, place.waiting, self._directory(), user))
            shown = ShownTerminal(process, place, line, control, forget)
            undo.pop_all()
            undo.callback(shown.close)
            self._living.add(shown)
            shown.gone.add_done_callback(lambda _: self._gone(shown, user))
            await shown.until_ready()
            undo.pop_all()
        return shown

    async def close(self) -> None:
        """End them all."""
        for shown in list(self._living):
            shown.close()
        await asyncio.gather(*(shown.gone for shown in self._living))

    def _gone(self, shown: ShownTerminal, user: int | None) -> None:
        self._living.discard(shown)
        self._taken.discard(user)

    def _user(self) -> int | None:
        if self._prison is None or self._prison.users is None:
            return None
        free = next((user for user in self._prison.users if user not in self._taken), None)
        if free is None:
            raise ConnectionRefusedError("there is no user left for another text screen")
        self._taken.add(free)
        return free

    def _directory(self) -> str | None:
        if self._prison is None:
            return None
        self._prison.directory.mkdir(mode=0o755, exist_ok=True)
        return str(self._prison.directory.absolute())


class ShownTerminal:
    """The process of one text screen, and what is carried between it and the serial line."""

    def __init__(
        self, process: Process, place: SerialViewer, line: Streams, control: socket.socket, forget: Callable[[], None]
    ) -> None:
        self._process = process
        self._place = place
        self._line = line
        self._control = control
        self._forget = forget
        self._viewers = 0
        self.ended = False
        loop = asyncio.get_running_loop()
        self._carrying = [loop.create_task(self._show()), loop.create_task(self._type())]
        self.gone = loop.create_task(self._reap(), name="text screen")
        """Done when the process has ended."""

    @property
    def pid(self) -> int:
        """The process's id."""
        return self._process.pid

    async def until_ready(self) -> None:
        """Return when the process is shut in. Raises `OSError`."""
        try:
            async with asyncio.timeout(PATIENCE):
                said = await asyncio.get_running_loop().sock_recv(self._control, MESSAGE)
        except TimeoutError:
            said = b"it does not begin"
        if said != READY:
            reason = said.decode(errors="replace") or "its process ended"
            log.error("a text console cannot be shown: %s", reason)
            raise ConnectionAbortedError(reason)

    async def join(self) -> Viewer:
        """A new viewer. Raises `OSError`."""
        self._viewers += 1
        try:
            ours, theirs = socket.socketpair()
            with theirs:
                try:
                    socket.send_fds(self._control, [VIEWER], [theirs.fileno()])
                    return Viewer(self, SocketLine(*await asyncio.open_unix_connection(sock=ours, limit=PIECE)))
                except BaseException:
                    ours.close()
                    raise
        except BaseException:
            self.leave()
            raise

    def leave(self) -> None:
        """A viewer is gone; with the last one goes the process."""
        self._viewers -= 1
        if self._viewers <= 0:
            self.close()

    def close(self) -> None:
        """End it. May be called twice."""
        if self.ended:
            return
        self.ended = True
        self._place.close()
        for task in self._carrying:
            task.cancel()
        self._line[1].transport.abort()
        self._control.close()
        self._forget()

    async def _show(self) -> None:
        """What the machine writes, as fast as it is shown."""
        writer = self._line[1]
        with suppress(ConnectionError):  # the process has ended
            while data := await self._place.read():
                writer.write(data)
                await writer.drain()
            writer.write_eof()

    async def _type(self) -> None:
        """What is typed, and what the terminal answers, until the process ends."""
        with suppress(ConnectionError):  # the machine or the process has ended
            while data := await self._line[0].read(SENT_AHEAD):
                await self._place.write(data)
        self.close()

    async def _reap(self) -> None:
        await asyncio.wait(self._carrying)
        self.close()
        try:
            async with asyncio.timeout(ENDING):
                await self._process.wait()
        except TimeoutError:
            self._process.kill()
            await self._process.wait()


class Viewer:
    """One viewer: bytes of RFB in and out; see `host.console.line.Line`."""

    def __init__(self, shown: ShownTerminal, line: SocketLine) -> None:
        self._shown = shown
        self._line = line
        self._is_here = True

    async def read(self) -> bytes:
        """See `Line`."""
        return await self._line.read()

    async def write(self, data: bytes) -> None:
        """See `Line`."""
        await self._line.write(data)

    def close(self) -> None:
        """See `Line`."""
        if self._is_here:
            self._is_here = False
            self._line.close()
            self._shown.leave()


async def _start(order: Order) -> tuple[Process, Streams, socket.socket]:
    """The process, its serial line and its other socket. Raises `OSError`."""
    with ExitStack() as ours, ExitStack() as theirs:
        serial, its_serial = socket.socketpair()
        ours.callback(serial.close)
        theirs.callback(its_serial.close)
        control, its_control = socket.socketpair(type=socket.SOCK_SEQPACKET)
        ours.callback(control.close)
        theirs.callback(its_control.close)
        control.setblocking(False)
        control.send(order.packed())
        serial.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SENT_AHEAD)
        descriptors = (its_serial.fileno(), its_control.fileno())
        argv = [sys.executable, "-I", "-m", PROGRAM, *map(str, descriptors)]
        try:
            process = await spawn(argv, pass_fds=descriptors, stdout=DEVNULL, stderr=DEVNULL)
        except ProcessError as error:
            raise ConnectionAbortedError(str(error)) from error
        reader, writer = await asyncio.open_unix_connection(sock=serial, limit=PIECE)
        writer.transport.set_write_buffer_limits(0)
        ours.pop_all()
    return process, (reader, writer), control
