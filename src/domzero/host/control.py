"""The few things the toolstack does to the machine as a whole: its kernel log, its power, where its log goes.

Two implementations: the Linux one really does it, the simulated one only remembers, so that a simulated host never does
anything to the machine it is tried on.
"""

from __future__ import annotations

import logging
import logging.handlers
from pathlib import Path
from typing import Protocol

from domzero.host.process import ProcessError, run


class ControlError(Exception):
    """The machine refused; the text says why."""


class HostControl(Protocol):
    """What can be asked of the machine."""

    async def kernel_log(self, *, clear: bool) -> str:
        """The kernel's messages; with `clear` they are forgotten afterwards. Raises `ControlError`."""
        ...

    async def power_off(self) -> None:
        """Shut the machine down. Returns when the request was taken. Raises `ControlError`."""
        ...

    async def reboot(self) -> None:
        """Restart the machine. Returns when the request was taken. Raises `ControlError`."""
        ...

    def send_log_to(self, destination: str) -> None:
        """Send domzero's own log to a syslog server as well (`host` or `host:port`); empty stops that."""
        ...


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
        self._handler.setFormatter(logging.Formatter("domzero: %(levelname)s %(name)s: %(message)s"))
        logging.getLogger("domzero").addHandler(self._handler)


class LinuxControl:
    """Really does it, with util-linux and systemd."""

    def __init__(self) -> None:
        self._remote_log = RemoteLog()

    async def kernel_log(self, *, clear: bool) -> str:
        """See `HostControl`."""
        completed = await _run("dmesg", "--read-clear") if clear else await _run("dmesg")
        return completed.decode(errors="replace")

    async def power_off(self) -> None:
        """See `HostControl`."""
        await _run("systemctl", "poweroff", "--no-block")

    async def reboot(self) -> None:
        """See `HostControl`."""
        await _run("systemctl", "reboot", "--no-block")

    def send_log_to(self, destination: str) -> None:
        """See `HostControl`."""
        self._remote_log.send_to(destination)


class SimulatedControl:
    """Leaves the machine alone: `asked` lists what would have been done, oldest first."""

    def __init__(self, kernel_log: str = "[    0.000000] a simulated host\n") -> None:
        self.asked: list[str] = []
        self._kernel_log = kernel_log
        self._remote_log = RemoteLog()

    async def kernel_log(self, *, clear: bool) -> str:
        """The text given at first, until it is cleared."""
        text = self._kernel_log
        if clear:
            self._kernel_log = ""
        return text

    async def power_off(self) -> None:
        """Remembered only."""
        self.asked.append("power off")

    async def reboot(self) -> None:
        """Remembered only."""
        self.asked.append("reboot")

    def send_log_to(self, destination: str) -> None:
        """Done for real: domzero's own log is not the machine's."""
        self._remote_log.send_to(destination)


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


async def _run(*argv: str) -> bytes:
    try:
        return (await run(argv, timeout=20)).stdout
    except ProcessError as error:
        raise ControlError(str(error)) from error
