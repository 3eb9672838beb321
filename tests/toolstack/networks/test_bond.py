"""Bonds through the API."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from domzero.host.network.plan import AddressMode, BondSpec
from domzero.host.network.sim import INTERFACES
from domzero.idl.types import NULL_REF, Ref
from domzero.toolstack.network.interfaces import refresh_interfaces
from tests.toolstack.networks.rows import bridge_of_card, new_network, pif, pif_rows, plan, planned, static
from tests.toolstack.vm.world import World, world


@pytest.fixture
async def host(tmp_path: Path) -> AsyncIterator[World]:
    """A host whose interfaces have no addresses of their own."""
    async with world(tmp_path) as running:
        await running.call("PIF.reconfigure_ip", pif(running, "eth0"), "None", "", "", "", "")
        yield running


async def bonded(host: World, mode: str = "active-backup", mac: str = "", **properties: str) -> Ref:
    members = [pif(host, "eth0"), pif(host, "eth1")]
    return str(await host.call("Bond.create", await new_network(host), members, mac, mode, properties))


def bond_spec(host: World) -> BondSpec:
    (spec,) = plan(host).bonds
    return spec


async def test_a_bond_takes_over_and_gives_back(host: World) -> None:
    first, second = pif(host, "eth0"), pif(host, "eth1")
    await static(host, second, "198.51.100.5", "198.51.100.1", "192.0.2.53")
    await host.call("PIF.set_other_config", second, {"domain": "example.org", "ethtool-tx": "off"})
    vlan = await host.call("VLAN.create", first, 9, await new_network(host))
    upper = host.get("VLAN", vlan, "untagged_PIF")
    before = pif_rows(host)
    bond = await bonded(host)
    row = host.row("Bond", bond)
    master = row["master"]
    # The member with an address gives it, and its MAC.
    assert (row["primary_slave"], row["mode"], row["auto_update_mac"]) == (second, "active-backup", True)
    assert set(row["slaves"]) == {first, second}
    top = host.row("PIF", master)
    assert (top["device"], top["MAC"], top["physical"], top["VLAN"]) == ("bond0", INTERFACES[1].mac, False, -1)
    assert (top["IP"], top["gateway"], top["DNS"]) == ("198.51.100.5", "198.51.100.1", "192.0.2.53")
    assert (top["bond_master_of"], top["other_config"]) == ((bond,), {"domain": "example.org"})
    for member in (first, second):
        below = host.row("PIF", member)
        assert (below["bond_slave_of"], below["currently_attached"], below["IP"]) == (bond, False, "")
    assert (host.get("VLAN", vlan, "tagged_PIF"), host.get("PIF", upper, "device")) == (master, "bond0")
    assert bond_spec(host).members == ("eth1", "eth0")
    assert bond_spec(host).mac == INTERFACES[1].mac
    spec, tagged = planned(host, master), planned(host, upper)
    assert spec is not None
    assert tagged is not None
    assert (spec.uplink, spec.addresses.mode, spec.addresses.domain) == ("bond0", AddressMode.STATIC, "example.org")
    assert (tagged.uplink, tagged.tag) == ("bond0", 9)
    await host.call("Bond.destroy", bond)
    assert plan(host).bonds == ()
    after = pif_rows(host)
    # VLANs go to the primary member.
    assert after[upper].pop("device") == "eth1"
    before[upper].pop("device")
    for rows in (before, after):
        for row in rows.values():
            row.pop("VLAN_slave_of")
            row.pop("metrics")
    assert after == before
    assert host.stack.database.refs("Bond") == ()
    assert host.get("VLAN", vlan, "tagged_PIF") == second


async def test_modes_and_properties(host: World) -> None:
    bond = await bonded(host, "balance-slb", "02:00:5E:00:53:77", miimon="50")
    assert host.get("Bond", bond, "auto_update_mac") is False
    spec = bond_spec(host)
    assert (spec.mode, spec.mac, spec.properties["miimon"]) == ("balance-slb", "02:00:5e:00:53:77", "50")
    assert (spec.properties["updelay"], spec.properties["rebalance-interval"]) == ("31000", "1800000")
    await host.call("Bond.set_mode", bond, "lacp")
    properties = {"hashing_algorithm": "tcpudp_ports", "lacp-time": "slow", "miimon": "50"}
    assert host.get("Bond", bond, "properties") == properties
    await host.call("Bond.set_property", bond, "lacp-time", "fast")
    assert (bond_spec(host).mode, bond_spec(host).properties["lacp-time"]) == ("lacp", "fast")
    for name, value in (("lacp-time", "never"), ("miimon", "-1"), ("miimon", "1\n"), ("colour", "blue")):
        assert await host.fails("Bond.set_property", bond, name, value) == ("INVALID_VALUE", name, value)
    await host.call("Bond.set_mode", bond, "active-backup")
    assert host.get("Bond", bond, "properties") == {"miimon": "50"}
    error = await host.fails("Bond.set_property", bond, "lacp-time", "fast")
    assert error == ("INVALID_VALUE", "lacp-time", "fast")
    assert (await host.fails("Bond.set_mode", bond, "round-robin"))[0] == "INVALID_VALUE"


async def test_keys_of_the_bonds_interface(host: World) -> None:
    bond = await bonded(host, "active-backup")
    master = host.get("Bond", bond, "master")
    keys = {"bond-mode": "balance-slb", "bond-miimon": "70", "bond-updelay": "soon", "ethtool-lro": "off"}
    await host.call("PIF.set_other_config", master, keys)
    await host.call("PIF.plug", master)
    spec = bond_spec(host)
    assert (spec.mode, spec.properties["miimon"], spec.properties["updelay"]) == ("balance-slb", "70", "31000")
    assert dict(spec.settings) == {"lro": "off"}
    await host.call("PIF.set_property", master, "gro", "off")
    assert [dict(found.settings)["gro"] for found in plan(host).interfaces] == ["off", "off"]


async def test_bonds_that_cannot_be(host: World) -> None:
    first, second, network = pif(host, "eth0"), pif(host, "eth1"), await new_network(host)
    before = pif_rows(host)

    async def fails(*members: Ref, mac: str = "", mode: str = "lacp", target: Ref = network, **properties: str) -> Any:
        return await host.fails("Bond.create", target, list(members), mac, mode, properties)

    assert await fails() == ("PIF_BOND_NEEDS_MORE_MEMBERS",)
    assert await fails(first, mac="fe:xx") == ("MAC_INVALID", "fe:xx")
    assert await fails(first, mac="ff:ff:ff:ff:ff:ff") == ("MAC_INVALID", "ff:ff:ff:ff:ff:ff")
    assert await fails(first, miimon="often") == ("INVALID_VALUE", "miimon", "often")
    home = host.get("PIF", first, "network")
    assert await fails(first, target=home) == ("NETWORK_ALREADY_CONNECTED", home, first)
    assert (await fails("OpaqueRef:x"))[0] == "HANDLE_INVALID"
    assert pif_rows(host) == before
    await host.call("PIF.set_property", second, "gro", "off")
    assert await fails(first, second) == ("INCOMPATIBLE_PIF_PROPERTIES",)
    await host.call("PIF.set_property", second, "gro", "on")
    await static(host, first, "192.0.2.10")
    await static(host, second, "198.51.100.5")
    assert await fails(first, second) == ("PIF_BOND_MORE_THAN_ONE_IP",)
    await host.call("PIF.reconfigure_ip", second, "None", "", "", "", "")
    one = await host.call("VLAN.create", first, 5, await new_network(host))
    two = await host.call("VLAN.create", second, 5, await new_network(host))
    upper = host.get("VLAN", one, "untagged_PIF")
    assert await fails(upper) == ("PIF_IS_VLAN", upper)
    assert await fails(first, second) == ("PIF_VLAN_EXISTS", second)
    await host.call("VLAN.destroy", two)
    bond = await host.call("Bond.create", network, [first, first], "", "lacp", {})
    assert host.get("Bond", bond, "slaves") == (first,)
    assert await fails(first, second, target=await new_network(host)) == ("PIF_ALREADY_BONDED", first)
    master = host.get("Bond", bond, "master")
    assert await fails(master, target=await new_network(host)) == ("PIF_IS_NOT_PHYSICAL", master)


async def test_interfaces_of_two_hosts(host: World) -> None:
    with host.stack.database.transaction() as transaction:
        other = transaction.create("host", {"name_label": "other"})
        away = transaction.create("PIF", {**host.row("PIF", pif(host, "eth1")), "host": other, "uuid": ""})
    network = await new_network(host)
    members = [pif(host, "eth0"), away]
    assert await host.fails("Bond.create", network, members, "", "lacp", {}) == ("PIF_CANNOT_BOND_CROSS_HOST",)
    for call in ("PIF.plug", "PIF.unplug", "host.management_reconfigure"):
        assert await host.fails(call, away) == ("PIF_NOT_ATTACHED_TO_HOST", away, host.stack.host)


async def test_cards_follow_to_the_bond_and_back(host: World) -> None:
    """Those of running machines at once, the others' when they start."""
    running, halted = [await host.machine(disks=0, cards=1) for _ in range(2)]
    await host.call("VM.start", running, False, False)
    cards = [host.get("VM", vm, "VIFs")[0] for vm in (running, halted)]
    home, network = host.get("VIF", cards[0], "network"), await new_network(host)
    assert bridge_of_card(host, running) == host.get("network", home, "bridge")
    members = [pif(host, "eth0"), pif(host, "eth1")]
    bond = await host.call("Bond.create", network, members, "", "lacp", {})
    bridge = host.get("network", network, "bridge")
    assert [host.get("VIF", vif, "network") for vif in cards] == [network, network]
    await host.call("VM.start", halted, False, False)
    assert [bridge_of_card(host, vm) for vm in (running, halted)] == [bridge, bridge]
    heir = host.get("PIF", host.get("Bond", bond, "primary_slave"), "network")
    await host.call("Bond.destroy", bond)
    assert [host.get("VIF", vif, "network") for vif in cards] == [heir, heir]
    assert {bridge_of_card(host, vm) for vm in (running, halted)} == {host.get("network", heir, "bridge")}


