"""Interfaces of the host through the API: found, plugged, given addresses, and left alone where they must be."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from domzero.host.network.plan import AddressMode, Ipv6Mode, Route
from domzero.host.network.sim import INTERFACES
from domzero.idl.types import NULL_REF
from domzero.toolstack.network.interfaces import refresh_interfaces
from tests.toolstack.networks.rows import bridge, new_network, pif, plan, planned, static
from tests.toolstack.vm.world import World


async def test_interfaces_are_there_from_the_start(host: World) -> None:
    first = host.row("PIF", pif(host, "eth0"))
    assert (first["physical"], first["managed"], first["currently_attached"], first["VLAN"]) == (True, True, True, -1)
    assert (first["ip_configuration_mode"], first["IP"], first["netmask"]) == ("Static", "192.0.2.10", "255.255.255.0")
    assert first["properties"] == {"gro": "on"}
    spec = planned(host, pif(host, "eth0"))
    assert spec is not None
    assert (spec.name, spec.uplink, spec.tag) == ("xenbr0", "eth0", -1)
    assert (spec.addresses.mode, spec.addresses.address) == (AddressMode.STATIC, "192.0.2.10/24")
    assert len(host.network.plans) == 1


async def test_unplugged_and_plugged(host: World) -> None:
    second = pif(host, "eth1")
    await host.call("PIF.unplug", second)
    assert host.get("PIF", second, "currently_attached") is False
    spec = planned(host, second)
    assert spec is not None
    assert spec.uplink == ""
    await host.call("PIF.unplug", second)
    await host.call("PIF.plug", second)
    assert host.get("PIF", second, "currently_attached") is True
    spec = planned(host, second)
    assert spec is not None
    assert spec.uplink == "eth1"


async def test_a_card_plugs_the_interface_that_it_needs(host: World) -> None:
    second = pif(host, "eth1")
    await host.call("PIF.unplug", second)
    vm = await host.machine(disks=0, cards=0)
    card = {"VM": vm, "network": host.get("PIF", second, "network"), "device": "0", "MAC": "", "MTU": 0,
            "other_config": {}, "qos_algorithm_type": "", "qos_algorithm_params": {}}  # fmt: skip
    vif = await host.call("VIF.create", card)
    await host.call("VM.start", vm, False, False)
    assert host.get("PIF", second, "currently_attached") is True
    network = host.get("PIF", second, "network")
    assert await host.fails("PIF.unplug", second) == ("VIF_IN_USE", network, vif)


async def test_who_sleeps_needs_no_interface(host: World) -> None:
    """Suspended machines and checkpoints do not hold interfaces; the machine's card brings its own back with it."""
    second = pif(host, "eth1")
    network = host.get("PIF", second, "network")
    vm = await host.machine(disks=0, cards=1)
    (vif,) = host.get("VM", vm, "VIFs")
    await host.call("VIF.move", vif, network)
    await host.call("VM.start", vm, False, False)
    assert await host.fails("PIF.unplug", second) == ("VIF_IN_USE", network, vif)
    assert await host.fails("network.set_default_locking_mode", network, "disabled") == ("VIF_IN_USE", network, vif)
    checkpoint = await host.call("VM.checkpoint", vm, "as it was")
    await host.call("VM.suspend", vm)
    held = host.get("VM", checkpoint, "VIFs")[0]
    assert host.get("VIF", vif, "currently_attached") is host.get("VIF", held, "currently_attached") is True
    await host.call("network.set_default_locking_mode", network, "disabled")
    await host.call("PIF.unplug", second)
    await host.call("VM.resume", vm, False, False)
    assert host.get("PIF", second, "currently_attached") is True
    assert await host.fails("PIF.unplug", second) == ("VIF_IN_USE", network, vif)


