"""What cards of machines may send, and how they find their network."""

from __future__ import annotations

from typing import Any

import pytest

from domzero.host.network.plan import LockingMode, NetworkPlan
from domzero.host.network.protocol import NetworkError
from domzero.host.network.sim import SimNetwork
from domzero.idl.types import Ref
from tests.toolstack.networks.rows import bridge, new_network, pif, planned
from tests.toolstack.vm.world import CARD, World


class WithoutDnsmasq(SimNetwork):
    """A host on which nobody installed a DHCP server."""

    async def apply(self, plan: NetworkPlan) -> None:
        if any(spec.dhcp_server for spec in plan.bridges):
            raise NetworkError("dnsmasq is not installed")
        await super().apply(plan)


async def running(host: World, network: Ref | None = None, **fields: Any) -> tuple[Ref, int]:
    """A running machine's card, and its domain."""
    vm = await host.machine(disks=0, cards=0)
    network = network or host.stack.database.refs("network")[0]
    vif = await host.call("VIF.create", {**CARD, "VM": vm, "network": network, "device": "0", **fields})
    await host.call("VM.start", vm, False, False)
    return str(vif), host.get("VM", vm, "domid")


async def test_rules_hold_from_the_start_and_change_at_once(host: World) -> None:
    vif, domid = await running(
        host,
        qos_algorithm_type="ratelimit",
        qos_algorithm_params={"kbps": "100", "timeslice_us": "500"},
        locking_mode="locked",
        ipv4_allowed=["192.0.2.7"],
        other_config={"promiscuous": "on", "ethtool-tx": "off"},
    )
    rules = host.network.card(domid, 0).rules
    assert (rules.locking, rules.ipv4_allowed, rules.kilobytes_per_second) == (LockingMode.LOCKED, ("192.0.2.7",), 100)
    assert (rules.promiscuous, dict(rules.settings)) == (True, {"tx": "off"})
    assert host.get("VIF", vif, "qos_supported_algorithms") == ("ratelimit",)
    await host.call("VIF.set_qos_algorithm_params", vif, {"kbps": "200"})
    assert host.network.card(domid, 0).rules.kilobytes_per_second == 200
    await host.call("VIF.remove_from_qos_algorithm_params", vif, "kbps")
    assert host.network.card(domid, 0).rules.kilobytes_per_second == 0
    await host.call("VIF.add_to_qos_algorithm_params", vif, "kbps", "300")
    assert host.network.card(domid, 0).rules.kilobytes_per_second == 300
    error = await host.fails("VIF.add_to_qos_algorithm_params", vif, "kbps", "1")
    assert error == ("MAP_DUPLICATE_KEY", "VIF", "qos_algorithm_params", vif, "kbps")
    await host.call("VIF.set_qos_algorithm_type", vif, "")
    assert host.network.card(domid, 0).rules.kilobytes_per_second == 0
    for mode in ("disabled", "unlocked", "network_default"):
        await host.call("VIF.set_locking_mode", vif, mode)
        expected = LockingMode.UNLOCKED if mode == "network_default" else LockingMode(mode)
        assert host.network.card(domid, 0).rules.locking is expected


