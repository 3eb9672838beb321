"""Really does it, with util-linux and systemd."""

from __future__ import annotations

import asyncio
from pathlib import Path

from domzero.host.control.hostname import set_hostname
from domzero.host.control.neighbours import ROUTES, has_neighbour, parse_routes
from domzero.host.control.own_log import RemoteLog, read_tail
from domzero.host.control.protocol import ControlError
from domzero.host.process import ProcessError, run


class LinuxControl:
    """Implements `HostControl`. `log_file` is domzero's own log."""

    def __init__(self, log_file: Path) -> None:
        self._log_file = log_file
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

    async def set_hostname(self, name: str) -> None:
        """See `HostControl`; what hostname(5) asks for."""
        await asyncio.to_thread(set_hostname, name)

    async def routes(self) -> tuple[str, ...]:
        """See `HostControl`."""
        try:
            return parse_routes(await asyncio.to_thread(ROUTES.read_text))
        except OSError as error:
            raise ControlError(f"{ROUTES} cannot be read: {error.strerror}") from error

    async def answers(self, address: str, interface: str) -> bool:
        """See `HostControl`."""
        return bool(address) and await has_neighbour(address, interface)

    def log_tail(self, limit: int) -> str:
        """See `HostControl`."""
        return read_tail(self._log_file, limit)

    def send_log_to(self, destination: str) -> None:
        """See `HostControl`."""
        self._remote_log.send_to(destination)


async def _run(*argv: str) -> bytes:
    try:
        return (await run(argv, timeout=20)).stdout
    except ProcessError as error:
        raise ControlError(str(error)) from error
