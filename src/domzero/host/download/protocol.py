"""Fetching files for the toolstack: what it may ask, and what can go wrong."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Protocol
from urllib.parse import urlsplit

SCHEMES = frozenset({"http", "https", "ftp"})

Progress = Callable[[int, int], None]
"""Told of the bytes that came so far and of those expected in all, 0 where nobody knows."""


class DownloadError(Exception):
    """The file could not be had; the text says why, without credentials from the address."""


class FileMissingError(DownloadError):
    """The server has no such file."""


def is_fetchable(url: str) -> bool:
    """Whether this is an address that `download` takes: http, https or ftp, with a host."""
    try:
        parts = urlsplit(url)
        return parts.scheme in SCHEMES and bool(parts.hostname)
    except ValueError:
        return False


class Download(Protocol):
    """Fetches one file."""

    async def __call__(
        self, url: str, path: Path, *, largest: int, patience: float = 600.0, progress: Progress | None = None
    ) -> int:
        """Write what the address holds to the file, which is replaced as a whole and readable by everyone; its size.

        Redirections are followed, a few of them, and never from https to what is not. Raises `DownloadError` for
        addresses of other kinds, refusals, and files of more than `largest` bytes or that take longer than `patience`
        seconds. Then, and when the call is cancelled, the file is as it was.
        """
        ...
