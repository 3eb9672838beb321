"""Fetching a file from a server whose answers are not to be trusted: bounded in size and in time."""

from __future__ import annotations

import asyncio
import ftplib
import ssl
import time
import urllib.error
import urllib.request
from base64 import b64encode
from collections.abc import Callable
from concurrent.futures import Executor, ThreadPoolExecutor
from functools import cache
from http.client import HTTPException
from pathlib import Path
from urllib.parse import unquote, urlsplit, urlunsplit

from domzero.host.download.line import Line, opener
from domzero.host.download.protocol import DownloadError, FileMissingError, Progress, is_fetchable

CHUNK = 1 << 18
SILENCE = 30.0
"""Seconds that a server may keep silent."""
TELLING = 0.1
"""Seconds between two words on what came so far: a server decides how small the pieces are that it sends."""
AT_ONCE = 16
"""Downloads that go on side by side; further ones wait for one of them to end."""
MISSING = (404, 410)


async def download(
    url: str, path: Path, *, largest: int, patience: float = 600.0, progress: Progress | None = None
) -> int:
    """See `Download`."""
    if not is_fetchable(url):
        raise DownloadError("only http, https and ftp addresses can be fetched")
    partial = path.with_name(f"{path.name}.part")
    loop = asyncio.get_running_loop()
    line = Line()

    def came(received: int, expected: int) -> None:
        if progress is not None:
            loop.call_soon_threadsafe(progress, received, expected)

    work = loop.run_in_executor(_threads(), _fetch, url, partial, largest, patience, line, came)
    alarm = loop.call_later(max(patience, 0.0), line.cut)
    try:
        size = await asyncio.shield(work)
        partial.replace(path)
    except BaseException:
        line.cut()
        await asyncio.wait({work})
        partial.unlink(missing_ok=True)
        raise
    finally:
        alarm.cancel()
    return size


@cache
def _threads() -> Executor:
    """Threads for downloads alone: a silent server must not keep the loop's few threads from the storage's work."""
    return ThreadPoolExecutor(AT_ONCE, thread_name_prefix="download")


def _fetch(url: str, partial: Path, largest: int, patience: float, line: Line, came: Callable[[int, int], None]) -> int:
    late = DownloadError(f"the file did not come within {patience:.0f} seconds")
    if line.is_cut():
        raise late
    deadline = time.monotonic() + patience
    size, told = 0, float("-inf")
    try:
        request = _request(url)
        with opener(line).open(request, timeout=SILENCE) as answer, partial.open("wb") as file:
            announced = answer.headers.get("Content-Length", "")
            expected = int(announced) if announced.isdecimal() and len(announced) < 19 else 0
            if expected > largest:
                raise DownloadError(f"the file is larger than {largest} bytes")
            # What is there, and not a whole chunk: a server that sends byte by byte must not keep us.
            while chunk := answer.read1(CHUNK):
                size += len(chunk)
                if size > largest:
                    raise DownloadError(f"the file is larger than {largest} bytes")
                now = time.monotonic()
                if line.is_cut() or now > deadline:
                    raise late
                file.write(chunk)
                if now - told >= TELLING:
                    came(size, expected)
                    told = now
            # Reading piece by piece, http.client takes the end of the connection for the end of the file.
            if line.is_cut():
                raise late
            if announced.isdecimal() and expected != size:
                raise DownloadError(f"the server promised {announced} bytes and sent {size}")
            came(size, expected)
    except (OSError, HTTPException, ValueError, EOFError, ftplib.Error) as error:
        raise late if line.is_cut() else _failure(error) from error
    finally:
        line.close()
    partial.chmod(0o644)
    return size


def _request(url: str) -> urllib.request.Request:
    """User and password in an http or https address become a header, which no redirection carries elsewhere."""
    parts = urlsplit(url)
    user, at, host = parts.netloc.rpartition("@")
    if not at or parts.scheme == "ftp":
        return urllib.request.Request(url, headers={"User-Agent": "domzero"})  # noqa: S310 - the scheme was checked
    plain = urlunsplit(parts._replace(netloc=host))
    request = urllib.request.Request(plain, headers={"User-Agent": "domzero"})  # noqa: S310 - the same
    request.add_unredirected_header("Authorization", f"Basic {b64encode(unquote(user).encode()).decode()}")
    return request


def _failure(error: Exception) -> DownloadError:
    """What went wrong, for a person."""
    if isinstance(error, urllib.error.HTTPError):
        error.close()
        kind = FileMissingError if error.code in MISSING else DownloadError
        redirected = ", a redirection that is not followed" if error.code in (301, 302, 303, 307, 308) else ""
        return kind(f"the server answered {error.code}{redirected}")
    cause = error.reason if isinstance(error, urllib.error.URLError) else error
    if isinstance(cause, TimeoutError):
        return DownloadError(f"the server kept silent for {SILENCE:.0f} seconds")
    if isinstance(cause, ssl.SSLCertVerificationError):
        return DownloadError(f"the server's certificate is not to be trusted: {cause.verify_message}")
    text = str(cause)
    if isinstance(error, urllib.error.URLError) and "550" in text:
        return FileMissingError("the server has no such file (550)")
    if isinstance(cause, OSError) and cause.strerror:
        text = cause.strerror
    return DownloadError(f"the file could not be fetched: {text[:200]}")
