"""The directory of one domain, and the handle by which a later daemon finds it again.

`<runtime>/<domid>/` is mode 0700 and owned by the daemon's user: nobody else reaches the sockets. Its sub-directory
`root` is what a domain sees as `/`; the domain's user can neither list nor write it.
"""

from __future__ import annotations

import json
import logging
import os
import shutil
import socket
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

logger = logging.getLogger(__name__)

SOCKET_PATH_LIMIT = 107
"""The longest path a Unix socket can have (unix(7))."""


@dataclass(frozen=True, slots=True)
class Handle:
    """What is known of a domain beyond what its process can be asked."""

    domid: int
    uuid: str
    boot_id: str
    """The host's boot in which it was written; processes of another boot are gone."""
    pid: int | None = None
    start_time: int | None = None
    """The process's start in clock ticks after boot; with `pid` it names one process for good."""
    uid: int | None = None
    """The user the domain was given, None for the daemon's own."""
    accelerator: str = "tcg"
    processors_started: int = 0
    """How many virtual processors were ever started, those unplugged since included."""
    queues: int = 0
    """How many queues its disks have; 0 where QEMU chose, as many as there were processors at start."""
    live: bool = False
    """Whether the guest has been let run, or is about to go on from saved memory: one that has not is of no use to
    anybody."""
    held: bool = False
    """Whether the guest was stopped for a moment that nobody was to notice: it is to go on."""
    limits: dict[str, dict[str, Any]] = field(default_factory=dict)
    """By disk slot, what `limits` wrote down."""


@dataclass(frozen=True, slots=True)
class DomainFiles:
    """Paths of one domain. Making the value touches nothing."""

    directory: Path

    @property
    def handle(self) -> Path:
        return self.directory / "handle.json"

    @property
    def root(self) -> Path:
        return self.directory / "root"

    @property
    def monitor_socket(self) -> Path:
        return self.directory / "qmp.sock"

    @property
    def serial_socket(self) -> Path:
        return self.directory / "serial.sock"

    @property
    def guest_socket(self) -> Path:
        return self.directory / "guest.sock"

    @property
    def tools_socket(self) -> Path:
        return self.directory / "tools.sock"

    @property
    def vnc_socket(self) -> Path:
        return self.directory / "vnc.sock"

    @property
    def serial_log(self) -> Path:
        return self.directory / "serial.log"

    @property
    def process_log(self) -> Path:
        """What QEMU itself says (standard output and error)."""
        return self.directory / "qemu.log"

    def create(self) -> None:
        """Make the directory and its empty files. Raises `FileExistsError` where the domid is taken."""
        self.directory.mkdir(mode=0o700)
        self.root.mkdir()
        self.root.chmod(0o711)
        for log in (self.serial_log, self.process_log):
            os.close(os.open(log, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))

    def give_resolver(self, configuration: Path) -> None:
        """Let the domain's own root have the host's resolver configuration: user-mode networking reads it there."""
        if configuration.is_file():
            (self.root / "etc").mkdir(exist_ok=True)
            (self.root / "etc").chmod(0o755)
            copy = self.root / "etc" / "resolv.conf"
            copy.write_bytes(configuration.read_bytes())
            copy.chmod(0o644)

    def write_handle(self, handle: Handle) -> None:
        """Replace the handle in one step. A crash of the host may lose it, together with the domain."""
        partial = self.handle.with_suffix(".partial")
        partial.write_text(json.dumps(asdict(handle)))
        partial.replace(self.handle)

    def read_handle(self) -> Handle | None:
        """The handle, or None where there is none or it is not ours."""
        try:
            return Handle(**json.loads(self.handle.read_text()))
        except (OSError, ValueError, TypeError):
            return None

    def remove(self) -> None:
        """Remove the directory and all in it; nothing happens where it is gone."""
        shutil.rmtree(self.directory, ignore_errors=True)


def listen(path: Path) -> socket.socket:
    """A listening Unix socket at `path` that only this user can connect to. Raises `OSError`."""
    server = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        server.bind(os.fspath(path))
        path.chmod(0o600)
        server.listen(16)
    except OSError:
        server.close()
        raise
    return server


def tail(path: Path, limit: int = 2000) -> str:
    """The last `limit` bytes of a log as text, empty where it cannot be read."""
    try:
        with path.open("rb") as log:
            log.seek(max(0, path.stat().st_size - limit))
            return log.read(limit).decode(errors="replace").strip()
    except OSError:
        return ""


def bound(path: Path, limit: int) -> None:
    """Cut a log that exceeds `limit` bytes down to its latest half.

    QEMU appends meanwhile (its descriptor has O_APPEND): what it writes between our reading and cutting is lost, never
    garbled. Nothing happens where the log is gone, and what keeps it from being cut is logged.
    """
    try:
        if path.stat().st_size <= limit:
            return
        with path.open("r+b") as log:
            log.seek(-(limit // 2), os.SEEK_END)
            latest = log.read(limit // 2)
            log.truncate(0)
            log.seek(0)
            log.write(latest)
    except FileNotFoundError:
        return
    except OSError as error:
        logger.warning("%s cannot be cut: %s", path, error.strerror)
