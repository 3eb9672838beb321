"""`/host_backup`: the toolstack's own state as a tar archive. docs/backup.md says what is in it.

The archive begins with `manifest.json`: for each file that follows, in this order, its name, size and SHA-256.
`host_restore` takes exactly what is written here.
"""

from __future__ import annotations

import hashlib
import shutil
import tarfile
import tempfile
from collections.abc import AsyncIterator, Generator
from contextlib import ExitStack, aclosing, asynccontextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

import orjson

from domzero.engine.clock import moment
from domzero.engine.context import Context
from domzero.engine.errors import ApiError
from domzero.engine.exchange import Arguments, Peer, serves
from domzero.engine.replacement import CERTIFICATE, DATABASE, PASSWORDS, SCRATCH
from domzero.engine.store import StoreError
from domzero.finish import in_thread
from domzero.toolstack.host.streams import attachment, create, threaded
from domzero.toolstack.stack import Stack

FORMAT = "1"
"""Of the archive; the database in it has a format of its own."""
BRAND = "domzero"
MANIFEST = "manifest.json"
BLOCK = 512
"""Tar's block (POSIX.1-1988, “ustar”)."""
PIECE = 256 << 10


@dataclass(frozen=True, slots=True)
class Listed:
    """A file as the manifest lists it."""

    name: str
    size: int
    sha256: str


@serves("GET", "/host_backup", role="pool-admin", label="host.backup")
async def backup(stack: Stack, context: Context, peer: Peer, arguments: Arguments) -> None:
    """Send the state as it is at one moment. Raises BACKUP_SCRIPT_FAILED."""
    with context.task.cancellable():
        async with _snapshot(stack) as place:
            files = await in_thread(_listed, place)
            said = _manifest(stack, files)
            length = archive_size([len(said), *(file.size for file in files)])
            peer.begin(200, attachment("application/x-tar", "host-backup.tar"), length)
            async with aclosing(threaded(_archive(place, said, files, int(stack.clock.now().timestamp())))) as stream:
                async for piece in stream:
                    await peer.write(piece)


@asynccontextmanager
async def _snapshot(stack: Stack) -> AsyncIterator[Path]:
    """A directory with copies of the files, which goes away."""
    state = stack.settings.state_dir
    with ExitStack() as cleanup:
        try:
            place = Path(cleanup.enter_context(tempfile.TemporaryDirectory(prefix=SCRATCH, dir=state)))
            await stack.database.copy_to(place / DATABASE)
            for other in (PASSWORDS, CERTIFICATE):
                await in_thread(_copy, state / other, place / other)
        except (StoreError, OSError) as error:
            raise ApiError("BACKUP_SCRIPT_FAILED", str(error)) from error
        yield place


def _copy(source: Path, target: Path) -> None:
    """Copy a file, which is replaced whole when it changes. One that is not there is left out."""
    target.parent.mkdir(mode=0o700, exist_ok=True)
    try:
        with source.open("rb") as old, create(target) as new:
            shutil.copyfileobj(old, new)
    except FileNotFoundError:
        return


def _listed(place: Path) -> list[Listed]:
    found = []
    for name in (DATABASE, PASSWORDS, CERTIFICATE):
        if (place / name).exists():
            with (place / name).open("rb") as file:
                digest = hashlib.file_digest(file, "sha256").hexdigest()
                found.append(Listed(name, file.tell(), digest))
    return found


def _manifest(stack: Stack, files: list[Listed]) -> bytes:
    host = stack.database.record("host", stack.host)
    said = {
        "format": FORMAT,
        "product_brand": BRAND,
        "product_version": stack.settings.version,
        "created": moment(stack.clock.now()),
        "host": {"uuid": host["uuid"], "name_label": host["name_label"]},
        "files": [asdict(file) for file in files],
    }
    return orjson.dumps(said, option=orjson.OPT_INDENT_2)


def archive_size(sizes: list[int]) -> int:
    """Bytes of an archive of files of these sizes."""
    return sum(BLOCK + padded(size) for size in sizes) + 2 * BLOCK


def padded(size: int) -> int:
    """Bytes that a file of this size takes in an archive, its header not counted."""
    return -(-size // BLOCK) * BLOCK


def _archive(place: Path, said: bytes, files: list[Listed], when: int) -> Generator[bytes, None, None]:
    yield _header(MANIFEST, len(said), when) + said.ljust(padded(len(said)), b"\0")
    for listed in files:
        yield _header(listed.name, listed.size, when)
        with (place / listed.name).open("rb") as file:
            while data := file.read(PIECE):
                yield data
        yield bytes(padded(listed.size) - listed.size)
    yield bytes(2 * BLOCK)


def _header(name: str, size: int, when: int) -> bytes:
    member = tarfile.TarInfo(name)
    member.size, member.mtime, member.mode = size, when, 0o600
    return member.tobuf(tarfile.USTAR_FORMAT)
