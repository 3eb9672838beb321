"""Packets through our bridges, beside a bare cable and a bridge made by hand; and how long a card takes."""

from __future__ import annotations

import asyncio
import fcntl
import os
import statistics
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from bench.report import Row, Section, Target, spread
from domzero.host.network.bridge import BridgeNetwork
from domzero.host.network.plan import BridgeSpec, CardRules, LockingMode, NetworkPlan
from domzero.host.network.protocol import CardSpec
from domzero.host.network.tap import DEVICE, IFF_NO_PI, IFF_TAP, IFF_VNET_HDR, TUNSETIFF
from domzero.host.network.worker import NetworkThread

NOTES = """All in network namespaces. Throughput is one TCP connection between two namespaces: through a bridge of ours
with two virtual cables, beside one cable. Frames are of 1 000 bytes, written to one tap and read from another by the
same process: on a bridge of ours, open and locked, beside a bridge and taps made by ip(8). A card is timed from
`connect` until it may be opened, then until it is gone; beside it, the commands of ip(8) that do the same."""

ENOUGH, LOCKED, QUICK = Target(least=0.8), Target(least=0.7), Target(most=1.5)
FIRST, SECOND = "02:00:00:00:00:01", "02:00:00:00:00:02"
ADDRESS, BRIDGED = "192.0.2.1", "198.51.100.1"
FRAME = (
    bytes.fromhex((SECOND + FIRST).replace(":", ""))
    + struct.pack(">H", 0x0800)
    + struct.pack(">BBHHHBBH", 0x45, 0, 986, 0, 0, 64, 253, 0xF223)
    + bytes((192, 0, 2, 1, 192, 0, 2, 2))
    + bytes(966)
)
"""An IPv4 packet with a right checksum: the bridge looks at it where the kernel filters bridged packets."""

BATCH = 100
PATIENCE = 10.0

SERVE = """
import socket, sys, time
with socket.create_server((sys.argv[1], 5001)) as server:
    print("there", flush=True)
    connection, _ = server.accept()
    memory, total, begin = bytearray(1 << 20), 0, time.monotonic()
    while got := connection.recv_into(memory):
        total += got
    print(total / (time.monotonic() - begin), flush=True)
"""
SEND = """
import socket, sys, time
data = bytes(1 << 20)
with socket.create_connection((sys.argv[1], 5001), timeout=20) as connection:
    end = time.monotonic() + float(sys.argv[2])
    while time.monotonic() < end:
        connection.sendall(data)
"""


def measure(quick: bool) -> Section:
    """Needs root."""
    section = Section("Networks of Linux bridges", NOTES)
    if os.geteuid() != 0:
        section.add(Row("everything", None, "", "needs root"))
        return section
    asyncio.run(_measure(section, 2 if quick else 7, 0.3 if quick else 1.5))
    return section


async def _measure(section: Section, rounds: int, seconds: float) -> None:
    with namespace() as host, namespace() as first, namespace() as second, tempfile.TemporaryDirectory() as directory:
        backend, thread = BridgeNetwork(namespace=host, runtime=Path(directory)), NetworkThread(host)
        await thread.open()
        await backend.open()
        try:
            await _throughput(section, backend, (host, first, second), rounds, seconds)
            await _frames(section, backend, thread, host, rounds, seconds)
            await _cards(section, backend, host, rounds * 3)
        finally:
            await backend.apply(NetworkPlan())
            await backend.close()
            await thread.close()


async def _throughput(
    section: Section, backend: BridgeNetwork, places: tuple[Path, Path, Path], rounds: int, seconds: float
) -> None:
    host, first, second = places
    cable(first, "direct", second, "direct", (f"{ADDRESS}/24", "192.0.2.2/24"))
    cable(host, "eth1", first, "eth0", ("", f"{BRIDGED}/24"))
    cable(host, "eth2", second, "eth0", ("", "198.51.100.2/24"))
    await backend.apply(NetworkPlan(bridges=(BridgeSpec("xenbr1", uplink="eth1"),)))
    ip(host, "link", "set", "eth2", "master", "xenbr1")
    ours, bare = [], []
    for _ in range(rounds):
        ours.append(tcp(first, second, BRIDGED, seconds))
        bare.append(tcp(first, second, ADDRESS, seconds))
    ip(host, "link", "set", "eth2", "nomaster")
    row(section, "TCP through a bridge, to one cable", ours, bare, "Gbit/s", 8e-9, ENOUGH)


async def _frames(
    section: Section, backend: BridgeNetwork, thread: NetworkThread, host: Path, rounds: int, seconds: float
) -> None:
    ip(host, "link", "add", "bare", "type", "bridge", "forward_delay", "0")
    ip(host, "link", "set", "bare", "up")
    for name in ("bare1", "bare2"):
        ip(host, "tuntap", "add", name, "mode", "tap", "vnet_hdr")
        ip(host, "link", "set", name, "master", "bare", "up")
    locked = CardRules(LockingMode.LOCKED, (ADDRESS,))
    for domid, mac in ((1, FIRST), (2, SECOND)):
        await backend.connect(CardSpec(domid, 0, mac, 1500, "xapi1"))
    names = ("bare1", "bare2", "vif1.0", "vif2.0")
    taps = {name: await thread.run(lambda _, name=name: attach(name)) for name in names}  # type: ignore[misc]
    rates: dict[str, list[float]] = {"bare": [], "open": [], "locked": []}
    try:
        for _ in range(rounds):
            rates["bare"].append(rate(taps["bare1"], taps["bare2"], seconds))
            for kind, rules in (("open", CardRules()), ("locked", locked)):
                await backend.configure(CardSpec(1, 0, FIRST, 1500, "xapi1", rules))
                rates[kind].append(rate(taps["vif1.0"], taps["vif2.0"], seconds))
    finally:
        for descriptor in taps.values():
            os.close(descriptor)
        for domid in (1, 2):
            await backend.disconnect(domid, 0)
    row(section, "Frames from card to card, to a bridge by hand", rates["open"], rates["bare"], "/s", 1, ENOUGH)
    row(section, "Frames from a locked card, to a bridge by hand", rates["locked"], rates["bare"], "/s", 1, LOCKED)


