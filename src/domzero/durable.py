"""Files that are on disk when a function returns, whole or as they were before. Everything here blocks."""

from __future__ import annotations

import os
from pathlib import Path

PRIVATE = 0o600


def replace(path: Path, content: bytes, mode: int = PRIVATE) -> None:
    """Put a file in its place; a crash at any moment leaves the old one or the new one. Raises `OSError`.

    At no moment does anybody have more rights to it than `mode` says. It is written beside its place as `<name>.new`,
    which a crash may leave and the next call removes; two calls for one file at the same time are not allowed.
    """
    fresh = path.with_name(f"{path.name}.new")
    fresh.unlink(missing_ok=True)
    try:
        descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, PRIVATE)
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            os.fchmod(descriptor, mode)
            file.flush()
            os.fsync(descriptor)
        fresh.replace(path)
    finally:
        fresh.unlink(missing_ok=True)
    sync(path.parent)


def sync(path: Path) -> None:
    """Have on disk what was written into a file, whoever wrote it, or the names in a directory. Raises `OSError`."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
