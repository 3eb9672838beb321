"""domzero's own log: the form of its lines, reading its end, and sending it to a syslog server."""

from __future__ import annotations

import logging
import logging.handlers
from pathlib import Path
from typing import Any

from domzero.host.control.protocol import ControlError


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
        """Replace where the log goes. Raises `ControlError` for a destination that cannot be resolved."""
        if self._handler is not None:
            logging.getLogger("domzero").removeHandler(self._handler)
            self._handler.close()
            self._handler = None
        if not destination:
            return
        host, _, port = destination.partition(":")
        try:
            self._handler = logging.handlers.SysLogHandler((host, int(port or 514)))
        except (OSError, ValueError) as error:
            raise ControlError(f"{destination} is no syslog server that can be reached: {error}") from error
        self._handler.setFormatter(LineFormatter("domzero: %(levelname)s %(name)s: %(message)s"))
        logging.getLogger("domzero").addHandler(self._handler)


def read_tail(path: Path, limit: int) -> str:
    """The last `limit` bytes of a text file, from a line's start; empty when there is no file."""
    try:
        with path.open("rb") as file:
            size = file.seek(0, 2)
            file.seek(max(0, size - limit))
            data = file.read()
    except FileNotFoundError:
        return ""
    if size > limit:
        data = data.partition(b"\n")[2]
    return data.decode(errors="replace")
