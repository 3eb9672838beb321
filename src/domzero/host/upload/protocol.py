"""Sending files for the toolstack: what it may ask, and what can go wrong."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Protocol
from urllib.parse import urlsplit

SCHEMES = frozenset({"http", "https"})


class UploadError(Exception):
    """The files could not be sent; the text says why, without credentials from the address."""


def is_sendable(url: str) -> bool:
    """Whether this is an address that `Upload` takes: http or https, with a host, and no odd characters."""
    try:
        parts = urlsplit(url)
        parts.port  # noqa: B018 - raises ValueError where it is no number
        return (
            parts.scheme in SCHEMES and bool(parts.hostname) and url.isascii() and url.isprintable() and " " not in url
        )
    except ValueError:
        return False


class Upload(Protocol):
    """Sends one directory."""

    async def __call__(self, url: str, directory: Path, *, proxy: str, progress: Callable[[float], None]) -> None:
        """Send the regular files in a directory as one tar archive, by HTTP PUT to the address.

        `proxy` is the address of an HTTP proxy, or empty. Raises `UploadError` for addresses of other kinds, for an
        answer that is not of the 200s, and for a server that does not take anything for a while. Cancelling ends it.
        """
        ...
