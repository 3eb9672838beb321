"""Sending a directory as a tar archive by HTTP PUT, without making the archive anywhere."""

from __future__ import annotations

import asyncio
import base64
import http.client
import os
import ssl
import stat
import tarfile
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import SplitResult, unquote, urlsplit

from domzero.host.upload.protocol import UploadError, is_sendable

CHUNK = 1 << 18
SILENCE = 30.0
"""Seconds for which a server may take nothing and say nothing."""
MOST_FILES = 1000


@dataclass(frozen=True, slots=True)
class Member:
    """One file: its size is what is sent, however it grows or shrinks meanwhile."""

    path: Path
    size: int
    header: bytes

    @property
    def padding(self) -> int:
        """Zero bytes after the content."""
        return -self.size % tarfile.BLOCKSIZE

    @property
    def length(self) -> int:
        """Bytes in the archive."""
        return len(self.header) + self.size + self.padding


async def upload(url: str, directory: Path, *, proxy: str, progress: Callable[[float], None]) -> None:
    """See `Upload`."""
    if not is_sendable(url) or (proxy and not is_sendable(proxy)):
        raise UploadError("only http and https addresses can be sent to")
    stop = threading.Event()
    loop = asyncio.get_running_loop()

    def report(fraction: float) -> None:
        loop.call_soon_threadsafe(progress, fraction)

    work = asyncio.ensure_future(asyncio.to_thread(_send, url, directory, proxy, report, stop))
    try:
        await asyncio.shield(work)
    except asyncio.CancelledError:
        stop.set()
        await asyncio.wait({work})
        raise


def members(directory: Path) -> list[Member]:
    """The regular files in a directory, by name; what is anything else is left out. Raises `UploadError`."""
    try:
        found = sorted(entry.name for entry in os.scandir(directory) if entry.is_file(follow_symlinks=False))
        if len(found) > MOST_FILES:
            raise UploadError(f"{directory.name} holds more than {MOST_FILES} files")
        return [_member(directory / name) for name in found]
    except OSError as error:
        raise UploadError(f"{directory.name} cannot be read: {error.strerror}") from error


def _member(path: Path) -> Member:
    status = path.lstat()
    info = tarfile.TarInfo(f"{path.parent.name}/{path.name}")
    info.size, info.mtime, info.mode = status.st_size, int(status.st_mtime), 0o600
    return Member(path, status.st_size, info.tobuf(tarfile.GNU_FORMAT, "utf-8", "surrogateescape"))


def archive(found: list[Member]) -> Iterator[bytes]:
    """The archive's bytes, as many as `archive_size` says. Raises `UploadError` for a file that shrank or went."""
    for member in found:
        yield member.header
        yield from _content(member)
        yield bytes(member.padding)
    yield bytes(2 * tarfile.BLOCKSIZE)


def archive_size(found: list[Member]) -> int:
    """Bytes of the archive."""
    return sum(member.length for member in found) + 2 * tarfile.BLOCKSIZE


def _content(member: Member) -> Iterator[bytes]:
    left = member.size
    try:
        fd = os.open(member.path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        with os.fdopen(fd, "rb") as file:
            if not stat.S_ISREG(os.fstat(fd).st_mode):
                raise UploadError(f"{member.path.name} is no file any more")
            while left and (data := file.read(min(CHUNK, left))):
                left -= len(data)
                yield data
    except OSError as error:
        raise UploadError(f"{member.path.name} cannot be read: {error.strerror}") from error
    if left:
        raise UploadError(f"{member.path.name} shrank while it was sent")


def _send(url: str, directory: Path, proxy: str, report: Callable[[float], None], stop: threading.Event) -> None:
    found = members(directory)
    size, sent = archive_size(found), 0

    def body() -> Iterator[bytes]:
        nonlocal sent
        for piece in archive(found):
            if stop.is_set():
                raise UploadError("nobody wants it to be sent any more")
            yield piece
            sent += len(piece)
            report(sent / size)

    parts = urlsplit(url)
    headers = {"Content-Length": str(size), "Content-Type": "application/x-tar", "User-Agent": "domzero"}
    headers |= _authorization("Authorization", parts)
    connection, target = _connection(parts, proxy, headers)
    try:
        connection.request("PUT", target, body(), headers)
        answer = connection.getresponse()
        answer.read(CHUNK)
    except (OSError, http.client.HTTPException, ValueError) as error:
        raise UploadError(f"the server cannot be sent to: {error}") from error
    finally:
        connection.close()
    if not 200 <= answer.status < 300:
        raise UploadError(f"the server answered {answer.status}")


def _connection(parts: SplitResult, proxy: str, headers: dict[str, str]) -> tuple[http.client.HTTPConnection, str]:
    """A connection that is not made yet, and what to ask for on it."""
    target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    via = urlsplit(proxy) if proxy else parts
    host, port = via.hostname or "", via.port
    if parts.scheme == "https":
        secure = http.client.HTTPSConnection(host, port, timeout=SILENCE, context=ssl.create_default_context())
        if proxy:
            secure.set_tunnel(parts.hostname or "", parts.port, _authorization("Proxy-Authorization", via))
        return secure, target
    if proxy:
        headers |= _authorization("Proxy-Authorization", via)
        name = f"[{parts.hostname}]" if ":" in (parts.hostname or "") else parts.hostname
        target = f"http://{name}{f':{parts.port}' if parts.port else ''}{target}"
    return http.client.HTTPConnection(host, port, timeout=SILENCE), target


def _authorization(header: str, parts: SplitResult) -> dict[str, str]:
    """Name and password of an address by RFC 7617."""
    if parts.username is None:
        return {}
    secret = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
    return {header: f"Basic {base64.b64encode(secret.encode()).decode()}"}
