"""The store as a guest reaches it through its port, with Debian's own tools inside the guest."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from domzero.host.clock import SystemClock
from domzero.host.guest_port.sockets import PortSockets
from domzero.host.hypervisor.protocol import DomainEvent, GuestPortClosed
from domzero.host.hypervisor.qemu import names, saving
from domzero.host.hypervisor.spec import KernelBoot
from domzero.host.xenstore.protocol import Access, Permission
from domzero.host.xenstore.service import XenstoreService, xenstore
from tests.host.qemu import initramfs
from tests.host.qemu.conftest import Guest, Machine, guest_spec
from tests.host.qemu.guest import Console, until

TOOLS = [Path(f"/usr/bin/xenstore-{name}") for name in ("read", "write", "ls", "watch", "rm")]

pytestmark = [
    pytest.mark.qemu,
    pytest.mark.slow,
    pytest.mark.skipif(not TOOLS[0].exists(), reason="xenstore-utils is not installed"),
]


@pytest.fixture(scope="module")
def boot_with_tools(tmp_path_factory: pytest.TempPathFactory) -> KernelBoot:
    ramdisk = initramfs.build(tmp_path_factory.mktemp("tools") / "initrd", TOOLS)
    return KernelBoot(initramfs.kernel(), ramdisk, "console=ttyS0 panic=-1 quiet")


@dataclass
class Inside:
    """A guest that runs, and its host's store."""

    machine: Machine
    console: Console
    service: XenstoreService
    domid: int
    sockets: tuple[Path, ...]

    @property
    def home(self) -> str:
        return f"/local/domain/{self.domid}"

    async def run(self, command: str) -> str:
        """What a tool in the guest prints."""
        return await self.console.run(f"export XENSTORED_PATH=/dev/vport0p2; {command}")


@asynccontextmanager
async def joined(service: XenstoreService, domid: int, sockets: tuple[Path, ...]) -> AsyncIterator[PortSockets]:
    ports = PortSockets(service.server, SystemClock())
    for socket in sockets:
        ports.join(domid, socket)
    try:
        yield ports
    finally:
        await ports.close()


@asynccontextmanager
async def running(machine: Machine, boot: KernelBoot, directory: Path) -> AsyncIterator[Inside]:
    spec = guest_spec(boot, machine.image("disk", "16M"))
    status = await machine.hypervisor.start(spec)
    assert status.serial_socket is not None
    async with xenstore(directory / "xenstore", SystemClock()) as service, Console(status.serial_socket) as console:
        home = f"/local/domain/{spec.domid}"
        service.local.write(f"{home}/name", b"a machine")
        service.local.write("/local/domain/0/secret", b"x")
        for path in (home, f"{home}/name"):
            service.local.set_permissions(path, (Permission(0, Access.NONE), Permission(spec.domid, Access.READ)))
        service.local.make(f"{home}/data")
        service.local.set_permissions(f"{home}/data", (Permission(spec.domid, Access.NONE),))
        service.local.introduce(spec.domid)
        await console.expect("GUEST UP", 60)
        yield Inside(machine, console, service, spec.domid, status.guest_sockets)


async def test_the_port(machine: Machine, boot_with_tools: KernelBoot, directory: Path) -> None:
    """One guest for all: it takes seconds to boot."""
    async with running(machine, boot_with_tools, directory) as inside:
        async with joined(inside.service, inside.domid, inside.sockets) as ports:
            await reads_and_writes(inside)
            await an_agent_does_not_stand_in_the_way(inside)
            await rights_end_at_its_own(inside)
            await what_is_left_of_a_killed_program_goes(inside, ports)
            await a_guest_that_breaks_the_protocol_begins_anew(inside)
        async with joined(inside.service, inside.domid, inside.sockets):  # a later daemon
            assert await eventually(inside, "xenstore-read name") == "a machine"


