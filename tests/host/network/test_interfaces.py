"""What is read from sysfs, the PCI list and the resolver's file; and the listing of this machine."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from domzero.host.clock import ManualClock
from domzero.host.hypervisor.spec import TapBackend, UserBackend
from domzero.host.network.interfaces import (
    Hardware,
    InterfaceFacts,
    is_useful,
    read_hardware,
    read_name_servers,
    read_pci_names,
)
from domzero.host.network.links import MARK, Link
from domzero.host.network.protocol import CardSpec, NetworkBackend, NetworkError, TrafficCounters
from domzero.host.network.sim import SimNetwork
from domzero.host.network.user import UserNetwork

ETH0 = Link(2, "eth0", "", "02:00:00:00:00:01", 1500, 0, 0, True, False, True, False, 10, 20)
PCI_IDS = """# a comment
1af4  Red Hat, Inc.
\t1000  Virtio network device
\t\t01af4 0001  A subsystem
8086  Intel Corporation
\t10d3  82574L Gigabit Network Connection
\t1000  Another card
C 02  Network controller
\t00  Ethernet controller
"""


@pytest.mark.parametrize(
    ("change", "useful"),
    [
        ({}, True),
        ({"master": 7}, True),
        ({"kind": "bond"}, True),
        ({"kind": "macvlan"}, True),
        ({"kind": "veth", "peer_elsewhere": True}, True),
        ({"kind": "veth", "peer_elsewhere": True, "master": 7}, False),
        ({"kind": "veth"}, False),
        ({"kind": "bridge"}, False),
        ({"kind": "tun"}, False),
        ({"kind": "ifb"}, False),
        ({"group": MARK}, False),
        ({"is_loopback": True}, False),
        ({"is_ethernet": False}, False),
    ],
)
def test_which_interfaces_are_listed(change: dict[str, object], useful: bool) -> None:
    link = dataclasses.replace(ETH0, **change)  # type: ignore[arg-type]  # fields of several types
    assert is_useful(link) is useful


def test_an_uplink_of_ours_is_listed_still() -> None:
    link = dataclasses.replace(ETH0, kind="veth", peer_elsewhere=True, master=7)
    assert is_useful(link, on_ours=True)


def sysfs(root: Path) -> Path:
    device = root / "devices" / "pci0000:00" / "0000:00:03.0"
    interface = device / "virtio2" / "net" / "eth0"
    interface.mkdir(parents=True)
    (device / "vendor").write_text("0x1af4\n")
    (device / "device").write_text("0x1000\n")
    (device / "virtio2" / "vendor").write_text("0xffff\n")
    (interface / "device").symlink_to("../../../virtio2")
    (root / "class" / "net").mkdir(parents=True)
    (root / "class" / "net" / "eth0").symlink_to("../../devices/pci0000:00/0000:00:03.0/virtio2/net/eth0")
    return root


def test_hardware_is_read_from_the_pci_device(tmp_path: Path) -> None:
    assert read_hardware(sysfs(tmp_path), "eth0") == Hardware("1af4", "1000", "0000:00:03.0")
    assert read_hardware(tmp_path, "none") == Hardware("", "", "")


def test_pci_names(tmp_path: Path) -> None:
    path = tmp_path / "pci.ids"
    path.write_text(PCI_IDS)
    wanted = {("1af4", "1000"), ("8086", "10d3"), ("8086", "ffff"), ("ffff", "1000")}
    vendors, devices = read_pci_names((tmp_path / "none", path), wanted)
    assert vendors == {"1af4": "Red Hat, Inc.", "8086": "Intel Corporation"}
    assert devices == {
        ("1af4", "1000"): "Virtio network device",
        ("8086", "10d3"): "82574L Gigabit Network Connection",
    }
    assert read_pci_names((tmp_path / "none",), wanted) == ({}, {})


def test_name_servers(tmp_path: Path) -> None:
    path = tmp_path / "resolv.conf"
    path.write_text("# x\nsearch example.org\nnameserver 192.0.2.1\nnameserver nonsense\nnameserver fe80::1%eth0 #\n")
    assert read_name_servers(path) == ("192.0.2.1", "fe80::1%eth0")
    assert read_name_servers(tmp_path / "none") == ()


async def test_this_machine_can_be_listed_without_rights(tmp_path: Path) -> None:
    backend: NetworkBackend = UserNetwork(facts=InterfaceFacts(sysfs(tmp_path), tmp_path / "none", ()))
    with pytest.raises(NetworkError, match="not open"):
        await backend.interfaces()
    await backend.open()
    await backend.open()
    names = [interface.name for interface in await backend.interfaces()]
    assert "lo" not in names
    assert len(set(names)) == len(names)
    assert backend.mode() == "user"
    assert await backend.connect(CardSpec(1, 0, "02:00:00:00:00:01", 1500, "xapi0")) == UserBackend()
    await backend.retain(set())
    await backend.disconnect(1, 0)
    with pytest.raises(NetworkError, match="not counted"):
        await backend.counters(1, 0)
    await backend.close()
    await backend.close()


async def test_the_simulated_network() -> None:
    clock = ManualClock()
    sim = SimNetwork(clock)
    backend: NetworkBackend = sim
    await backend.open()
    assert [interface.name for interface in await backend.interfaces()] == ["eth0", "eth1"]
    assert await backend.connect(CardSpec(1, 0, "02:00:00:00:00:01", 1500, "xapi0")) == TapBackend("vif1.0")
    await backend.connect(CardSpec(2, 1, "02:00:00:00:00:02", 1500, ""))
    assert sim.bridges() == {"xapi0"}
    await clock.advance(2)
    await backend.connect(CardSpec(1, 0, "02:00:00:00:00:01", 1500, "xapi1"))
    assert await backend.counters(1, 0) == TrafficCounters(4000, 1000)
    await backend.retain({2})
    assert sim.bridges() == frozenset()
    await backend.disconnect(2, 1)
    await backend.disconnect(2, 1)
    for card in ((1, 0), (2, 1)):
        with pytest.raises(NetworkError):
            await backend.counters(*card)
    assert backend.mode() == "sim"
    await backend.close()
