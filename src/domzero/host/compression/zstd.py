"""Zstandard by its own program, which uses all processors and lives no longer than the block that needs it.

What strangers compressed is so decompressed outside of the daemon: a bomb only fills a connection, and a defect of the
decoder is none of the daemon's.
"""

from __future__ import annotations

import asyncio
import socket
from asyncio.subprocess import Process
from collections.abc import AsyncIterator, Sequence
from contextlib import ExitStack, asynccontextmanager, suppress

from domzero.finish import finish
from domzero.host.compression.ending import end
from domzero.host.compression.protocol import CompressionError, Receive, Send
from domzero.host.process import ProcessError, spawn
from domzero.wire.xva.model import XvaError, premature_end, unreadable

LEVEL = 1
WINDOW_MIB = 128
"""What decompression may keep at most; archives that need more were made to need it."""
PIECE = 1 << 20
_SAID = 2000


@asynccontextmanager
async def compressing(send: Send, workers: int) -> AsyncIterator[Send]:
    """See `Compression.compressing`."""
    async with _program(["--stdout", f"-{LEVEL}", f"-T{workers}"]) as child:

        async def pump() -> None:
            try:
                while data := await child.receive():
                    await send(data)
            except BaseException:
                child.kill()
                raise

        async with _ending(asyncio.create_task(pump())) as pumping:

            async def write(data: bytes | bytearray | memoryview) -> None:
                if not await child.feed(data):
                    await pumping
                    raise CompressionError(await child.complaint())

            yield write
            child.close()
            await pumping
            if complaint := await child.complaint():
                raise CompressionError(complaint)


@asynccontextmanager
async def decompressing(receive: Receive) -> AsyncIterator[Receive]:
    """See `Compression.decompressing`."""
    async with _program(["--decompress", "--stdout", f"--memory={WINDOW_MIB}MB"]) as child:

        async def feed() -> None:
            try:
                while data := await receive():
                    if not await child.feed(data):
                        return
                child.close()
            except BaseException:
                child.kill()
                raise

        async with _ending(asyncio.create_task(feed())) as feeding:

            async def next_piece() -> bytes:
                if data := await child.receive():
                    return data
                await feeding
                if complaint := await child.complaint():
                    raise _blamed(complaint)
                return b""

            yield next_piece


def _blamed(complaint: str) -> XvaError:
    if "premature end" in complaint or "unknown header" in complaint:
        return premature_end()
    return unreadable(f"damaged zstd: {complaint}")


@asynccontextmanager
async def _ending(task: asyncio.Task[None]) -> AsyncIterator[asyncio.Task[None]]:
    """A task that ends with the block."""
    try:
        yield task
    finally:
        await end(task)


@asynccontextmanager
async def _program(options: Sequence[str]) -> AsyncIterator[_Child]:
    """The program, killed when the block ends before it did."""
    with ExitStack() as closing:
        ours, theirs = zip(*(_connected(closing) for _ in range(2)), strict=True)
        argv = ["zstd", "--quiet", "--no-progress", *options]
        try:
            process = await spawn(argv, stdin=theirs[0].fileno(), stdout=theirs[1].fileno())
        except ProcessError as error:
            raise CompressionError(str(error)) from error
        for side in theirs:
            side.close()
        child = _Child(process, *ours)
        try:
            yield child
        finally:
            child.kill()
            await finish(child.gone())


def _connected(closing: ExitStack) -> tuple[socket.socket, socket.socket]:
    """Our end of a connection and the other one: they take more at a time than a pipe."""
    ours, theirs = socket.socketpair()
    for side in ours, theirs:
        closing.callback(side.close)
        side.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, PIECE)
    ours.setblocking(False)
    return ours, theirs


class _Child:
    """The program, from this side."""

    def __init__(self, process: Process, stdin: socket.socket, stdout: socket.socket) -> None:
        assert process.stderr is not None
        self._process = process
        self._stdin, self._stdout = stdin, stdout
        self._said = asyncio.create_task(_listened(process.stderr))

    async def feed(self, data: bytes | bytearray | memoryview) -> bool:
        """Hand on a piece; False when the program takes no more."""
        try:
            await asyncio.get_running_loop().sock_sendall(self._stdin, data)
        except (BrokenPipeError, ConnectionResetError):
            return False
        return True

    def close(self) -> None:
        """Say that nothing follows."""
        self._stdin.close()

    async def receive(self) -> bytes:
        """What it gives; nothing when that is all."""
        try:
            return await asyncio.get_running_loop().sock_recv(self._stdout, PIECE)
        except ConnectionResetError:
            return b""

    async def complaint(self) -> str:
        """What it said when it gave up; nothing when it ended well. Raises `CompressionError` when it was killed."""
        said = await self._said
        code = await self._process.wait()
        if code < 0:
            raise CompressionError(f"zstd was ended by signal {-code}")
        return said or f"zstd ended with code {code}" if code else ""

    def kill(self) -> None:
        """End it now, if it has not ended."""
        if self._process.returncode is None:
            with suppress(ProcessLookupError):
                self._process.kill()

    async def gone(self) -> None:
        """Return when nothing is left of it."""
        await self._said
        await self._process.wait()


async def _listened(stream: asyncio.StreamReader) -> str:
    """The end of what it says."""
    said = b""
    while data := await stream.read(4096):
        said = (said + data)[-_SAID:]
    return said.decode(errors="replace").strip()