async def test_what_must_stay_up(host: World) -> None:
    second = pif(host, "eth1")
    await host.call("PIF.set_disallow_unplug", second, True)
    assert await host.fails("PIF.unplug", second) == ("PIF_DOES_NOT_ALLOW_UNPLUG", second)
    await host.call("PIF.set_disallow_unplug", second, False)
    await static(host, second, "198.51.100.5")
    await host.call("host.management_reconfigure", second)
    assert await host.fails("PIF.unplug", second) == ("PIF_IS_MANAGEMENT_INTERFACE", second)
    assert await host.fails("PIF.forget", second) == ("PIF_IS_MANAGEMENT_INTERFACE", second)
    assert await host.fails("PIF.reconfigure_ip", second, "None", "", "", "", "") == (
        "PIF_IS_MANAGEMENT_INTERFACE", second,
    )  # fmt: skip
    assert await host.fails("PIF.set_primary_address_type", second, "IPv6") == ("PIF_IS_MANAGEMENT_INTERFACE", second)


async def test_what_the_host_refuses_changes_nothing(host: World) -> None:
    second = pif(host, "eth1")
    before, plans = host.row("PIF", second), len(host.network.plans)
    host.network.faults["apply"] = "no such luck"
    refused = ("PIF_CONFIGURATION_ERROR", second, "no such luck")
    assert await host.fails("PIF.unplug", second) == refused
    assert await host.fails("PIF.reconfigure_ip", second, "DHCP", "", "", "", "") == refused
    assert await host.fails("PIF.reconfigure_ipv6", second, "Autoconf", "", "", "") == refused
    assert await host.fails("PIF.set_property", second, "gro", "off") == refused
    assert await host.fails("VLAN.create", second, 5, await new_network(host)) == refused
    assert (host.row("PIF", second), len(host.network.plans)) == (before, plans)
    assert host.stack.database.refs("VLAN") == ()


async def test_addresses(host: World) -> None:
    second = pif(host, "eth1")
    await host.call(
        "PIF.reconfigure_ip", second, "Static", "198.51.100.7", "255.255.254.0", "198.51.100.1", "192.0.2.1, 192.0.2.2"
    )
    row = host.row("PIF", second)
    assert (row["IP"], row["netmask"], row["gateway"], row["DNS"]) == (
        "198.51.100.7", "255.255.254.0", "198.51.100.1", "192.0.2.1,192.0.2.2",
    )  # fmt: skip
    spec = planned(host, second)
    assert spec is not None
    assert spec.addresses.address == "198.51.100.7/23"
    # The default route is that of the interface which has it already.
    assert (spec.addresses.gateway, spec.addresses.dns) == ("", ())
    await host.call("PIF.reconfigure_ip", second, "DHCP", "", "", "", "")
    row = host.row("PIF", second)
    assert row["ip_configuration_mode"] == "DHCP"
    assert row["IP"].startswith("198.51.100.1")
    await host.call("PIF.reconfigure_ip", second, "None", "", "", "", "")
    row = host.row("PIF", second)
    assert (row["ip_configuration_mode"], row["IP"], row["netmask"], row["DNS"]) == ("None", "", "", "")


async def test_ipv6_addresses(host: World) -> None:
    second = pif(host, "eth1")
    await host.call("PIF.reconfigure_ipv6", second, "Static", "2001:db8::5/64", "2001:db8::1", "2001:db8::53")
    row = host.row("PIF", second)
    assert (row["IPv6"], row["ipv6_gateway"], row["DNS"]) == (("2001:db8::5/64",), "2001:db8::1", "2001:db8::53")
    spec = planned(host, second)
    assert spec is not None
    assert (spec.addresses.ipv6_mode, spec.addresses.ipv6_addresses) == (Ipv6Mode.STATIC, ("2001:db8::5/64",))
    await host.call("PIF.reconfigure_ipv6", second, "Autoconf", "", "", "")
    assert host.get("PIF", second, "IPv6")[0].startswith("2001:db8::1")
    await host.call("PIF.set_primary_address_type", second, "IPv6")
    assert host.get("PIF", second, "primary_address_type") == "IPv6"
    await host.call("PIF.reconfigure_ipv6", second, "None", "", "", "")
    assert host.get("PIF", second, "IPv6") == ()