async def _cards(section: Section, backend: BridgeNetwork, host: Path, rounds: int) -> None:
    locked = CardRules(LockingMode.LOCKED, (ADDRESS,), kilobytes_per_second=1024)
    await backend.connect(CardSpec(9, 0, SECOND, 1500, "xapi1"))
    times: dict[str, list[float]] = {"open": [], "locked": [], "bare": []}
    for _ in range(rounds):
        for kind, rules in (("open", CardRules()), ("locked", locked)):
            begin = time.monotonic()
            await backend.connect(CardSpec(1, 0, FIRST, 1500, "xapi1", rules))
            await backend.disconnect(1, 0)
            times[kind].append(time.monotonic() - begin)
        begin = time.monotonic()
        ip(host, "tuntap", "add", "bare3", "mode", "tap", "vnet_hdr", "user", "nobody", "group", "nogroup")
        ip(host, "link", "set", "bare3", "address", "fe:ff:ff:ff:ff:ff", "master", "bare", "up")
        ip(host, "link", "del", "bare3")
        times["bare"].append(time.monotonic() - begin)
    await backend.disconnect(9, 0)
    row(section, "A card, to the commands of ip", times["open"], times["bare"], "ms", 1e3, QUICK)
    row(section, "A locked and limited card, to the commands of ip", times["locked"], times["bare"], "ms", 1e3, None)


def row(
    section: Section,
    what: str,
    ours: Sequence[float],
    beside: Sequence[float],
    unit: str,
    scale: float,
    target: Target | None,
) -> None:
    """One comparison of medians."""
    ratio = statistics.median(ours) / statistics.median(beside)
    section.add(Row(what, ratio, spread(ours).text(unit, scale), spread(beside).text(unit, scale), target))


@contextmanager
def namespace() -> Iterator[Path]:
    """A network namespace that lasts as long as a child process."""
    argv = ["unshare", "--net", "sh", "-c", "ip link set lo up; echo there; exec cat"]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as holder:
        assert holder.stdin is not None
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"there\n"
        yield Path(f"/proc/{holder.pid}/ns/net")
        holder.stdin.close()


def ip(place: Path, *words: str) -> None:
    """ip(8) in a namespace."""
    subprocess.run(["nsenter", f"--net={place}", "ip", *words], check=True)


def cable(here: Path, near: str, there: Path, far: str, addresses: tuple[str, str]) -> None:
    """A virtual cable between two namespaces, switched on."""
    pid = there.parts[2]
    ip(here, "link", "add", near, "type", "veth", "peer", "name", far, "netns", pid)
    for place, name, address in ((here, near, addresses[0]), (there, far, addresses[1])):
        ip(place, "link", "set", name, "up")
        if address:
            ip(place, "addr", "add", address, "dev", name)


def attach(name: str) -> int:
    """A descriptor of a tap, as a machine has it."""
    descriptor = os.open(DEVICE, os.O_RDWR | os.O_CLOEXEC | os.O_NONBLOCK)
    fcntl.ioctl(descriptor, TUNSETIFF, struct.pack("16sH22x", name.encode(), IFF_TAP | IFF_NO_PI | IFF_VNET_HDR))
    return descriptor


def tcp(server: Path, client: Path, address: str, seconds: float) -> float:
    """Bytes a second of one connection to the server's address."""
    argv = ["nsenter", f"--net={server}", sys.executable, "-c", SERVE, address]
    asking = ["nsenter", f"--net={client}", sys.executable, "-c", SEND, address, str(seconds)]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True) as serving:
        assert serving.stdout is not None
        assert serving.stdout.readline() == "there\n"
        subprocess.run(asking, check=True, timeout=60)
        return float(serving.stdout.readline())


def rate(sender: int, receiver: int, seconds: float) -> float:
    """Frames a second that arrive, of batches that are read before the next is written.

    A port forwards some time after its carrier came: the clock starts when a frame has arrived.
    """
    data, arrived = bytes(10) + FRAME, 0

    def count(frame: bytes) -> None:
        nonlocal arrived
        arrived += len(frame) == len(data)

    begin = time.monotonic()
    while not arrived:
        if time.monotonic() - begin > PATIENCE:
            raise TimeoutError("nothing arrives")
        os.write(sender, data)
        _drain(receiver, count)
    arrived, begin = 0, time.monotonic()
    while time.monotonic() - begin < seconds:
        for _ in range(BATCH):
            os.write(sender, data)
        _drain(receiver, count)
    return arrived / (time.monotonic() - begin)


def _drain(receiver: int, take: Callable[[bytes], None]) -> None:
    with suppress(BlockingIOError):
        while True:
            take(os.read(receiver, 4096))
