"""A guest that is made of files below a directory, and programs that are only written down."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

from guest.domzero_guest import commands, settings, system
from guest.domzero_guest.agent import Agent
from guest.domzero_guest.desktop import Desktop
from guest.domzero_guest.netlink import Address
from guest.domzero_guest.report import Space

from domzero.wire.xenstore import Operation
from tests.host.xenstore.peers import Host, Peer, until

HOME = b"/local/domain/1/"
MAC = "02:00:00:00:00:01"
FILES = {
    "etc/os-release": 'PRETTY_NAME="Example Linux 9.4 (Nine)"\nID=example\nVERSION_ID="9.4"\n',
    "proc/meminfo": "MemTotal:        1000000 kB\nMemFree:          100000 kB\nMemAvailable:     400000 kB\n",
    "proc/sys/kernel/osrelease": "6.1.0-example\n",
    "proc/sys/kernel/sysrq": "1\n",
    "proc/sysrq-trigger": "",
    "proc/self/mountinfo": "22 1 254:1 / / rw,relatime shared:1 - ext4 /dev/vda1 rw\n",
    "sys/class/net/ens3/ifindex": "2\n",
    "sys/class/net/ens3/address": MAC + "\n",
    "sys/class/net/ens3/device/vendor": "0x1af4\n",
    "sys/class/rtc/rtc0/since_epoch": "1000\n",
    "sys/devices/system/cpu/cpu0/topology/core_id": "0\n",
    "sys/devices/system/cpu/cpu1/online": "0\n",
    "sys/devices/system/cpu/cpu2/online": "1\n",
    "run/systemd/system/units": "",
}


@dataclass
class Guest:
    """What is below `root`, what was run, and what programs answer (0 where nothing is said)."""

    root: Path
    ran: list[tuple[str, ...]] = field(default_factory=list)
    codes: dict[tuple[str, ...], int] = field(default_factory=dict)
    output: dict[tuple[str, ...], bytes] = field(default_factory=dict)
    addresses: list[Address] = field(default_factory=lambda: [Address(2, socket.AF_INET, 0, "192.0.2.10")])
    clock: list[float] = field(default_factory=list)
    syncs: int = 0
    now: float = 1000.0

    def __post_init__(self) -> None:
        for name, text in FILES.items():
            self.write(name, text)

    def write(self, name: str, text: str) -> None:
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        # At once, as the kernel's files change: the agent may look at any moment.
        being_written = self.root / "being-written"
        being_written.write_text(text)
        being_written.replace(path)

    def read(self, name: str) -> str:
        return (self.root / name).read_text()

    def run(self, arguments: Sequence[str]) -> commands.Done:
        """Notes what would have been run. xrdp's state follows from what was asked of systemctl."""
        row = tuple(arguments)
        self.ran.append(row)
        if row == ("systemctl", "is-active", "--quiet", "xrdp.service"):
            switched = [
                ran[1] for ran in self.ran if ran[:1] == ("systemctl",) and ran[-1] == row[-1] and "--now" in ran
            ]
            return commands.Done(0 if switched[-1:] == ["enable"] else 3, b"")
        return commands.Done(self.codes.get(row, 0), self.output.get(row, b""))

    def system(self) -> system.System:
        def sync() -> None:
            self.syncs += 1

        return system.System(
            root=str(self.root),
            run=self.run,
            addresses=lambda: list(self.addresses),
            now=lambda: self.now,
            set_clock=self.clock.append,
            sync=sync,
            space=lambda _: Space(1_000_000, 500_000),
        )

    def desktop(self, choice: str = "auto") -> Desktop:
        return Desktop(self.run, choice, str(self.root / "var/lib/domzero-guest/remote-desktop"))

    @asynccontextmanager
    async def agent(self, socket_path: Path, choice: str = "auto") -> AsyncIterator[Agent]:
        """The agent, running in a thread until the end of the block; what it raises, is raised there."""
        agent = Agent(settings.Settings((str(socket_path),), choice), self.system(), self.desktop(choice))
        running = asyncio.create_task(asyncio.to_thread(agent.run))
        try:
            yield agent
        finally:
            if not running.done():
                agent.stop()
            await running


async def populate(serving: Host) -> Peer:
    """What the toolstack tells domain 1 before it starts; a connection of the host's."""
    host = await serving.peer()
    await host.ask(Operation.WRITE, HOME[:-1] + b"\0")
    await host.ask(Operation.SET_PERMS, HOME[:-1] + b"\0n0\0r1\0")
    for directory in (b"attr", b"control", b"data", b"feature"):
        await host.ask(Operation.WRITE, HOME + directory + b"\0")
        await host.ask(Operation.SET_PERMS, HOME + directory + b"\0n1\0")
    told = {
        b"domid": b"1",
        b"device/vif/0/mac": MAC.encode(),
        b"cpu/0/availability": b"online",
        b"cpu/1/availability": b"offline",
        b"cpu/2/availability": b"online",
    }
    for path, value in told.items():
        await host.ask(Operation.WRITE, HOME + path + b"\0" + value)
    return host


def value(serving: Host, path: str, domid: int = 1) -> bytes | None:
    """What the store holds, None where it holds nothing."""
    from domzero.host.xenstore.local import LocalXenstore

    local = LocalXenstore(serving.store)
    place = f"/local/domain/{domid}/{path}"
    return local.read(place) if local.exists(place) else None


async def told(serving: Host, path: str, wanted: bytes | None) -> None:
    """Wait until the store says so."""
    await until(lambda: value(serving, path) == wanted)


async def ask(host: Peer, path: bytes, what: bytes) -> None:
    """Write something for domain 1."""
    assert await host.ask(Operation.WRITE, HOME + path + b"\0" + what) == b"OK\0"