BAD_IPV4 = [
    ("", "255.255.255.0", "", "", "IP"),
    ("198.51.100.300", "255.255.255.0", "", "", "IP"),
    ("198.51.100.0", "255.255.255.0", "", "", "IP"),
    ("198.51.100.255", "255.255.255.0", "", "", "IP"),
    ("224.0.0.1", "255.255.255.0", "", "", "IP"),
    ("127.0.0.1", "255.0.0.0", "", "", "IP"),
    ("0.0.0.0", "255.0.0.0", "", "", "IP"),
    ("198.51.100.7\n", "255.255.255.0", "x", "", "gateway"),
    ("198.51.100.7", "", "", "", "netmask"),
    ("198.51.100.7", "255.0.255.0", "", "", "netmask"),
    ("198.51.100.7", "0.0.0.255", "", "", "netmask"),
    ("198.51.100.7", "0.0.0.0", "", "", "netmask"),
    ("198.51.100.7", "255.255.255.0", "203.0.113.1", "", "gateway"),
    ("198.51.100.7", "255.255.255.0", "198.51.100.7", "", "gateway"),
    ("198.51.100.7", "255.255.255.0", "", "192.0.2.1,ns/1", "DNS"),
    ("198.51.100.7", "255.255.255.0", "", "192.0.2.1 nameserver", "DNS"),
]
BAD_IPV6 = [
    ("2001:db8::5", "", "", ("INVALID_CIDR_ADDRESS_SPECIFIED", "IPv6")),
    ("2001:db8::5/129", "", "", ("INVALID_CIDR_ADDRESS_SPECIFIED", "IPv6")),
    ("ff02::1/64", "", "", ("INVALID_CIDR_ADDRESS_SPECIFIED", "IPv6")),
    ("fe80::1%eth0/64", "", "", ("INVALID_CIDR_ADDRESS_SPECIFIED", "IPv6")),
    ("", "", "", ("INVALID_CIDR_ADDRESS_SPECIFIED", "IPv6")),
    ("2001:db8::5/64", "192.0.2.1", "", ("INVALID_IP_ADDRESS_SPECIFIED", "gateway")),
    ("2001:db8::5/64", "", "nowhere", ("INVALID_IP_ADDRESS_SPECIFIED", "DNS")),
]


async def test_addresses_that_make_no_sense(host: World) -> None:
    second = pif(host, "eth1")
    before, plans = host.row("PIF", second), len(host.network.plans)
    for address, netmask, gateway, dns, wrong in BAD_IPV4:
        error = await host.fails("PIF.reconfigure_ip", second, "Static", address, netmask, gateway, dns)
        assert error == ("INVALID_IP_ADDRESS_SPECIFIED", wrong), (address, netmask, gateway, dns)
    for address, gateway, dns, error in BAD_IPV6:
        assert await host.fails("PIF.reconfigure_ipv6", second, "Static", address, gateway, dns) == error
    assert (host.row("PIF", second), len(host.network.plans)) == (before, plans)


async def test_settings_take_effect_at_the_next_plug(host: World) -> None:
    second = pif(host, "eth1")
    await static(host, second, "198.51.100.7")
    network = host.get("PIF", second, "network")
    await host.call("network.set_MTU", network, 9000)
    keys = {"static-routes": "203.0.113.0/24/198.51.100.1,nonsense,1/2", "domain": "example.org", "ethtool-tx": "on"}
    await host.call("network.set_other_config", network, keys)
    await host.call("PIF.set_other_config", second, {"ethtool-gso": "false", "ethtool-rx": "perhaps", "mtu": "9000x"})
    await host.call("VLAN.create", second, 7, await new_network(host))
    spec = planned(host, second)
    assert spec is not None
    assert (spec.mtu, spec.addresses.routes, dict(spec.settings)) == (1500, (), {})
    await host.call("PIF.plug", second)
    spec = planned(host, second)
    assert spec is not None
    assert (spec.mtu, dict(spec.settings), spec.addresses.domain) == (9000, {"tx": "on"}, "example.org")
    assert spec.addresses.routes == (Route("203.0.113.0/24", "198.51.100.1"),)
    hardware = next(found for found in plan(host).interfaces if found.device == "eth1")
    assert dict(hardware.settings) == {"gro": "on", "gso": "off", "mtu": "9000"}


