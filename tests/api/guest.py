"""Watching a real guest through its serial line."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from domzero.host.guest_image.console import TICK_ARGUMENT, is_ready, ticks, values
from tests.api.harness import InProcessHost

BOOT_LIMIT = 60.0


@dataclass
class Guest:
    """A machine of a host in this process, and what it says."""

    host: InProcessHost
    api: Any
    vm: str
    patience: float = BOOT_LIMIT

    def serial(self) -> bytes:
        """What the present domain wrote so far."""
        domid = int(self.api.VM.get_domid(self.vm))
        status = self.host.run(self.host.daemon.stack.hypervisor.status(domid))
        return bytes(status.serial_log.read_bytes())

    def wait_for(self, condition: Callable[[bytes], object], what: str) -> Any:
        """What the condition gives as soon as it is true of the serial output."""
        deadline = time.monotonic() + self.patience
        while not (result := condition(self.serial())):
            assert time.monotonic() < deadline, f"{what} did not happen: {self.serial()[-2000:]!r}"
            time.sleep(0.05)
        return result

    def wait_until_up(self) -> None:
        self.wait_for(is_ready, "the boot")

    def boots(self) -> int:
        """How often this disk was booted from, as the guest counts on the disk itself."""
        return int(self.wait_for(lambda log: values(log, "boots"), "mounting the disk")[0])

    def ticks_reach(self, count: int) -> list[int]:
        """The guest's counter, which lives in its memory, once it has reached a value."""
        return list(
            self.wait_for(lambda log: [*ticks(log)] if max(ticks(log), default=0) >= count else None, "counting")
        )


def make_machine(host: InProcessHost, api: Any, name: str, *, ticking: bool = False) -> Guest:
    """A provisioned machine from the small template."""
    vm = api.VM.clone(api.VM.get_by_name_label("Tiny Linux")[0], name)
    if ticking:
        api.VM.set_PV_args(vm, f"{api.VM.get_PV_args(vm)} {TICK_ARGUMENT}")
    api.VM.provision(vm)
    return Guest(host, api, vm)


def remove_machine(api: Any, vm: str) -> None:
    """The machine and its disks."""
    if api.VM.get_power_state(vm) != "Halted":
        api.VM.hard_shutdown(vm)
    disks = [api.VBD.get_VDI(vbd) for vbd in api.VM.get_VBDs(vm) if api.VBD.get_type(vbd) == "Disk"]
    api.VM.destroy(vm)
    for disk in disks:
        api.VDI.destroy(disk)
