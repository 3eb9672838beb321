"""NBD as a client speaks it, without I/O: fixed newstyle, structured replies, `base:allocation`.

Source: https://github.com/NetworkBlockDevice/nbd/blob/master/doc/proto.md. Whatever a server sends that the protocol
does not allow raises `NbdError`; nothing that it says makes this side keep more than `CHUNK_LIMIT` bytes.
"""

from __future__ import annotations

import struct
from collections.abc import Generator
from dataclasses import dataclass, field
from enum import IntEnum, IntFlag

GREETING = struct.Struct(">8s8sH")
OPTION = struct.Struct(">8sII")
OPTION_REPLY = struct.Struct(">QIII")
REQUEST = struct.Struct(">IHHQQI")
SIMPLE_REPLY = struct.Struct(">IIQ")
CHUNK = struct.Struct(">IHHQI")
EXPORT_INFO = struct.Struct(">HQH")
HOLE = struct.Struct(">QI")
EXTENT = struct.Struct(">II")

INIT_MAGIC = b"NBDMAGIC"
OPTION_MAGIC = b"IHAVEOPT"
OPTION_REPLY_MAGIC = 0x3E889045565A9
REQUEST_MAGIC = 0x25609513
SIMPLE_MAGIC = 0x67446698
CHUNK_MAGIC = 0x668E33EF

FIXED_NEWSTYLE, NO_ZEROES = 1, 2
OPT_GO, OPT_STRUCTURED_REPLY, OPT_SET_META_CONTEXT = 7, 8, 10
REP_ACK, REP_INFO, REP_META_CONTEXT, REP_ERROR = 1, 3, 4, 1 << 31
INFO_EXPORT = 0
ALLOCATION = b"base:allocation"

LENGTH_LIMIT = 32 << 20
"""The most bytes of one read or write that a server must take (proto.md, "Block size constraints")."""
RANGE_LIMIT = 1 << 30
"""The most bytes that one request without data is about; fits every alignment and the field of 32 bits."""
CHUNK_LIMIT = 8 << 20
"""The largest list of extents or error text that is taken; QEMU's lists have at most 1 MiB."""
OPTION_LIMIT = 1 << 16


class NbdError(Exception):
    """The server broke the protocol, or refused what this side cannot do without."""


class Command(IntEnum):
    """What a request asks for (NBD_CMD_*)."""

    READ = 0
    WRITE = 1
    DISCONNECT = 2
    FLUSH = 3
    TRIM = 4
    WRITE_ZEROES = 6
    BLOCK_STATUS = 7


class ExportFlag(IntFlag):
    """What an export can do (NBD_FLAG_*)."""

    READ_ONLY = 1 << 1
    SEND_FLUSH = 1 << 2
    SEND_TRIM = 1 << 5
    SEND_WRITE_ZEROES = 1 << 6


class Reply(IntEnum):
    """The types of chunks (NBD_REPLY_TYPE_*)."""

    NONE = 0
    OFFSET_DATA = 1
    OFFSET_HOLE = 2
    BLOCK_STATUS = 5
    ERROR = (1 << 15) + 1
    ERROR_OFFSET = (1 << 15) + 2


CHUNK_DONE = 1
CHUNK_ERROR = 1 << 15
ZERO = 2
"""The flag of an extent that reads as zeros (NBD_STATE_ZERO)."""


@dataclass(frozen=True, slots=True)
class Export:
    """What a server offers. `context` is the number under which it tells of allocation, None where it cannot."""

    size: int
    flags: ExportFlag
    context: int | None