async def test_a_bond_that_the_host_refuses(host: World) -> None:
    before = pif_rows(host)
    host.network.faults["apply"] = "no bonds here"
    network = await new_network(host)
    error = await host.fails("Bond.create", network, [pif(host, "eth1")], "", "lacp", {})
    assert error == ("PIF_CONFIGURATION_ERROR", pif(host, "eth1"), "no bonds here")
    assert (pif_rows(host), host.stack.database.refs("Bond")) == (before, ())
    del host.network.faults["apply"]
    bond = await bonded(host)
    host.network.faults["apply"] = "no way back"
    assert (await host.fails("Bond.destroy", bond))[0] == "PIF_CONFIGURATION_ERROR"
    assert host.stack.database.refs("Bond") == (bond,)


async def test_links_of_a_bond(host: World) -> None:
    bond = await bonded(host)
    metrics = host.get("PIF", host.get("Bond", bond, "master"), "metrics")
    assert host.get("Bond", bond, "links_up") == 2
    assert (host.get("PIF_metrics", metrics, "carrier"), host.get("PIF_metrics", metrics, "speed")) == (True, 2000)
    host.network._interfaces = (INTERFACES[0], replace(INTERFACES[1], carrier=False))
    await refresh_interfaces(host.stack)
    assert host.get("Bond", bond, "links_up") == 1
    told = [row.record for row in host.stack.database.rows("message").values()]
    assert [(one["name"], one["cls"]) for one in told] == [("BOND_STATUS_CHANGED", "Host")] * 2
    assert "1 of 2 up (before: 2)" in told[-1]["body"]
    assert host.get("PIF_metrics", metrics, "speed") == 1000
    assert host.get("PIF", pif(host, "eth0"), "bond_slave_of") != NULL_REF
