"""The file by which a repository is known and held: whose directory it is, and which process changes it. All blocks."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path
from typing import Any

import orjson

from domzero.host.storage import numbers
from domzero.host.storage.numbers import from_os
from domzero.host.storage.protocol import StorageError

MARKER = "domzero-repository.json"
LIMIT = 4096


def lock_marker(descriptor: int, directory: Path) -> None:
    """Hold the repository for this process alone. Raises `StorageError` 16 while another does."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise StorageError(numbers.REPOSITORY_IN_USE, f"{directory} is used by another process") from None
    except OSError as error:
        raise from_os(error) from error


def close_marker(descriptor: int) -> None:
    """Let go of a repository, also while a child that is being started still has the descriptor."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_UN)
    finally:
        os.close(descriptor)


def read_marker(descriptor: int, directory: Path) -> dict[str, Any]:
    """What `prepare` wrote."""
    try:
        marker = orjson.loads(os.pread(descriptor, LIMIT, 0))
    except orjson.JSONDecodeError:
        marker = None
    if not isinstance(marker, dict) or not isinstance(marker.get("repository"), str):
        raise StorageError(numbers.REPOSITORY_UNAVAILABLE, f"{directory / MARKER} cannot be read")
    return marker
