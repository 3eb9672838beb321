"""Packets through Open vSwitch in user space, beside a bare cable and a switch set up by hand."""

from __future__ import annotations

import asyncio
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from bench.networks import ADDRESS, BRIDGED, FIRST, SECOND, attach, cable, ip, namespace, rate, row, tcp
from bench.report import Row, Section, Target
from domzero.host.network.openvswitch.backend import OpenVSwitchNetwork
from domzero.host.network.plan import BridgeSpec, CardRules, LockingMode, NetworkPlan
from domzero.host.network.protocol import CardSpec
from domzero.host.network.worker import NetworkThread

NOTES = """As `Networks of Linux bridges`, on an Open vSwitch with its user-space datapath, whose switch is a process in
the namespace. The cables' far ends complete their checksums, which this datapath does not. By hand: the same by
ovs-vsctl(8)."""

ENOUGH, LOCKED = Target(least=0.8), Target(least=0.7)
SCHEMA = Path("/usr/share/openvswitch/vswitch.ovsschema")


def measure(quick: bool) -> Section:
    """Needs root and Open vSwitch."""
    section = Section("Networks of Open vSwitch", NOTES)
    if os.geteuid() != 0 or shutil.which("ovs-vswitchd") is None:
        section.add(Row("everything", None, "", "needs root and Open vSwitch"))
        return section
    asyncio.run(_measure(section, 2 if quick else 7, 0.3 if quick else 1.5))
    return section


async def _measure(section: Section, rounds: int, seconds: float) -> None:
    with namespace() as host, namespace() as first, namespace() as second, tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        with switch(host, directory) as control:
            backend = OpenVSwitchNetwork(namespace=host, runtime=directory, switch=directory, datapath="netdev")
            thread = NetworkThread(host)
            await thread.open()
            await backend.open()
            try:
                await _throughput(section, backend, control, (host, first, second), rounds, seconds)
                await _frames(section, backend, control, thread, host, rounds, seconds)
                await _cards(section, backend, control, host, rounds * 2)
            finally:
                await backend.apply(NetworkPlan())
                await backend.close()
                await thread.close()


class Control:
    """ovs-vsctl(8) by hand."""

    def __init__(self, directory: Path) -> None:
        self._words = ("ovs-vsctl", f"--db=unix:{directory / 'db.sock'}", "--timeout=20")

    def __call__(self, *words: str) -> None:
        subprocess.run([*self._words, *words], check=True)


async def _throughput(
    section: Section,
    backend: OpenVSwitchNetwork,
    control: Control,
    places: tuple[Path, Path, Path],
    rounds: int,
    seconds: float,
) -> None:
    host, first, second = places
    cable(first, "direct", second, "direct", (f"{ADDRESS}/24", "192.0.2.2/24"))
    cable(host, "eth1", first, "eth0", ("", f"{BRIDGED}/24"))
    cable(host, "eth2", second, "eth0", ("", "198.51.100.2/24"))
    for place in (first, second):
        whole_checksums(place, "eth0")
    ours, by_hand, bare = [], [], []
    for _ in range(rounds):
        await backend.apply(NetworkPlan(bridges=(BridgeSpec("xenbr1", uplink="eth1"),)))
        control("add-port", "xenbr1", "eth2")
        ours.append(tcp(first, second, BRIDGED, seconds))
        control("del-port", "xenbr1", "eth2")
        await backend.apply(NetworkPlan())
        control("add-br", "hand", "--", "set", "Bridge", "hand", "datapath_type=netdev")
        control("add-port", "hand", "eth1", "--", "add-port", "hand", "eth2")
        by_hand.append(tcp(first, second, BRIDGED, seconds))
        control("del-br", "hand")
        bare.append(tcp(first, second, ADDRESS, seconds))
    row(section, "TCP through a bridge, to one made by hand", ours, by_hand, "Gbit/s", 8e-9, ENOUGH)
    row(section, "TCP through a bridge, to one cable", ours, bare, "Gbit/s", 8e-9, None)