class Handshake:
    """From the greeting to the moment where requests may be sent: `export` is set then."""

    def __init__(self, name: str) -> None:
        self.export: Export | None = None
        self._name = name.encode()
        self._pending = bytearray()
        self._steps = self._run()
        self._outgoing = b""
        self._context: int | None = None
        self._found: tuple[int, int] | None = None
        self._wanted = next(self._steps)

    def receive(self, data: bytes) -> bytes:
        """Take what the server sent; returns what is to be sent to it. Raises `NbdError`."""
        self._pending += data
        self._outgoing = b""
        while self.export is None and len(self._pending) >= self._wanted:
            piece = bytes(self._pending[: self._wanted])
            del self._pending[: self._wanted]
            self._wanted = self._steps.send(piece)
        if self.export is not None and self._pending:
            raise NbdError("the server says more than it was asked")
        return self._outgoing

    def _run(self) -> Generator[int, bytes, None]:
        """Yields how many bytes are wanted next."""
        magic, second, flags = GREETING.unpack((yield GREETING.size))
        if (magic, second) != (INIT_MAGIC, OPTION_MAGIC) or not flags & FIXED_NEWSTYLE:
            raise NbdError("this is no NBD server of the fixed newstyle")
        named = struct.pack(">I", len(self._name)) + self._name
        context = named + struct.pack(">II", 1, len(ALLOCATION)) + ALLOCATION
        self._outgoing += struct.pack(">I", flags & (FIXED_NEWSTYLE | NO_ZEROES)) + b"".join(
            OPTION.pack(OPTION_MAGIC, option, len(data)) + data
            for option, data in (
                (OPT_STRUCTURED_REPLY, b""),
                (OPT_SET_META_CONTEXT, context),
                (OPT_GO, named + struct.pack(">H", 0)),
            )
        )
        for option in (OPT_STRUCTURED_REPLY, OPT_SET_META_CONTEXT, OPT_GO):
            yield from self._option(option)
        if self._found is None:
            raise NbdError("the server did not say how large its export is")
        size, export_flags = self._found
        self.export = Export(size, ExportFlag(export_flags), self._context)
        yield 0

    def _option(self, option: int) -> Generator[int, bytes, None]:
        """The replies to one option, up to the last."""
        for _ in range(64):
            magic, about, kind, length = OPTION_REPLY.unpack((yield OPTION_REPLY.size))
            if magic != OPTION_REPLY_MAGIC or about != option or length > OPTION_LIMIT:
                raise NbdError("the server answers what was not asked")
            data = (yield length) if length else b""
            if kind == REP_ACK:
                return
            if kind & REP_ERROR:
                said = data.decode(errors="replace") or f"error {kind & ~REP_ERROR}"
                raise NbdError(f"the server refused option {option}: {said}")
            self._take(option, kind, data)
        raise NbdError("the server's answer to an option has no end")

    def _take(self, option: int, kind: int, data: bytes) -> None:
        if option == OPT_SET_META_CONTEXT and kind == REP_META_CONTEXT and data[4:] == ALLOCATION:
            self._context = int.from_bytes(data[:4], "big")
        elif option == OPT_GO and kind == REP_INFO and data[:2] == INFO_EXPORT.to_bytes(2, "big"):
            if len(data) != EXPORT_INFO.size:
                raise NbdError("what the server says of its export has the wrong length")
            _, size, flags = EXPORT_INFO.unpack(data)
            if size >= 1 << 63:
                raise NbdError(f"an export cannot have {size} bytes")
            self._found = (size, flags)
        elif option == OPT_STRUCTURED_REPLY:
            raise NbdError("the server answers what was not asked")


@dataclass(slots=True)
class Request:
    """One request on its way and what came back of it. `error` is an errno(3), 0 for none."""

    command: Command
    offset: int
    length: int
    data: bytearray
    """Of a read: what was read, zeros where the server named a hole."""
    extents: list[tuple[int, int]] = field(default_factory=list)
    """Of BLOCK_STATUS: lengths and flags, from `offset` on; they may end before or after the request's part does."""
    error: int = 0
    message: str = ""
    covered: list[tuple[int, int]] = field(default_factory=list)
    """Of a read: the parts that came."""


