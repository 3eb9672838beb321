"""What is there again after the daemon, or the switch, has been started anew."""

from __future__ import annotations

import asyncio
import os

import pytest

from domzero.host.network.openvswitch.backend import OpenVSwitchNetwork
from domzero.host.network.plan import (
    AddressMode,
    AddressSpec,
    BridgeSpec,
    CardRules,
    DhcpServer,
    LockingMode,
    NetworkPlan,
)
from domzero.host.network.protocol import NetworkError
from tests.host.network.packets import ARP, arp
from tests.host.network.stage import GUEST, card, exchange, frame, reach, received, send
from tests.host.network.switched import NEEDS, SwitchedHost

pytestmark = NEEDS

OWN, OTHER, THIRD = "192.0.2.1", "02:00:00:00:00:02", "02:00:00:00:00:03"
LOCKED = CardRules(LockingMode.LOCKED, (OWN,), kilobytes_per_second=2000)
MARKER = frame(GUEST, payload=arp(GUEST, OWN, "192.0.2.123"), kind=ARP)
FORGED = frame(GUEST, payload=arp(GUEST, "192.0.2.66"), kind=ARP)
STATIC = AddressSpec(AddressMode.STATIC, "198.51.100.1/24")
PLAN = NetworkPlan(
    bridges=(
        BridgeSpec("xenbr1", uplink="eth1", addresses=STATIC),
        BridgeSpec("xapi7", uplink="eth1", tag=7),
        BridgeSpec("xapi5", dhcp_server=DhcpServer("192.0.2.200/24", "192.0.2.100", "192.0.2.150")),
    )
)


async def settled(host: SwitchedHost) -> None:
    """A plan carried out, and three cards on one of its networks: locked, open, disabled."""
    await host.backend.apply(PLAN)
    await host.backend.connect(card(1, bridge="xapi7", rules=LOCKED))
    await host.backend.connect(card(2, bridge="xapi7", mac=OTHER))
    await host.backend.connect(card(3, bridge="xapi7", mac=THIRD, rules=CardRules(LockingMode.DISABLED)))


async def test_another_daemon_finds_everything_and_tidies_what_has_gone(switched: SwitchedHost) -> None:
    await settled(switched)
    machines = [await switched.machine(f"vif{domid}.0") for domid in (1, 2)]
    before = switched.switch.flows("xenbr1")
    await switched.backend.close()
    switched.backend = switched.another()
    await switched.backend.open()
    # Nobody has the third card's tap open, so that it went, and its flows with it.
    left = switched.switch.flows("xenbr1")
    assert len(left) == len(before) - 1
    assert set(left) < set(before)
    assert "vif3.0" not in await switched.names()
    assert "vif3.0" not in switched.switch.control("show")
    assert await exchange(machines[0], machines[1], [FORGED], MARKER) == []
    assert set(switched.switch.control("list-br").split()) == {"xenbr1", "xapi7", "xapi5"}
    await switched.backend.apply(PLAN)
    assert switched.switch.flows("xenbr1") == left
    for machine in machines:
        os.close(machine)
    await switched.kernel("link", "del", index="vif1.0")
    await switched.backend.retain({1, 2})
    assert "vif1.0" not in switched.switch.control("show")
    assert "vif2.0" in switched.switch.control("show")


@pytest.mark.parametrize("away", [False, True], ids=["under a daemon", "under none"])
@pytest.mark.parametrize("cleanup", [False, True], ids=["killed", "cleaned away"])
async def test_a_switch_that_returns_gets_its_flows_and_addresses_back(
    switched: SwitchedHost, cleanup: bool, away: bool
) -> None:
    await settled(switched)
    machines = [await switched.machine(f"vif{domid}.0") for domid in (1, 2, 3)]
    before = switched.switch.flows("xenbr1")
    served = await leases(switched)
    assert len(served) == 1
    if away:
        await switched.backend.close()
    switched.switch.stop(cleanup=cleanup)
    switched.switch.start()
    if away:
        assert switched.switch.flows("xenbr1") == []
        switched.backend = switched.another()
        await switched.backend.open()
        assert switched.switch.flows("xenbr1") == before
        await switched.backend.apply(PLAN)
    await settle(switched, served if cleanup else [], before)
    assert await leases(switched) == served or cleanup
    assert await exchange(machines[0], machines[1], [FORGED], MARKER) == []
    await reach(machines[1], machines[0], frame(OTHER))
    assert received(machines[2]) == []
    send(machines[2], frame(THIRD))
    assert await exchange(machines[0], machines[1], [FORGED], MARKER) == []
    assert await switched.addresses("xenbr1") == {"198.51.100.1/24"}
    assert await switched.addresses("xapi5") == {"192.0.2.200/24"}
    for machine in machines:
        os.close(machine)


async def settle(host: SwitchedHost, before: list[str], flows: list[str]) -> None:
    """Wait for DHCP servers other than those before, and the same flows, which nobody announces."""
    async with asyncio.timeout(60):
        while True:
            if await leases(host) not in ([], before) and host.switch.flows("xenbr1") == flows:
                return
            await asyncio.sleep(0.1)


async def leases(host: SwitchedHost) -> list[str]:
    """The processes that listen as DHCP servers in the host's namespace."""
    said = await host.command("ss", "-Hulnp", "sport", "=", ":67")
    return [line.rpartition("pid=")[2].partition(",")[0] for line in said.splitlines()]


@pytest.mark.parametrize("seconds", [0, 0.3, 1.1])
async def test_a_daemon_that_ends_while_the_switch_returns_is_followed_by_another(
    switched: SwitchedHost, seconds: float
) -> None:
    await settled(switched)
    machines = [await switched.machine(f"vif{domid}.0") for domid in (1, 2, 3)]
    before = switched.switch.flows("xenbr1")
    switched.switch.stop(cleanup=True)
    switched.switch.launch()
    await asyncio.sleep(seconds)
    async with asyncio.timeout(60):
        await switched.backend.close()
    switched.backend = switched.another()
    async with asyncio.timeout(60):
        await opened(switched)
    assert switched.switch.flows("xenbr1") == before
    await switched.backend.apply(PLAN)
    assert await switched.addresses("xenbr1") == {"198.51.100.1/24"}
    for machine in machines:
        os.close(machine)


async def opened(host: SwitchedHost) -> None:
    """As a service manager does that starts a daemon until it stays."""
    while True:
        try:
            return await host.backend.open()
        except NetworkError:
            await asyncio.sleep(0.05)


async def test_a_switch_that_does_not_run_is_told_in_a_sentence(switched: SwitchedHost) -> None:
    await settled(switched)
    switched.switch.stop()
    again = switched.another()
    for attempt in (
        again.open,
        switched.backend.devices,
        lambda: switched.backend.apply(NetworkPlan()),
        lambda: switched.backend.connect(card(4)),
        lambda: switched.backend.configure(card(1, bridge="xapi7")),
    ):
        with pytest.raises(NetworkError, match="Open vSwitch does not run: install the package openvswitch-switch"):
            await attempt()
    await again.close()
    assert "vif4.0" not in await switched.names()
    switched.switch.start()
    assert isinstance(switched.backend, OpenVSwitchNetwork)
    assert set(switched.switch.control("list-br").split()) == {"xenbr1", "xapi7", "xapi5"}