async def test_allowed_addresses(host: World) -> None:
    vif, domid = await running(host, locking_mode="locked")
    await host.call("VIF.set_ipv4_allowed", vif, ["192.0.2.7", "192.0.2.7"])
    await host.call("VIF.add_ipv4_allowed", vif, "192.0.2.8")
    await host.call("VIF.add_ipv6_allowed", vif, "2001:DB8:0::7")
    await host.call("VIF.set_ipv6_allowed", vif, ["2001:db8::7", "2001:db8::8"])
    rules = host.network.card(domid, 0).rules
    assert (rules.ipv4_allowed, rules.ipv6_allowed) == (("192.0.2.7", "192.0.2.8"), ("2001:db8::7", "2001:db8::8"))
    await host.call("VIF.remove_ipv4_allowed", vif, "192.0.2.7")
    await host.call("VIF.remove_ipv6_allowed", vif, "2001:0db8::7")
    assert host.get("VIF", vif, "ipv4_allowed") == ("192.0.2.8",)
    assert host.network.card(domid, 0).rules.ipv6_allowed == ("2001:db8::8",)
    before = host.row("VIF", vif)
    for wrong in ("192.0.2.300", "192.0.2.7/24", "2001:db8::7", "", "192.0.2.7\n192.0.2.8", "1"):
        error = await host.fails("VIF.add_ipv4_allowed", vif, wrong)
        assert error == ("INVALID_IP_ADDRESS_SPECIFIED", "ipv4_allowed"), wrong
    for wrong in ("192.0.2.7", "fe80::1%eth0", "::1/64", "2001:db8::7 drop"):
        error = await host.fails("VIF.set_ipv6_allowed", vif, [wrong])
        assert error == ("INVALID_IP_ADDRESS_SPECIFIED", "ipv6_allowed"), wrong
    assert host.row("VIF", vif) == before


async def test_rules_that_the_host_refuses_do_not_change(host: World) -> None:
    vif, _ = await running(host)
    before = host.row("VIF", vif)
    host.network.faults["configure"] = "no filter here"
    error = await host.fails("VIF.set_locking_mode", vif, "locked")
    assert error == ("INTERNAL_ERROR", "The card's rules could not be changed: no filter here")
    assert host.row("VIF", vif) == before


async def test_the_networks_own_mode(host: World) -> None:
    network = await new_network(host)
    vif, domid = await running(host, network)
    error = await host.fails("network.set_default_locking_mode", network, "disabled")
    assert error == ("VIF_IN_USE", network, vif)
    await host.call("VIF.unplug", vif)
    await host.call("network.set_default_locking_mode", network, "disabled")
    await host.call("VIF.plug", vif)
    assert host.network.card(domid, 0).rules.locking is LockingMode.DISABLED


@pytest.mark.parametrize(
    ("card", "network", "size"),
    [
        ({}, {}, 1500),
        ({}, {"MTU": 9000}, 9000),
        ({}, {"MTU": 9000, "other_config": {"mtu": "4000"}}, 4000),
        ({"MTU": 1400}, {"MTU": 9000}, 1400),
        ({"MTU": 1400, "other_config": {"mtu": "1300"}}, {"MTU": 9000}, 1300),
        ({"other_config": {"mtu": "99999"}}, {"other_config": {"mtu": "12"}}, 1500),
    ],
)
async def test_the_nearest_mtu_counts(host: World, card: Any, network: Any, size: int) -> None:
    _, domid = await running(host, await new_network(host, **network), **card)
    assert host.network.card(domid, 0).mtu == size


async def test_sizes_that_cannot_be(host: World) -> None:
    vm = await host.machine(disks=0, cards=0)
    network = host.stack.database.refs("network")[0]
    for size in (67, 65536, 1 << 40):
        args = {**CARD, "VM": vm, "network": network, "device": "0", "MTU": size}
        assert await host.fails("VIF.create", args) == ("INVALID_VALUE", "MTU", str(size))
    args = {**CARD, "VM": vm, "network": network, "device": "0", "ipv4_allowed": ["a/b"]}
    assert await host.fails("VIF.create", args) == ("INVALID_IP_ADDRESS_SPECIFIED", "ipv4_allowed")


async def test_a_network_is_made_when_the_first_card_needs_it(host: World) -> None:
    plans = len(host.network.plans)
    network = await new_network(host, MTU=2000)
    assert len(host.network.plans) == plans
    await running(host, network)
    spec = planned(host, network)
    assert spec is not None
    assert (spec.uplink, spec.mtu) == ("", 2000)
    plans = len(host.network.plans)
    await host.call("network.set_MTU", network, 3000)
    await running(host, network)
    # Somebody is on it, so it stays as it is.
    assert len(host.network.plans) == plans
    for vm in host.stack.database.get("host", host.stack.host, "resident_VMs"):
        if not host.get("VM", vm, "is_control_domain"):
            await host.call("VM.hard_shutdown", vm)
    await running(host, network)
    spec = planned(host, network)
    assert spec is not None
    assert spec.mtu == 3000