class Transmission:
    """Requests out, replies in.

    Whoever does the I/O fills `wanted` with bytes from the server from front to back, calls `filled`, and so on; reads
    land in their request's data without a copy.
    """

    def __init__(self, export: Export) -> None:
        self._export = export
        self._requests: dict[int, Request] = {}
        self._cookie = 0
        self._finished: int | None = None
        self._steps = self._run()
        self.wanted = next(self._steps)
        """What is to be filled next; never empty."""

    def request(self, command: Command, offset: int = 0, length: int = 0) -> tuple[int, Request, bytes]:
        """A new request: the number it goes by until it is finished, what becomes of it, and its head for the wire.

        A write's data follow the head. Raises `ValueError` for lengths that no request may have.
        """
        limit = LENGTH_LIMIT if command in (Command.READ, Command.WRITE) else RANGE_LIMIT
        if not 0 <= length <= limit:
            raise ValueError(f"a request cannot be about {length} bytes")
        self._cookie += 1
        request = Request(command, offset, length, bytearray(length if command is Command.READ else 0))
        if command is not Command.DISCONNECT:
            self._requests[self._cookie] = request
        return self._cookie, request, REQUEST.pack(REQUEST_MAGIC, 0, command, self._cookie, offset, length)

    def filled(self) -> int | None:
        """`wanted` was filled: returns the number of the request that this finished, if it did. Raises `NbdError`."""
        self._finished = None
        self.wanted = next(self._steps)
        return self._finished

    def _run(self) -> Generator[memoryview, None, None]:
        head = memoryview(bytearray(CHUNK.size))
        while True:
            yield head[: SIMPLE_REPLY.size]
            magic, error, cookie = SIMPLE_REPLY.unpack_from(head)
            if magic == SIMPLE_MAGIC:
                request = self._named(cookie)
                if request.command in (Command.READ, Command.BLOCK_STATUS) and not error:
                    raise NbdError("the server answers a read with a simple reply")
                request.error = error
                self._finish(cookie, request)
                continue
            if magic != CHUNK_MAGIC:
                raise NbdError("what the server sends is no reply")
            yield head[SIMPLE_REPLY.size :]
            _, flags, kind, cookie, length = CHUNK.unpack(head)
            request = self._named(cookie)
            yield from self._chunk(request, kind, length)
            if flags & CHUNK_DONE:
                self._finish(cookie, request)

    def _chunk(self, request: Request, kind: int, length: int) -> Generator[memoryview, None, None]:
        if kind == Reply.OFFSET_DATA and request.command is Command.READ and length > 8:
            place = memoryview(bytearray(8))
            yield place
            start = self._part(request, int.from_bytes(place, "big"), length - 8)
            yield memoryview(request.data)[start : start + length - 8]
            return
        if length > CHUNK_LIMIT:
            raise NbdError(f"the server sends {length} bytes that nobody asked for")
        payload = memoryview(bytearray(length))
        if length:
            yield payload
        if kind == Reply.OFFSET_HOLE and request.command is Command.READ and length == HOLE.size:
            self._part(request, *HOLE.unpack(payload))
        elif kind == Reply.BLOCK_STATUS and request.command is Command.BLOCK_STATUS:
            self._status(request, payload)
        elif kind & CHUNK_ERROR:
            _take_error(request, payload)
        elif kind != Reply.NONE or length:
            raise NbdError(f"the server answers {request.command.name} with a chunk of type {kind}")

    def _part(self, request: Request, offset: int, length: int) -> int:
        """Note a part of a read; returns where in the request's data it begins."""
        start = offset - request.offset
        if start < 0 or length <= 0 or start + length > request.length:
            raise NbdError("the server sends a part of the disk that nobody asked for")
        if len(request.covered) >= request.length:
            raise NbdError("the server sends a part of the disk twice")
        request.covered.append((start, start + length))
        return start

    def _status(self, request: Request, payload: memoryview) -> None:
        if request.extents or len(payload) < 4 + EXTENT.size or (len(payload) - 4) % EXTENT.size:
            raise NbdError("the server's list of extents has the wrong length")
        if int.from_bytes(payload[:4], "big") != self._export.context:
            raise NbdError("the server tells what nobody asked for")
        request.extents = list(EXTENT.iter_unpack(payload[4:]))
        if not all(length for length, _ in request.extents):
            raise NbdError("the server's list has an extent of no length")

    def _named(self, cookie: int) -> Request:
        request = self._requests.get(cookie)
        if request is None:
            raise NbdError("the server answers what was not asked")
        return request

    def _finish(self, cookie: int, request: Request) -> None:
        """Raises `NbdError` for a read without error that did not bring every byte exactly once."""
        if not request.error:
            if request.command is Command.READ:
                reached = 0
                for start, end in sorted(request.covered):
                    if start != reached:
                        raise NbdError("the server's parts of a read do not make the whole")
                    reached = end
                if reached != request.length:
                    raise NbdError("the server's parts of a read do not make the whole")
            elif request.command is Command.BLOCK_STATUS and not request.extents:
                raise NbdError("the server's list of extents is missing")
        del self._requests[cookie]
        self._finished = cookie


def _take_error(request: Request, payload: memoryview) -> None:
    if len(payload) < 6:
        raise NbdError("the server's error is too short")
    error, length = struct.unpack_from(">IH", payload)
    if len(payload) < 6 + length:
        raise NbdError("the server's error is too short")
    request.error = error or 5
    request.message = bytes(payload[6 : 6 + length]).decode(errors="replace")