async def _frames(
    section: Section,
    backend: OpenVSwitchNetwork,
    control: Control,
    thread: NetworkThread,
    host: Path,
    rounds: int,
    seconds: float,
) -> None:
    locked = CardRules(LockingMode.LOCKED, (ADDRESS,))
    taps: dict[str, int] = {}
    for name in ("hand1", "hand2"):
        taps[name] = await thread.run(lambda _, name=name: attach(name))  # type: ignore[misc]
        ip(host, "link", "set", name, "up")
    control("add-br", "hand", "--", "set", "Bridge", "hand", "datapath_type=netdev")
    control("add-port", "hand", "hand1", "--", "add-port", "hand", "hand2")
    for domid, mac in ((1, FIRST), (2, SECOND)):
        await backend.connect(CardSpec(domid, 0, mac, 1500, "xapi1"))
        taps[f"vif{domid}.0"] = await thread.run(lambda _, domid=domid: attach(f"vif{domid}.0"))  # type: ignore[misc]
    rates: dict[str, list[float]] = {"hand": [], "open": [], "locked": []}
    try:
        for _ in range(rounds):
            rates["hand"].append(rate(taps["hand1"], taps["hand2"], seconds))
            for kind, rules in (("open", CardRules()), ("locked", locked)):
                await backend.configure(CardSpec(1, 0, FIRST, 1500, "xapi1", rules))
                rates[kind].append(rate(taps["vif1.0"], taps["vif2.0"], seconds))
    finally:
        control("del-br", "hand")
        for descriptor in taps.values():
            os.close(descriptor)
        for domid in (1, 2):
            await backend.disconnect(domid, 0)
    row(section, "Frames from card to card, to a bridge by hand", rates["open"], rates["hand"], "/s", 1, ENOUGH)
    row(section, "Frames from a locked card, to a bridge by hand", rates["locked"], rates["hand"], "/s", 1, LOCKED)


async def _cards(section: Section, backend: OpenVSwitchNetwork, control: Control, host: Path, rounds: int) -> None:
    await backend.connect(CardSpec(9, 0, SECOND, 1500, "xapi1"))
    ours, by_hand = [], []
    for _ in range(rounds):
        begin = time.monotonic()
        await backend.connect(CardSpec(1, 0, FIRST, 1500, "xapi1"))
        await backend.disconnect(1, 0)
        ours.append(time.monotonic() - begin)
        begin = time.monotonic()
        ip(host, "tuntap", "add", "hand3", "mode", "tap")
        control("add-port", "xapi1", "hand3")
        control("del-port", "xapi1", "hand3")
        ip(host, "link", "del", "hand3")
        by_hand.append(time.monotonic() - begin)
    await backend.disconnect(9, 0)
    row(section, "A card, to the same by ip and ovs-vsctl", ours, by_hand, "ms", 1e3, None)


def whole_checksums(place: Path, name: str) -> None:
    """Let an interface in a namespace send nothing that somebody else would have to complete."""
    argv = ["nsenter", f"--net={place}", "ethtool", "-K", name, "tx", "off"]
    subprocess.run(argv, check=True, stdout=subprocess.DEVNULL)


@contextmanager
def switch(place: Path, directory: Path) -> Iterator[Control]:
    """An Open vSwitch in a namespace, its sockets in a directory."""
    database, address = directory / "conf.db", f"unix:{directory / 'db.sock'}"
    environment = {"OVS_RUNDIR": str(directory), "PATH": "/usr/sbin:/usr/bin:/sbin:/bin"}
    subprocess.run(["ovsdb-tool", "create", database, SCHEMA], check=True)
    programs = (["ovsdb-server", str(database), f"--remote=p{address}"], ["ovs-vswitchd", address])
    running: list[subprocess.Popen[bytes]] = []
    control = Control(directory)
    try:
        for program in programs:
            argv = ["nsenter", f"--net={place}", *program]
            running.append(subprocess.Popen(argv, env=environment, stderr=subprocess.DEVNULL))
            while not (directory / "db.sock").exists():
                time.sleep(0.01)
            control("--no-wait", "init")
        control("set", "Open_vSwitch", ".", "external_ids:system-id=bench")
        yield control
    finally:
        for child in reversed(running):
            child.terminate()
            child.wait(20)
