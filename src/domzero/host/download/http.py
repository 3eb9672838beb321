"""Fetching a file from a server whose answers are not to be trusted: bounded in size and in time."""

from __future__ import annotations

import asyncio
import threading
import time
import urllib.error
import urllib.request
from concurrent.futures import Executor, ThreadPoolExecutor
from functools import cache
from http.client import HTTPException
from pathlib import Path

from domzero.host.download.protocol import DownloadError, is_fetchable

CHUNK = 1 << 18
SILENCE = 30.0
"""Seconds that a server may keep silent."""
AT_ONCE = 4
"""Downloads that go on side by side; further ones wait for one of them to end."""


async def download(url: str, path: Path, *, largest: int, patience: float = 600.0) -> int:
    """See `Download`."""
    if not is_fetchable(url):
        raise DownloadError("only http, https and ftp addresses can be fetched")
    partial = path.with_name(f"{path.name}.part")
    stop = threading.Event()
    work = asyncio.get_running_loop().run_in_executor(_threads(), _fetch, url, partial, largest, patience, stop)
    try:
        size = await asyncio.shield(work)
        partial.replace(path)
    except BaseException:
        stop.set()
        await asyncio.wait({work})
        partial.unlink(missing_ok=True)
        raise
    return size


@cache
def _threads() -> Executor:
    """Threads for downloads alone: a silent server must not keep the loop's few threads from the storage's work."""
    return ThreadPoolExecutor(AT_ONCE, thread_name_prefix="download")


def _fetch(url: str, partial: Path, largest: int, patience: float, stop: threading.Event) -> int:
    if stop.is_set():
        raise DownloadError("nobody wants the file any more")
    deadline = time.monotonic() + patience
    size = 0
    request = urllib.request.Request(url, headers={"User-Agent": "domzero"})  # noqa: S310 - the scheme was checked
    try:
        # Redirections are followed to http, https and ftp alone (urllib.request.HTTPRedirectHandler).
        with urllib.request.urlopen(request, timeout=SILENCE) as answer, partial.open("wb") as file:  # noqa: S310
            while chunk := answer.read(CHUNK):
                size += len(chunk)
                if size > largest:
                    raise DownloadError(f"the file is larger than {largest} bytes")
                if stop.is_set() or time.monotonic() > deadline:
                    raise DownloadError(f"the file did not come within {patience:.0f} seconds")
                file.write(chunk)
            # Reading piece by piece, http.client takes the end of the connection for the end of the file.
            announced = answer.headers.get("Content-Length", "")
            if announced.isdecimal() and int(announced) != size:
                raise DownloadError(f"the server promised {announced} bytes and sent {size}")
    except urllib.error.HTTPError as error:
        with error:
            raise DownloadError(f"the server answered {error.code}") from error
    except (OSError, HTTPException, ValueError) as error:
        raise DownloadError(f"the file could not be fetched: {error}") from error
    partial.chmod(0o644)
    return size
