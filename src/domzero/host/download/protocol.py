"""Fetching files for the toolstack: what it may ask, and what can go wrong."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol
from urllib.parse import urlsplit

SCHEMES = frozenset({"http", "https", "ftp"})


class DownloadError(Exception):
    """The file could not be had; the text says why, without credentials from the address."""


def is_fetchable(url: str) -> bool:
    """Whether this is an address that `download` takes: http, https or ftp, with a host."""
    try:
        parts = urlsplit(url)
        return parts.scheme in SCHEMES and bool(parts.hostname)
    except ValueError:
        return False


class Download(Protocol):
    """Fetches one file."""

    async def __call__(self, url: str, path: Path, *, largest: int, patience: float = 600.0) -> int:
        """Write what the address holds to the file, which is replaced as a whole and readable by everyone; its size.

        Raises `DownloadError` for addresses of other kinds, refusals, and files of more than `largest` bytes or that
        take longer than `patience` seconds. Then, and when the call is cancelled, the file is as it was.
        """
        ...
