"""An NFS server for a few files, on loopback: what RFC 1813 (with RFC 5531 and RFC 1833) asks of one that only reads.

Clients look for the portmapper at port 111, so such a server needs a network namespace of its own. Directories below
the export may be mounted, as with Linux's.
"""

from __future__ import annotations

import asyncio
import struct
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import PurePosixPath

from tests.host.serving import serving

PORTMAPPER, NFS_PORT = 111, 2049
PORTMAP, NFS, MOUNT = 100000, 100003, 100005
"""Programs."""
DIRECTORY, REGULAR = 2, 1
PRESENT, ABSENT = b"\0\0\0\1", b"\0\0\0\0"
OK, NO_ENTRY, STALE = 0, 2, 70
READ_AND_LOOK = 0x1 | 0x2 | 0x20


class Arguments:
    """What a call carries (XDR, RFC 4506)."""

    def __init__(self, data: bytes) -> None:
        self._data = data

    def number(self, size: int = 4) -> int:
        part, self._data = self._data[:size], self._data[size:]
        return int.from_bytes(part, "big")

    def opaque(self) -> bytes:
        length = self.number()
        part, self._data = self._data[:length], self._data[(length + 3) // 4 * 4 :]
        return part


def opaque(content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + content + bytes(-len(content) % 4)


def numbers(*values: int) -> bytes:
    return struct.pack(f">{len(values)}I", *values)


class NfsServer:
    """Serves the files, which are named by absolute paths. `asked` has the paths that were looked up or mounted."""

    def __init__(self, files: Mapping[str, bytes]) -> None:
        self.files = dict(files)
        self.asked: list[str] = []
        self.largest_read = 1 << 16
        above = {str(parent) for path in files for parent in PurePosixPath(path).parents}
        self._names = [*sorted(above), *self.files]
        """By number, which is the file's handle."""
        self._calls: dict[tuple[int, int], Callable[[Arguments], bytes]] = {
            (PORTMAP, 3): lambda _: numbers(NFS_PORT),
            (MOUNT, 1): self._mount,
            (MOUNT, 3): lambda _: b"",
            (MOUNT, 5): lambda _: PRESENT + opaque(b"/") + ABSENT + ABSENT,
            (NFS, 1): self._attributes,
            (NFS, 3): self._look_up,
            (NFS, 4): self._access,
            (NFS, 6): self._read,
            (NFS, 19): self._limits,
        }

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer the calls of a connection, each of which is one record of one fragment."""
        while True:
            mark = int.from_bytes(await reader.readexactly(4), "big")
            assert mark & 1 << 31, "libnfs sends no records in parts"
            answer = self._answer(Arguments(await reader.readexactly(mark & (1 << 31) - 1)))
            writer.write(numbers(1 << 31 | len(answer)) + answer)
            await writer.drain()

    def _answer(self, call: Arguments) -> bytes:
        number, _direction, _version = call.number(), call.number(), call.number()
        program, _, procedure = call.number(), call.number(), call.number()
        for _ in range(2):  # who asks, and how that is proved
            call.number()
            call.opaque()
        accepted = numbers(number, 1, 0, 0, 0)
        if procedure == 0:
            return accepted + numbers(OK)
        found = self._calls.get((program, procedure))
        return accepted + (numbers(3) if found is None else numbers(OK) + found(call))

    def _handle(self, path: str) -> bytes:
        return opaque(numbers(self._names.index(path)))

    def _named(self, call: Arguments) -> str:
        return self._names[int.from_bytes(call.opaque(), "big")]

    def _describe(self, path: str) -> bytes:
        """`fattr3`."""
        content = self.files.get(path)
        kind, mode = (DIRECTORY, 0o755) if content is None else (REGULAR, 0o644)
        size = len(content or b"")
        identity = struct.pack(">4Q", size, size, 0, 7) + struct.pack(">Q", self._names.index(path) + 1)
        return numbers(kind, mode, 1, 0, 0) + identity + bytes(24)

    def _mount(self, call: Arguments) -> bytes:
        path = call.opaque().decode().rstrip("/") or "/"
        self.asked.append(path)
        if path not in self._names or path in self.files:
            return numbers(NO_ENTRY)
        return numbers(OK) + self._handle(path) + numbers(1, 0)

    def _attributes(self, call: Arguments) -> bytes:
        return numbers(OK) + self._describe(self._named(call))

    def _look_up(self, call: Arguments) -> bytes:
        directory = self._named(call)
        path = str(PurePosixPath(directory, call.opaque().decode()))
        self.asked.append(path)
        if path not in self._names:
            return numbers(NO_ENTRY) + PRESENT + self._describe(directory)
        found = PRESENT + self._describe(path)
        return numbers(OK) + self._handle(path) + found + PRESENT + self._describe(directory)

    def _access(self, call: Arguments) -> bytes:
        path = self._named(call)
        return numbers(OK) + PRESENT + self._describe(path) + numbers(call.number() & READ_AND_LOOK)

    def _read(self, call: Arguments) -> bytes:
        path, offset, count = self._named(call), call.number(8), call.number()
        content = self.files.get(path)
        if content is None:
            return numbers(STALE) + ABSENT
        part = content[offset : offset + min(count, self.largest_read)]
        over = offset + len(part) >= len(content)
        return numbers(OK) + PRESENT + self._describe(path) + numbers(len(part), over) + opaque(part)

    def _limits(self, call: Arguments) -> bytes:
        path, most = self._named(call), self.largest_read
        sizes = numbers(most, most, 512, most, most, 512, 4096)
        return numbers(OK) + PRESENT + self._describe(path) + sizes + struct.pack(">Q2I", 1 << 40, 0, 1) + numbers(0)


@asynccontextmanager
async def nfs_server(files: Mapping[str, bytes]) -> AsyncIterator[NfsServer]:
    """Serves the files on the loopback address of the network namespace that this thread is in."""
    server = NfsServer(files)
    async with serving(server.serve, PORTMAPPER), serving(server.serve, NFS_PORT):
        yield server
