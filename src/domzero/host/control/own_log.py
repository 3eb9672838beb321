"""domzero's own log: the form of its lines, reading its end, and sending it to a syslog server."""

from __future__ import annotations

import logging
import logging.handlers
import socket
from pathlib import Path
from typing import Any

from domzero.host.control.protocol import ControlError

SYSLOG_PORT = 514
HIGHEST_PORT = 65535


class LineFormatter(logging.Formatter):
    """A line for each record, whatever texts of strangers are in it.

    Line ends and everything else that is not for reading are written as escapes. The lines of a traceback are indented,
    so that none can pass for a record.
    """

    def formatMessage(self, record: logging.LogRecord) -> str:
        """The record's own line."""
        return _readable(super().formatMessage(record))

    def formatException(self, ei: Any) -> str:
        """A traceback."""
        return "\n".join(f"  {_readable(line)}" for line in super().formatException(ei).split("\n"))


def _readable(text: str) -> str:
    """The text with escapes for characters that end lines or steer terminals."""
    if text.isprintable():
        return text
    return "".join(one if one.isprintable() else one.encode("unicode_escape").decode() for one in text)


class RemoteLog:
    """The one handler that sends domzero's log to a syslog server (RFC 3164 over UDP, by default port 514)."""

    def __init__(self) -> None:
        self._handler: logging.Handler | None = None

    def send_to(self, destination: str) -> None:
        """Replace where the log goes. Blocks while a name is looked up.

        Raises `ControlError` for a destination that cannot be resolved; then the log goes where it went before.
        """
        handler = _Sender(_resolved(destination)) if destination else None
        if self._handler is not None:
            logging.getLogger("domzero").removeHandler(self._handler)
            self._handler.close()
        if handler is not None:
            handler.setFormatter(LineFormatter("domzero: %(levelname)s %(name)s: %(message)s"))
            logging.getLogger("domzero").addHandler(handler)
        self._handler = handler


class _Sender(logging.handlers.SysLogHandler):
    """Sends from the thread that has something to log, so it is given numbers: it must not look up a name."""

    def handleError(self, record: logging.LogRecord) -> None:
        """Let a line go that cannot be sent, as while the network is down: the log file has it."""


def _resolved(destination: str) -> tuple[str, int]:
    host, _, port = destination.partition(":")
    try:
        number = int(port or SYSLOG_PORT)
        if not 0 < number <= HIGHEST_PORT:
            raise ValueError(f"there is no port {number}")
        found = socket.getaddrinfo(host, number, type=socket.SOCK_DGRAM)
    except (OSError, ValueError) as error:
        raise ControlError(f"{destination} is no syslog server that can be reached: {error}") from error
    address = found[0][4]
    return str(address[0]), number


def read_tail(path: Path, limit: int) -> str:
    """The last `limit` bytes of a text file, from a line's start; empty when there is no file.

    What is missing comes from the end of the file before it, which was turned over to the name with `.1` behind.
    """
    data = _end(path, limit)
    if len(data) < limit:
        data = _end(path.with_name(f"{path.name}.1"), limit - len(data)) + data
    if len(data) == limit:
        data = data.partition(b"\n")[2]
    return data.decode(errors="replace")


def _end(path: Path, limit: int) -> bytes:
    try:
        with path.open("rb") as file:
            size = file.seek(0, 2)
            file.seek(max(0, size - limit))
            return file.read(limit)
    except FileNotFoundError:
        return b""
