"""The machine's name: the kernel's, and the file it comes from at a start (hostname(5))."""

from __future__ import annotations

import contextlib
import socket
from pathlib import Path

from domzero.durable import replace
from domzero.host.control.protocol import ControlError

HOSTNAME_FILE = Path("/etc/hostname")


def set_hostname(name: str, file: Path = HOSTNAME_FILE) -> None:
    """Write the file, then tell the kernel. Blocks. Raises `ControlError`; then the file is as it was."""
    before = _read(file)
    try:
        _replace(file, f"{name}\n")
    except OSError as error:
        raise ControlError(f"{file} cannot be written: {error.strerror}") from error
    try:
        socket.sethostname(name)
    except OSError as error:
        with contextlib.suppress(OSError):
            if before is None:
                file.unlink()
            else:
                _replace(file, before)
        raise ControlError(f"the kernel does not take the name: {error.strerror}") from error


def _read(file: Path) -> str | None:
    try:
        return file.read_text()
    except OSError:
        return None


def _replace(file: Path, text: str) -> None:
    """The file whole or as before, readable by all as it must be."""
    replace(file, text.encode(), 0o644)