async def test_properties(host: World) -> None:
    second = pif(host, "eth1")
    await host.call("PIF.set_property", second, "gro", "off")
    assert host.get("PIF", second, "properties") == {"gro": "off"}
    assert dict(plan(host).interfaces[1].settings)["gro"] == "off"
    assert await host.fails("PIF.set_property", second, "gro", "maybe") == ("INVALID_VALUE", "gro", "maybe")
    assert await host.fails("PIF.set_property", second, "tso", "on") == ("INVALID_VALUE", "tso", "on")
    await host.call("VLAN.create", second, 7, await new_network(host))
    upper = pif(host, "eth1", 7)
    assert await host.fails("PIF.set_property", upper, "gro", "on") == ("CANNOT_CHANGE_PIF_PROPERTIES", upper)


async def test_forgotten_and_found_again(host: World) -> None:
    second = pif(host, "eth1")
    network = host.get("PIF", second, "network")
    await host.call("PIF.forget", second)
    assert [spec.device for spec in plan(host).interfaces] == ["eth0"]
    await refresh_interfaces(host.stack)
    assert len(host.stack.database.refs("PIF")) == 1
    await host.call("PIF.scan", host.stack.host)
    found = pif(host, "eth1")
    assert host.get("PIF", found, "network") == network
    assert host.get("PIF", found, "currently_attached") is False
    await host.call("PIF.forget", found)
    again = await host.call("PIF.introduce", host.stack.host, INTERFACES[1].mac.upper(), "", True)
    assert host.get("PIF", again, "device") == "eth1"


UNKNOWN = "COULD_NOT_FIND_NETWORK_INTERFACE_WITH_SPECIFIED_DEVICE_NAME_AND_MAC_ADDRESS"


async def test_interfaces_that_cannot_be_introduced(host: World) -> None:
    own, mac = host.stack.host, INTERFACES[1].mac
    fails = host.fails
    assert await fails("PIF.introduce", own, "nonsense", "eth1", True) == ("MAC_INVALID", "nonsense")
    assert await fails("PIF.introduce", own, mac, "eth1", True) == ("DUPLICATE_PIF_DEVICE_NAME", "eth1")
    assert await fails("PIF.introduce", own, mac, "", True) == ("DUPLICATE_PIF_DEVICE_NAME", "eth1")
    assert await fails("PIF.introduce", own, mac, "eth2", True) == (UNKNOWN, "eth2", mac)
    assert await fails("PIF.introduce", own, "", "", True) == (UNKNOWN, "", "")
    await host.call("PIF.forget", pif(host, "eth1"))
    wrong = "02:00:00:00:00:99"
    assert await fails("PIF.introduce", own, wrong, "eth1", True) == (UNKNOWN, "eth1", wrong)
    assert (await fails("PIF.introduce", "OpaqueRef:x", mac, "eth1", True))[0] == "HANDLE_INVALID"