async def eventually(inside: Inside, command: str) -> str:
    """A port is opened again a moment after it was closed."""
    return (await inside.run(f"until {command}; do usleep 50000; done 2>/dev/null")).splitlines()[-1].strip()


async def reads_and_writes(inside: Inside) -> None:
    assert await eventually(inside, "xenstore-read name") == "a machine"
    for number in range(3):
        await inside.run(f"xenstore-write data/number {number}")
    assert inside.service.local.read(f"{inside.home}/data/number") == b"2"
    assert 'number = "2"' in await inside.run("xenstore-ls data")


async def an_agent_does_not_stand_in_the_way(inside: Inside) -> None:
    """A port is one program's at a time, so that the agent has one of its own."""
    name = "cat /sys/class/virtio-ports/vport0p{}/name"
    assert await inside.run(name.format(1)) == "org.domzero.guest.0"
    assert await inside.run(name.format(2)) == "org.domzero.xenstore.0"
    assert "busy" in await inside.run("exec 5<>/dev/vport0p1; (exec 6<>/dev/vport0p1) 2>&1; true")
    assert await inside.run("xenstore-read name") == "a machine"
    await inside.run("exec 5>&-")


async def rights_end_at_its_own(inside: Inside) -> None:
    for path in ("/local/domain/0/secret", "/tool"):
        await inside.run(f"! xenstore-read {path} 2>/dev/null")
        await inside.run(f"! xenstore-write {path} 1 2>/dev/null")
    await inside.run("! xenstore-write name other 2>/dev/null")
    assert inside.service.local.read(f"{inside.home}/name") == b"a machine"


async def what_is_left_of_a_killed_program_goes(inside: Inside, ports: PortSockets) -> None:
    domain = inside.service.store.domains[inside.domid]
    await inside.run("xenstore-watch data > /dev/null 2>&1 &")

    async def is_watched() -> bool:
        return domain.watches > 0

    await until(is_watched)
    assert await inside.machine.hypervisor.guest_port_in_use(inside.domid, inside.sockets[1])
    seen: list[DomainEvent] = inside.machine.events.of(inside.domid)
    assert not seen or isinstance(seen[-1], GuestPortClosed)
    before = len([event for event in seen if isinstance(event, GuestPortClosed)])
    await inside.run("kill $(pidof xenstore-watch); true")

    async def closed() -> bool:
        events = inside.machine.events.of(inside.domid)
        return len([event for event in events if isinstance(event, GuestPortClosed)]) > before

    await until(closed)
    forget = ports.closing(inside.domid, inside.sockets[1])
    assert not await inside.machine.hypervisor.guest_port_in_use(inside.domid, inside.sockets[1])
    forget()
    assert domain.watches == 0
    assert await eventually(inside, "xenstore-read name") == "a machine"


async def a_guest_that_breaks_the_protocol_begins_anew(inside: Inside) -> None:
    await inside.run("head -c 4096 /dev/zero | tr '\\\\0' '\\\\377' > /dev/vport0p2; true")
    assert await eventually(inside, "xenstore-read name") == "a machine"


async def test_an_image_of_an_earlier_version_has_one_port(machine: Machine, guest: Guest) -> None:
    domain = machine.hypervisor._find(guest.domid)
    await domain.monitor.execute("device_del", id=names.TOOLS_PORT)
    image = machine.directory / "memory"
    image.touch()
    await machine.hypervisor.save(guest.domid, image)
    await machine.hypervisor.destroy(guest.domid)
    page = image.read_bytes()[: saving.HEADER_SIZE]
    assert b', "ports": 1' in page
    with image.open("r+b") as file:  # as it was written before there was a second one
        file.write(page.replace(b', "ports": 1', b"").ljust(saving.HEADER_SIZE, b"\0"))
    status = await machine.hypervisor.restore(guest.spec, image)
    assert status.serial_socket is not None
    async with Console(status.serial_socket) as console:
        assert await console.run("ls /sys/class/virtio-ports") == "vport0p1"
