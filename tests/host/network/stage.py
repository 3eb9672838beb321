"""What the tests of the network backends stand on: network namespaces, machines that are descriptors, plain frames.

Nothing here ever works in the namespace of the machine itself.
"""

from __future__ import annotations

import asyncio
import fcntl
import math
import os
import struct
import subprocess
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from pyroute2 import IPRoute  # type: ignore[import-untyped]  # the library has no types

from domzero.host.network.bridge import BridgeNetwork
from domzero.host.network.interfaces import InterfaceFacts
from domzero.host.network.links import Link, Links
from domzero.host.network.plan import CardRules
from domzero.host.network.protocol import CardSpec, NetworkBackend
from domzero.host.network.tap import DEVICE, IFF_NO_PI, IFF_TAP, IFF_VNET_HDR, TUNSETIFF, TapOwner
from domzero.host.network.worker import NetworkThread

GUEST = "02:00:00:00:00:01"
BROADCAST = "ff:ff:ff:ff:ff:ff"
EXPERIMENT = 0x88B5
"""An Ethernet type reserved for local experiments (IEEE 802)."""

VIRTIO_HEADER = bytes(10)


@contextmanager
def network_namespace() -> Iterator[Path]:
    """A network namespace that lasts as long as a child process."""
    argv = ["unshare", "--net", "sh", "-c", "echo there; exec cat"]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as holder:
        assert holder.stdin is not None
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"there\n"
        yield Path(f"/proc/{holder.pid}/ns/net")
        holder.stdin.close()


class Host:
    """A backend and a second view of its namespace."""

    def __init__(self, namespace: Path, directory: Path, facts: InterfaceFacts | None = None) -> None:
        self.namespace = namespace
        self.directory = directory
        self.resolver = directory / "resolv.conf"
        self.facts = facts or InterfaceFacts(directory, self.resolver, ())
        self.backend = self.another()
        self.thread = NetworkThread(namespace)

    def another(self) -> NetworkBackend:
        """A backend of the same place, as of a daemon that was started again."""
        return BridgeNetwork(
            namespace=self.namespace,
            facts=self.facts,
            owner=TapOwner(12345, 23456),
            runtime=self.directory / "network",
            resolver=self.resolver,
        )

    async def links(self) -> dict[str, Link]:
        return {link.name: link for link in await self.thread.run(Links.all)}

    async def names(self) -> set[str]:
        return set(await self.links()) - {"lo"}

    async def kernel(self, *verb: str, **settings: object) -> None:
        """Do what an operator would do by hand."""

        def act(_: Links) -> None:
            with IPRoute() as route:
                for key in ("index", "master", "oif"):
                    if isinstance(settings.get(key), str):
                        settings[key] = route.link_lookup(ifname=settings[key])[0]
                getattr(route, verb[0])(verb[1], **settings)

        await self.thread.run(act)

    async def interface(self, name: str, elsewhere: Path, mac: str, *addresses: str) -> None:
        """Something like a physical interface: one end of a cable whose other end is in another namespace."""
        far = {"ifname": f"far-{name}", "net_ns_fd": str(elsewhere)}
        await self.kernel("link", "add", ifname=name, kind="veth", address=mac, peer=far)
        await self.kernel("link", "set", index=name, state="up")
        for address in addresses:
            plain, _, length = address.partition("/")
            await self.kernel("addr", "add", index=name, address=plain, prefixlen=int(length))

    async def addresses(self, name: str) -> set[str]:
        """Link-local ones left out."""
        index = (await self.links())[name].index
        return {address for address in (await self.thread.run(Links.addresses)).get(index, ()) if address[:4] != "fe80"}

    async def machine(self, name: str) -> int:
        """A descriptor of the tap, as a machine has it."""

        def attach(_: Links) -> int:
            descriptor = os.open(DEVICE, os.O_RDWR | os.O_CLOEXEC | os.O_NONBLOCK)
            flags = IFF_TAP | IFF_NO_PI | IFF_VNET_HDR
            fcntl.ioctl(descriptor, TUNSETIFF, struct.pack("16sH22x", name.encode(), flags))
            return descriptor

        return await self.thread.run(attach)

    async def command(self, *argv: str) -> str:
        """What a program says that runs in the namespace."""
        line = self.thread.command(argv)
        done = await asyncio.to_thread(subprocess.run, line, check=True, stdout=subprocess.PIPE, text=True, timeout=20)
        return done.stdout


def card(
    domid: int = 1,
    slot: int = 0,
    bridge: str = "xapi0",
    mtu: int = 1500,
    mac: str = GUEST,
    rules: CardRules | None = None,
) -> CardSpec:
    return CardSpec(domid, slot, mac, mtu, bridge, rules or CardRules())


def frame(source: str, target: str = BROADCAST, payload: bytes = b"", kind: int = EXPERIMENT) -> bytes:
    """An Ethernet frame."""
    head = bytes.fromhex(target.replace(":", "") + source.replace(":", "")) + struct.pack(">H", kind)
    return head + payload.ljust(46, b"\0")


def send(machine: int, data: bytes) -> None:
    """Let a machine send a frame."""
    os.write(machine, VIRTIO_HEADER + data)


def received(machine: int) -> list[bytes]:
    """The frames that have come to a machine by now."""
    frames = []
    with suppress(BlockingIOError):
        while data := os.read(machine, 70000):
            frames.append(data[len(VIRTIO_HEADER) :])
    return frames


async def exchange(sender: int, receiver: int, data: list[bytes], marker: bytes) -> list[bytes]:
    """Let one machine send frames and, at last, a marker, which must come through: what came to the other before it.

    A port forwards some time after its carrier came, so that markers alone are sent until one arrives. A switch may
    think about the first frame of a kind while others pass it by: where not all came, they are sent once more.
    """
    await reach(sender, receiver, marker)
    received(receiver)
    for _ in range(2):
        for one in data:
            send(sender, one)
        arrived = [one for one in await reach(sender, receiver, marker) if one != marker]
        if arrived == data:
            return arrived
    return list(dict.fromkeys(arrived))


async def comes_to(measure: Callable[[], Awaitable[float]], least: float, most: float = math.inf) -> None:
    """Measure until it is more than `least`: where the machine is busy with something else not every measurement is.
    None may be `most`. Raises `TimeoutError` after half a minute.
    """
    async with asyncio.timeout(30):
        found = 0.0
        while found <= least:
            found = await measure()
            assert found < most


async def reach(sender: int, receiver: int, marker: bytes) -> list[bytes]:
    """Send the marker until it arrives: everything that did. Raises `TimeoutError` after half a minute."""
    return await passes(sender, marker, receiver, marker)


async def passes(sender: int, data: bytes, receiver: int, wanted: bytes) -> list[bytes]:
    """Send a frame until it arrives as the frame wanted: everything that did. `TimeoutError` after half a minute.

    A port that has just come passes on nothing for a moment.
    """
    arrived: list[bytes] = []
    loop = asyncio.get_running_loop()
    readable = asyncio.Event()
    loop.add_reader(receiver, readable.set)
    try:
        async with asyncio.timeout(30):
            while wanted not in arrived:
                send(sender, data)
                with suppress(TimeoutError):
                    async with asyncio.timeout(0.05):
                        await readable.wait()
                readable.clear()
                arrived += received(receiver)
    finally:
        loop.remove_reader(receiver)
    return arrived