async def test_addresses_for_machines(host: World) -> None:
    """The network that is there from the start: its DHCP server runs while there is somebody to serve."""
    network = next(
        ref for ref, row in host.stack.database.rows("network").items() if row.record["other_config"].get("dhcp")
    )
    spec = planned(host, network)
    assert spec is not None
    assert spec.dhcp_server is None
    vif, _ = await running(host, network)
    spec = planned(host, network)
    assert spec is not None
    assert spec.dhcp_server is not None
    assert (spec.dhcp_server.address, spec.dhcp_server.first) == ("172.16.122.1/24", "172.16.122.2")
    assert (spec.dhcp_server.last, spec.dhcp_server.masquerade) == ("172.16.122.254", True)
    await host.call("VM.hard_shutdown", host.get("VIF", vif, "VM"))
    await host.stack.networking.tidy()
    spec = planned(host, network)
    assert spec is not None
    assert spec.dhcp_server is None


async def test_a_host_without_a_dhcp_server_still_joins_machines(host: World) -> None:
    network = await new_network(host, other_config={"dhcp": "true", "ip_begin": "10.9.0.1", "ip_end": "10.9.0.9",
                                                    "netmask": "255.255.255.0"})  # fmt: skip
    bare = WithoutDnsmasq(host.clock)
    host.stack.network = bare
    _, domid = await running(host, network)
    assert bare.card(domid, 0).bridge == bridge(host, network)
    assert all(spec.dhcp_server is None for spec in bare.plans[-1].bridges)


async def test_a_network_that_the_host_cannot_have(host: World) -> None:
    network = await new_network(host)
    vm = await host.machine(disks=0, cards=0)
    await host.call("VIF.create", {**CARD, "VM": vm, "network": network, "device": "0"})
    host.network.faults["apply"] = "no bridges"
    refused = ("HOST_CANNOT_ATTACH_NETWORK", host.stack.host, network)
    assert await host.fails("VM.start", vm, False, False) == refused
    assert host.power_state(vm) == "Halted"
    host.network.faults.clear()
    await host.call("VM.start", vm, False, False)


async def test_a_running_machine_moves_without_being_asked(host: World) -> None:
    vif, domid = await running(host, other_config={"sim:ignore-unplug": "yes"})
    other = host.get("PIF", pif(host, "eth1"), "network")
    await host.call("VIF.move", vif, other)
    assert host.network.card(domid, 0).bridge == "xenbr1"
    host.network.faults["connect"] = "no"
    before = host.get("VIF", vif, "network")
    error = await host.fails("VIF.move", vif, await new_network(host))
    assert error[0] == "HOST_CANNOT_ATTACH_NETWORK"
    assert host.get("VIF", vif, "network") == before


async def test_rules_changed_while_the_machine_starts_hold(host: World) -> None:
    vm = await host.machine(disks=0, cards=1, other_config={"sim:delay-start": "5", "mac_seed": "x"})
    vif = host.get("VM", vm, "VIFs")[0]
    starting = host.begin("VM.start", vm, False, False)
    await host.settle()
    locking = host.begin("VIF.set_locking_mode", vif, "disabled")
    more = [host.begin("VIF.add_ipv4_allowed", vif, f"192.0.2.{number}") for number in (1, 2)]
    await host.settle()
    assert not locking.done()
    await host.over(starting, 6)
    for change in (locking, *more):
        await change
    rules = host.network.card(host.get("VM", vm, "domid"), 0).rules
    assert rules.locking is LockingMode.DISABLED
    assert rules.ipv4_allowed == host.get("VIF", vif, "ipv4_allowed") == ("192.0.2.1", "192.0.2.2")
