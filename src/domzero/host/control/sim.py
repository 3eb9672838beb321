"""Leaves the machine alone."""

from __future__ import annotations

from pathlib import Path

from domzero.host.control.own_log import RemoteLog, read_tail


class SimulatedControl:
    """Leaves the machine alone: `asked` lists what would have been done, oldest first."""

    def __init__(self, log_file: Path, kernel_log: str = "[    0.000000] a simulated host\n") -> None:
        self.asked: list[str] = []
        self.neighbours_answer = True
        """What `answers` says."""
        self._log_file = log_file
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

    async def set_hostname(self, name: str) -> None:
        """Remembered only."""
        self.asked.append(f"hostname {name}")

    async def routes(self) -> tuple[str, ...]:
        """None."""
        return ()

    async def answers(self, address: str, interface: str) -> bool:  # noqa: ARG002 - every neighbour is alike
        """As `neighbours_answer` says, whatever the address: there is but pretended wire."""
        return self.neighbours_answer

    def log_tail(self, limit: int) -> str:
        """Done for real, as sending it."""
        return read_tail(self._log_file, limit)

    def send_log_to(self, destination: str) -> None:
        """Done for real: domzero's own log is not the machine's."""
        self._remote_log.send_to(destination)
