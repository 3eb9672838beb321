"""Sending a directory as a tar archive by HTTP PUT, without making the archive anywhere."""

from __future__ import annotations

import asyncio
import base64
import http.client
import os
import socket
import ssl
import stat
import tarfile
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import SplitResult, unquote, urlsplit

from domzero.host.upload.protocol import UploadError, is_sendable

CHUNK = 1 << 18
SILENCE = 30.0
"""Seconds for which a server may take nothing and say nothing."""
MOST_FILES = 1000


class Stop:
    """Nobody wants the archive to be sent any more. Set by one thread, heeded by the one that sends."""

    def __init__(self) -> None:
        self._wanted = threading.Event()
        self.connection: http.client.HTTPConnection | None = None

    def set(self) -> None:
        """Have it stop, also where it waits for the server."""
        self._wanted.set()
        held = self.connection and self.connection.sock
        if held:
            # Past TLS, whose state belongs to the other thread.
            with suppress(OSError):
                socket.socket.shutdown(held, socket.SHUT_RDWR)

    def check(self) -> None:
        """Raises `UploadError` once it was set."""
        if self._wanted.is_set():
            raise UploadError("nobody wants it to be sent any more")


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
    stop = Stop()
    loop = asyncio.get_running_loop()

    def report(fraction: float) -> None:
        loop.call_soon_threadsafe(progress, fraction)

    # A thread of its own: those that all share are few, and a dump may be on its way for hours.
    with ThreadPoolExecutor(1, "upload") as thread:
        work = loop.run_in_executor(thread, _send, url, directory, proxy, report, stop)
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


def _send(url: str, directory: Path, proxy: str, report: Callable[[float], None], stop: Stop) -> None:
    found = members(directory)
    size, sent = archive_size(found), 0

    def body() -> Iterator[bytes]:
        nonlocal sent
        for piece in archive(found):
            stop.check()
            yield piece
            sent += len(piece)
            report(sent / size)

    parts = urlsplit(url)
    headers = {"Content-Length": str(size), "Content-Type": "application/x-tar", "User-Agent": "domzero"}
    headers |= _authorization("Authorization", parts)
    connection, target = _connection(parts, proxy, headers)
    stop.connection = connection
    try:
        connection.request("PUT", target, body(), headers)
        stop.check()
        answer = connection.getresponse()
        answer.close()  # what it says beside its status could take for ever
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
