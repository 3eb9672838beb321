"""Where the console that a client names is: which machine's, what it speaks, and the socket that serves it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from domzero.engine.errors import ApiError
from domzero.host.hypervisor.protocol import DomainNotFoundError
from domzero.idl.types import Ref
from domzero.toolstack.stack import Stack
from domzero.toolstack.vm.consoles import SCREEN, SERIAL
from domzero.toolstack.vm.specification import as_booted, is_hvm

GRAPHICS_CARD: Final = "vga"
"""The key of `platform` that names a graphics card."""


def shows_text(machine: Mapping[str, Any]) -> bool:
    """Whether a machine's screen is its serial line, shown as text: a paravirtual one's that names no graphics card.

    Such guests write on their console and know nothing of the card that every machine has here.
    """
    return not is_hvm(machine) and machine["platform"].get(GRAPHICS_CARD, "none") in ("", "none")


@dataclass(frozen=True, slots=True)
class ConsolePlace:
    """A console of a machine that runs here."""

    console: Ref
    protocol: str
    """`rfb` or `vt100`."""
    socket: Path | None
    """None where the hypervisor serves none, and for the host's own console."""
    log: Path | None
    """What a serial line said so far."""
    is_control_domain: bool
    title: str | None = None
    """Of a screen that is made of the serial line; the socket is that line's then. None for real screens."""


class ConsolePlaces:
    """Looks consoles up."""

    def __init__(self, stack: Stack) -> None:
        self._stack = stack

    async def find(self, name: str) -> ConsolePlace:
        """The console behind a reference or uuid: its own, or its machine's, whose screen is meant then.

        Raises `ApiError` HANDLE_INVALID when there is no such console, VM_NOT_RESIDENT_HERE when its machine does not
        run on this host.
        """
        console = self._console(name)
        record = self._stack.database.record("console", console)
        vm = record["VM"]
        machine = self._stack.database.record("VM", vm)
        if machine["is_control_domain"]:
            return self._own(console, record["protocol"], machine)
        domain = self._stack.machines.status(vm)
        if domain is None:
            raise ApiError("VM_NOT_RESIDENT_HERE", vm, self._stack.host)
        try:
            status = await self._stack.hypervisor.consoles(domain.domid)
        except DomainNotFoundError as error:
            raise ApiError("VM_NOT_RESIDENT_HERE", vm, self._stack.host) from error
        text = record["protocol"] == SCREEN and shows_text(as_booted(machine))
        serial = text or record["protocol"] == SERIAL
        return ConsolePlace(
            console=console,
            protocol=record["protocol"],
            socket=status.serial_socket if serial else status.vnc_socket,
            log=status.serial_log if serial else None,
            is_control_domain=False,
            title=machine["name_label"] if text else None,
        )

    def _own(self, console: Ref, protocol: str, machine: Mapping[str, Any]) -> ConsolePlace:
        """The console of a host, which is text whichever way it is shown. Raises `ApiError` for another host's."""
        if machine["resident_on"] != self._stack.host:
            raise ApiError("VM_NOT_RESIDENT_HERE", str(machine["uuid"]), self._stack.host)
        title = machine["name_label"] if protocol == SCREEN else None
        return ConsolePlace(console, protocol, socket=None, log=None, is_control_domain=True, title=title)

    def _console(self, name: str) -> Ref:
        console = self._named("console", name)
        if console is not None:
            return console
        vm = self._named("VM", name)
        consoles = () if vm is None else self._stack.database.get("VM", vm, "consoles")
        speaking = {self._stack.database.get("console", ref, "protocol"): ref for ref in consoles}
        console = speaking.get(SCREEN, speaking.get(SERIAL))
        if console is None:
            raise ApiError("HANDLE_INVALID", "console", name)
        return str(console)

    def _named(self, cls: str, name: str) -> Ref | None:
        if self._stack.database.find(cls, name) is not None:
            return name
        try:
            return self._stack.database.by_uuid(cls, name)
        except ApiError:
            return None