async def test_an_interface_kept_unmanaged_is_left_alone(host: World) -> None:
    await host.call("PIF.forget", pif(host, "eth1"))
    found = await host.call("PIF.introduce", host.stack.host, INTERFACES[1].mac, "eth1", False)
    assert host.get("PIF", found, "managed") is False
    for call, *params in (
        ("PIF.plug",),
        ("PIF.unplug",),
        ("PIF.reconfigure_ip", "DHCP", "", "", "", ""),
        ("PIF.reconfigure_ipv6", "Autoconf", "", "", ""),
        ("PIF.set_property", "gro", "off"),
    ):
        assert await host.fails(call, found, *params) == ("PIF_UNMANAGED", found), call
    other = await new_network(host)
    assert await host.fails("VLAN.create", found, 7, other) == ("PIF_UNMANAGED", found)
    assert await host.fails("Bond.create", other, [pif(host, "eth0"), found], "", "lacp", {}) == (
        "PIF_UNMANAGED",
        found,
    )
    assert all(spec.uplink != "eth1" for spec in plan(host).bridges)


async def test_without_the_setting_nothing_is_touched(host: World) -> None:
    host.stack.settings = replace(host.stack.settings, manage_interfaces=frozenset({"eth1"}))
    from domzero.toolstack.network.network_startup import start_networks

    await start_networks(host.stack, first=False)
    assert [spec.device for spec in plan(host).interfaces] == ["eth1"]
    assert [spec.name for spec in plan(host).bridges if spec.uplink] == ["xenbr1"]
    assert host.get("PIF", pif(host, "eth0"), "managed") is False
    assert (await host.fails("PIF.unplug", pif(host, "eth0")))[0] == "PIF_UNMANAGED"


async def test_records_for_repairs(host: World) -> None:
    network = await new_network(host)
    fields: list[Any] = [
        "eth9", network, host.stack.host, "02:00:00:00:00:01", 1500, -1, True, "None", "", "", "", "", NULL_REF,
        NULL_REF, False, {}, False, "None", [], "", "IPv4", True, {},
    ]  # fmt: skip
    made = await host.call("PIF.db_introduce", *fields)
    assert host.get("PIF", made, "device") == "eth9"
    await static(host, pif(host, "eth1"), "198.51.100.5")
    assert all(spec.device != "eth9" for spec in plan(host).interfaces)
    await host.call("PIF.db_forget", made)
    assert host.stack.database.find("PIF", made) is None
    assert bridge(host, network).startswith("xapi")


async def test_no_part_of_a_bond_or_vlan_is_plugged_or_forgotten_alone(host: World) -> None:
    first, second = pif(host, "eth0"), pif(host, "eth1")
    vlan = await host.call("VLAN.create", second, 7, await new_network(host))
    upper = host.get("VLAN", vlan, "untagged_PIF")
    assert await host.fails("PIF.forget", second) == ("PIF_VLAN_STILL_EXISTS", second)
    assert await host.fails("PIF.forget", upper) == ("PIF_IS_VLAN", upper)
    assert await host.fails("PIF.destroy", second) == ("PIF_IS_PHYSICAL", second)
    await host.call("PIF.destroy", upper)
    bond = await host.call("Bond.create", await new_network(host), [first, second], "", "active-backup", {})
    master = host.get("Bond", bond, "master")
    assert await host.fails("PIF.plug", second) == ("CANNOT_PLUG_BOND_SLAVE", second)
    assert await host.fails("PIF.forget", second) == ("PIF_ALREADY_BONDED", second)
    assert await host.fails("PIF.forget", master) == ("PIF_IS_NOT_PHYSICAL", master)
    assert (await host.fails("PIF.destroy", master))[0] == "OPERATION_NOT_ALLOWED"
    assert (await host.fails("PIF.reconfigure_ip", second, "DHCP", "", "", "", ""))[:2] == (
        "PIF_CONFIGURATION_ERROR", second,
    )  # fmt: skip


@pytest.mark.parametrize("fault", ["interfaces", "devices"])
async def test_a_host_that_does_not_tell(host: World, fault: str) -> None:
    host.network.faults[fault] = "out of memory"
    assert await host.fails("PIF.scan", host.stack.host) == ("INTERNAL_ERROR", "out of memory")
