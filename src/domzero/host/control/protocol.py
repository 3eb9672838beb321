"""The few things the toolstack does to the machine as a whole: its kernel log, its power, where its log goes."""

from __future__ import annotations

from typing import Protocol


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

    async def set_hostname(self, name: str) -> None:
        """Give the machine another name, now and for its next starts. Raises `ControlError`."""
        ...

    async def routes(self) -> tuple[str, ...]:
        """The IPv4 networks that the machine has routes to, with prefix length. Raises `ControlError`."""
        ...

    async def answers(self, address: str, interface: str) -> bool:
        """Whether a neighbour with this IP address was heard on the interface just now. Takes a second at most.

        No machine has an empty address.
        """
        ...

    def log_tail(self, limit: int) -> str:
        """The last `limit` bytes of domzero's own log, from a line's start. Blocks for as long as reading takes."""
        ...

    def send_log_to(self, destination: str) -> None:
        """Send domzero's own log to a syslog server as well (`host` or `host:port`); empty stops that.

        Blocks while a name is looked up. Raises `ControlError` where that fails; then nothing has changed.
        """
        ...
