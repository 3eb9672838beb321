"""A connection to an NBD server on a socket: requests go out as they come, several wait for their replies at a time.

Bytes go straight between the kernel and the caller's or the reply's buffer, past asyncio's streams, which copy them.
"""

from __future__ import annotations

import asyncio
import errno
import os
import socket
from collections import deque

from domzero.host.contents.protocol import ContentError, MediumFullError
from domzero.wire.nbd import Command, Export, Handshake, NbdError, Request, Transmission

AT_ONCE = 2 << 20
"""Bytes that are received before others get their turn."""


class Connection:
    """One client of one export. Every failure is a `ContentError`; after one of the connection all requests fail.

    `patience` is how many seconds the server may take over one request.
    """

    def __init__(self, sock: socket.socket, patience: float) -> None:
        sock.setblocking(False)
        self._socket = sock
        self._patience = patience
        self._loop = asyncio.get_running_loop()
        self._waiting: dict[int, asyncio.Future[bool]] = {}
        self._outgoing: deque[memoryview] = deque()
        self._lost = ""
        """Why nothing works any more."""
        self._transmission: Transmission

    async def open(self, name: str) -> Export:
        """Agree with the server about the export of that name. Comes first."""
        handshake = Handshake(name)
        try:
            async with asyncio.timeout(self._patience):
                while handshake.export is None:
                    data = await self._loop.sock_recv(self._socket, 1 << 16)
                    if not data:
                        raise ContentError("the connection ended before the disk was open")
                    await self._loop.sock_sendall(self._socket, handshake.receive(data))
        except TimeoutError:
            raise ContentError(f"the disk was not open within {self._patience:g} seconds") from None
        except OSError as error:
            raise ContentError(f"the connection to the disk was lost: {error.strerror}") from error
        except NbdError as error:
            raise ContentError(str(error)) from error
        self._transmission = Transmission(handshake.export)
        self._filled = 0
        self._loop.add_reader(self._socket, self._receive)
        return handshake.export

    async def read(self, offset: int, length: int) -> bytearray:
        """At most `wire.nbd.LENGTH_LIMIT` bytes."""
        return (await self._ask(Command.READ, offset, length)).data

    async def write(self, offset: int, data: bytes | bytearray | memoryview) -> None:
        """At most `wire.nbd.LENGTH_LIMIT` bytes, which must not change meanwhile."""
        view = memoryview(data).cast("B")
        await self._ask(Command.WRITE, offset, len(view), view)

    async def zero(self, offset: int, length: int) -> None:
        """At most `wire.nbd.RANGE_LIMIT` bytes."""
        await self._ask(Command.WRITE_ZEROES, offset, length)

    async def flush(self) -> None:
        await self._ask(Command.FLUSH, 0, 0)

    async def extents(self, offset: int, length: int) -> list[tuple[int, int]]:
        """Lengths and flags of what lies there; they may end before or after the part that was asked about."""
        return (await self._ask(Command.BLOCK_STATUS, offset, length)).extents

    def close(self) -> None:
        """Whoever still waits is told that it failed."""
        self._fail("the disk was closed")
        self._socket.close()

    async def _ask(self, command: Command, offset: int, length: int, data: memoryview | None = None) -> Request:
        if self._lost:
            raise ContentError(self._lost)
        cookie, request, head = self._transmission.request(command, offset, length)
        reply = self._waiting[cookie] = self._loop.create_future()
        self._send(memoryview(head), data)
        try:
            async with asyncio.timeout(self._patience):
                answered = await reply
        except TimeoutError:
            self._fail(f"the disk did not answer within {self._patience:g} seconds")
            answered = False
        finally:
            self._waiting.pop(cookie, None)
        if not answered:
            raise ContentError(self._lost)
        if request.error:
            raise _meaning(request)
        return request

    def _send(self, head: memoryview, data: memoryview | None) -> None:
        idle = not self._outgoing
        self._outgoing.append(head)
        if data is not None and len(data):
            self._outgoing.append(data)
        if idle:
            self._flush_outgoing()

    def _flush_outgoing(self) -> None:
        """Send what the socket takes; go on when it takes more."""
        outgoing = self._outgoing
        try:
            while outgoing:
                sent = self._socket.sendmsg([outgoing[0], outgoing[1]] if len(outgoing) > 1 else [outgoing[0]])
                while sent:
                    first = outgoing.popleft()
                    if sent < len(first):
                        outgoing.appendleft(first[sent:])
                        break
                    sent -= len(first)
        except (BlockingIOError, InterruptedError):
            self._loop.add_writer(self._socket, self._flush_outgoing)
        except OSError as error:
            self._fail(f"the connection to the disk was lost: {error.strerror}")
        else:
            self._loop.remove_writer(self._socket)

    def _receive(self) -> None:
        taken, transmission = 0, self._transmission
        try:
            while taken < AT_ONCE:
                wanted = transmission.wanted
                received = self._socket.recv_into(wanted[self._filled :])
                if not received:
                    self._fail("the connection to the disk was lost")
                    return
                taken += received
                self._filled += received
                if self._filled == len(wanted):
                    self._filled = 0
                    self._finish(transmission.filled())
        except (BlockingIOError, InterruptedError):
            return
        except OSError as error:
            self._fail(f"the connection to the disk was lost: {error.strerror}")
        except NbdError as error:
            self._fail(str(error))

    def _finish(self, cookie: int | None) -> None:
        if cookie is not None and (reply := self._waiting.get(cookie)) is not None and not reply.done():
            reply.set_result(True)

    def _fail(self, why: str) -> None:
        """From now on nothing works; whoever waits is told."""
        if self._lost:
            return
        self._lost = why
        self._loop.remove_reader(self._socket)
        self._loop.remove_writer(self._socket)
        self._outgoing.clear()
        for reply in self._waiting.values():
            if not reply.done():
                reply.set_result(False)


def _meaning(request: Request) -> ContentError:
    said = os.strerror(request.error) + (f" ({request.message})" if request.message else "")
    kind = MediumFullError if request.error in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG) else ContentError
    return kind(f"{request.command.name.lower()} of {request.length} bytes at {request.offset}: {said}")
