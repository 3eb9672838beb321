"""Hosts whose networks are Open vSwitch's, each with a switch of its own."""

from __future__ import annotations

import os
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from domzero.host.network.openvswitch.backend import USER_SPACE, OpenVSwitchNetwork
from domzero.host.network.plan import NetworkPlan
from domzero.host.network.tap import TapOwner
from tests.host.network.stage import Host
from tests.host.network.switch import TestSwitch, switch_in

NEEDS = [
    pytest.mark.root,
    pytest.mark.slow,
    pytest.mark.skipif(os.geteuid() != 0, reason="makes interfaces"),
    pytest.mark.skipif(shutil.which("ovs-vswitchd") is None, reason="needs Open vSwitch"),
]
FIRST_MAC, SECOND_MAC = "02:00:00:00:00:71", "02:00:00:00:00:72"


class SwitchedHost(Host):
    """As `Host`; machines' frames carry virtio headers here, too, which the switch does not see."""

    def __init__(self, namespace: Path, directory: Path, switch: TestSwitch, datapath: str) -> None:
        self.switch = switch
        self.datapath = datapath
        super().__init__(namespace, directory)

    def another(self) -> OpenVSwitchNetwork:
        return OpenVSwitchNetwork(
            namespace=self.namespace,
            facts=self.facts,
            owner=TapOwner(12345, 23456),
            runtime=self.directory / "network",
            resolver=self.resolver,
            switch=self.switch.directory,
            datapath=self.datapath,
        )

    def bridge_of(self, port: str) -> str:
        """The network that a port is on."""
        return self.switch.control("port-to-br", port).strip()


@asynccontextmanager
async def switched_host(namespace: Path, directory: Path, datapath: str = USER_SPACE) -> AsyncIterator[SwitchedHost]:
    """A host in a namespace; `directory` is there, and its own. In the end nothing of ours is left in its switch."""
    with switch_in(namespace, directory / "ovs") as switch:
        host = SwitchedHost(namespace, directory, switch, datapath)
        await host.thread.open()
        await host.backend.open()
        try:
            yield host
            await host.backend.retain(set())
            await host.backend.apply(NetworkPlan())
            assert [name for name in switch.control("list-br").split() if name != "foreign"] == []
        finally:
            await host.backend.close()
            await host.thread.close()


@asynccontextmanager
async def host_with_cables(
    namespace: Path, elsewhere: Path, directory: Path, datapath: str = USER_SPACE
) -> AsyncIterator[SwitchedHost]:
    """A host with two interfaces, eth1 and eth2; the first has addresses and a route that an operator gave it."""
    async with switched_host(namespace, directory, datapath) as host:
        await host.interface("eth1", elsewhere, FIRST_MAC, "203.0.113.5/24", "2001:db8:5::5/64")
        await host.interface("eth2", elsewhere, SECOND_MAC)
        await host.kernel("route", "add", dst="default", gateway="203.0.113.1", oif="eth1")
        yield host


@asynccontextmanager
async def far_ends(elsewhere: Path, directory: Path) -> AsyncIterator[tuple[int, int]]:
    """The other ends of these cables, as machines' taps are."""
    outside = Host(elsewhere, directory)
    await outside.thread.open()
    ends = [await cable_end(outside, f"far-eth{number}") for number in (1, 2)]
    yield ends[0], ends[1]
    for end in ends:
        os.close(end)
    await outside.thread.close()


async def cable_end(host: Host, name: str) -> int:
    """A descriptor of an interface of a namespace, to be read and written as a machine's tap is: it is a tap, on a
    bridge with the interface."""
    tap, bridge = f"tap-{name}"[:15], f"br-{name}"[:15]
    descriptor = await host.machine(tap)
    await host.kernel("link", "add", ifname=bridge, kind="bridge", br_stp_state=0, br_forward_delay=0)
    for port in (tap, name):
        await host.kernel("link", "set", index=port, master=bridge)
        await host.kernel("link", "set", index=port, state="up")
    await host.kernel("link", "set", index=bridge, state="up")
    return descriptor


def in_vlan(tag: int, plain: bytes) -> bytes:
    """A frame with a tag."""
    return plain[:12] + bytes((0x81, 0, tag >> 8, tag & 255)) + plain[12:]
