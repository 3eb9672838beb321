"""What a machine's record says of the processors that it was booted on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from domzero.host.hypervisor.protocol import DomainStatus, GuestProcessor
from domzero.host.hypervisor.sim import SimHypervisor
from domzero.host.hypervisor.spec import MachineSpec
from domzero.toolstack.vm.boot import cpu_flags
from tests.toolstack.vm.world import World, world

FLAGS = {
    "vendor": "GenuineIntel",
    "features": "178bfbff-80982203-20100800-00000001-" + "-".join(["00000000"] * 7),
}


class OtherProcessors(SimHypervisor):
    """Its guests have no telling processors."""

    async def start(self, spec: MachineSpec, *, paused: bool = False) -> DomainStatus:
        status = await super().start(spec, paused=paused)
        return DomainStatus(status.domid, status.uuid, status.state, None, None, None)


def flags(host: World, vm: str) -> dict[str, Any]:
    return dict(host.get("VM", vm, "last_boot_CPU_flags"))


@pytest.mark.parametrize("policy", ["", "BIOS order"])
async def test_a_start_notes_them(host: World, policy: str) -> None:
    vm = await host.machine(HVM_boot_policy=policy)
    assert flags(host, vm) == {}
    await host.call("VM.start", vm, True, False)
    assert flags(host, vm) == FLAGS
    await host.call("VM.hard_shutdown", vm)
    assert flags(host, vm) == FLAGS


async def test_they_stay_with_the_memory(host: World) -> None:
    vm = await host.machine()
    await host.call("VM.start", vm, False, False)
    first = {"vendor": "AuthenticAMD", "features": "1"}
    host.change("VM", vm, last_boot_CPU_flags=first)
    await host.call("VM.suspend", vm)
    assert flags(host, vm) == first
    await host.call("VM.resume", vm, False, False)
    assert flags(host, vm) == first
    await host.call("VM.hard_reboot", vm)
    assert flags(host, vm) == FLAGS


async def test_a_copy_was_never_booted(host: World) -> None:
    vm = await host.machine(cards=0)
    await host.call("VM.start", vm, False, False)
    await host.call("VM.hard_shutdown", vm)
    assert flags(host, await host.call("VM.clone", vm, "a copy")) == {}


async def test_a_failed_start_notes_nothing(host: World) -> None:
    vm = await host.machine(other_config={"sim:fail-start": "no"})
    await host.fails("VM.start", vm, False, False)
    assert flags(host, vm) == {}


async def test_what_is_not_known_is_not_made_up(tmp_path: Path) -> None:
    async with world(tmp_path, hypervisors=OtherProcessors) as host:
        vm = await host.machine()
        host.change("VM", vm, last_boot_CPU_flags={"vendor": "of another boot"})
        await host.call("VM.start", vm, False, False)
        assert flags(host, vm) == {}


def test_words_have_eight_digits() -> None:
    assert cpu_flags(GuestProcessor("AuthenticAMD", (0, 0xFFFF_FFFF, 0x1F))) == {
        "vendor": "AuthenticAMD",
        "features": "00000000-ffffffff-0000001f",
    }
