"""Which interface carries management: the one with the host's address, wherever the daemon listens; or none."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from domzero.toolstack.network.host_address import primary_address
from domzero.toolstack.network.interfaces import refresh_interfaces, settle_management
from tests.toolstack.networks.rows import new_network, pif, pif_rows, static
from tests.toolstack.vm.world import World, world

NONE = ("HOST_HAS_NO_MANAGEMENT_IP",)


async def test_a_host_that_is_reached_by_loopback_only_has_no_such_interface(host: World) -> None:
    assert host.get("host", host.stack.host, "address") == "127.0.0.1"
    assert await host.fails("host.get_management_interface", host.stack.host) == NONE
    assert not any(row["management"] for row in pif_rows(host).values())


@pytest.mark.parametrize(
    ("address", "netmask", "gateway"),
    [
        ("127.0.0.1", "255.0.0.0", "127.255.255.254"),
        ("127.255.255.254", "255.0.0.0", "127.255.255.253"),
        ("203.0.113.9", "255.255.255.0", "203.0.113.254"),
        ("2001:db8::9", "", ""),
        ("::1", "", ""),
    ],
)
async def test_a_simulated_host_is_reached_by_its_first_card(
    tmp_path: Path, address: str, netmask: str, gateway: str
) -> None:
    async with world(tmp_path, address=address) as host:
        first, here = pif(host, "eth0"), host.stack.host
        record = host.row("PIF", first)
        assert await host.call("host.get_management_interface", here) == first
        assert [ref for ref, row in pif_rows(host).items() if row["management"]] == [first]
        assert (record["physical"], record["managed"], record["currently_attached"]) == (True, True, True)
        assert host.get("network", record["network"], "bridge") == "xenbr0"
        assert host.get("host", here, "address") == address
        expected = ("IPv6", "None", "DHCP") if ":" in address else ("IPv4", "DHCP", "None")
        modes = ("primary_address_type", "ip_configuration_mode", "ipv6_configuration_mode")
        assert tuple(record[name] for name in modes) == expected
        assert primary_address(host.stack.database.record("PIF", first)) == address
        assert (record["netmask"], record["gateway"]) == (netmask, gateway)
        assert (await host.fails("PIF.unplug", first))[0] == "PIF_IS_MANAGEMENT_INTERFACE"


async def test_a_simulated_host_that_listens_elsewhere_has_its_card_there(tmp_path: Path) -> None:
    async with world(tmp_path, database=tmp_path / "db", address="127.0.0.1") as host:
        first = pif(host, "eth0")
    async with world(tmp_path, database=tmp_path / "db", address="127.0.0.5") as host:
        assert await host.call("host.get_management_interface", host.stack.host) == first
        assert host.get("PIF", first, "IP") == host.get("host", host.stack.host, "address") == "127.0.0.5"
        # An address that an operator gave it is the host's from then on.
        await static(host, first, "203.0.113.5", "203.0.113.1")
    async with world(tmp_path, database=tmp_path / "db", address="127.0.0.5") as host:
        assert host.get("PIF", first, "IP") == host.get("host", host.stack.host, "address") == "203.0.113.5"


async def test_the_address_of_a_simulated_host_goes_with_the_card(tmp_path: Path) -> None:
    async with world(tmp_path, address="127.0.0.1") as host:
        first, second = pif(host, "eth0"), pif(host, "eth1")
        inner = await new_network(host)
        bond = await host.call("Bond.create", inner, [first, second], "", "balance-slb", {})
        master = host.get("Bond", bond, "master")
        assert await host.call("host.get_management_interface", host.stack.host) == master
        assert host.get("PIF", master, "IP") == host.get("host", host.stack.host, "address") == "127.0.0.1"
        await host.call("Bond.destroy", bond)
        assert await host.call("host.get_management_interface", host.stack.host) == first
        await host.call("PIF.reconfigure_ip", second, "DHCP", "", "", "", "")
        await host.call("host.management_reconfigure", second)
        assert host.get("host", host.stack.host, "address").startswith("198.51.100.")
        await host.call("host.management_reconfigure", first)
        assert host.get("host", host.stack.host, "address") == "127.0.0.1"


async def test_who_has_the_hosts_address_is_appointed_at_a_start(tmp_path: Path) -> None:
    async with world(tmp_path, database=tmp_path / "db") as host:
        first, second = pif(host, "eth0"), pif(host, "eth1")
        await static(host, second, "198.51.100.5", "198.51.100.1")
        await host.call("PIF.reconfigure_ip", first, "None", "", "", "", "")
    # It listens on all addresses from now on.
    async with world(tmp_path, database=tmp_path / "db", address="198.51.100.5") as host:
        assert await host.call("host.get_management_interface", host.stack.host) == second
        assert host.get("PIF", second, "disallow_unplug") is True
        assert host.get("PIF", first, "management") is False
        await host.call("host.management_disable")
    async with world(tmp_path, database=tmp_path / "db", address="198.51.100.5") as host:
        assert await host.fails("host.get_management_interface", host.stack.host) == NONE


async def test_an_earlier_simulated_host_gets_one_as_well(tmp_path: Path) -> None:
    async with world(tmp_path, database=tmp_path / "db") as host:
        first = pif(host, "eth0")
        assert host.get("PIF", first, "ip_configuration_mode") == "Static"
    async with world(tmp_path, database=tmp_path / "db", address="127.0.0.1") as host:
        assert await host.call("host.get_management_interface", host.stack.host) == first
        record = host.row("PIF", first)
        assert (record["ip_configuration_mode"], record["IP"]) == ("DHCP", "127.0.0.1")
        assert record["currently_attached"] is True
        assert host.get("host", host.stack.host, "address") == "127.0.0.1"


async def test_management_that_is_disabled_does_not_come_back_by_itself(tmp_path: Path) -> None:
    async with world(tmp_path, address="203.0.113.9") as host:
        first = pif(host, "eth0")
        host.stack.settings = replace(host.stack.settings, manage_interfaces=frozenset())
        settle_management(host.stack)
        await refresh_interfaces(host.stack)
        assert await host.call("host.get_management_interface", host.stack.host) == first
        assert host.get("PIF", first, "managed") is False
        await host.call("host.management_disable")
        await refresh_interfaces(host.stack)
        assert await host.fails("host.get_management_interface", host.stack.host) == NONE
        await host.call("PIF.forget", first)
        await host.call("PIF.scan", host.stack.host)
        assert await host.fails("host.get_management_interface", host.stack.host) == NONE
        await host.call("host.management_reconfigure", pif(host, "eth0"))
        await refresh_interfaces(host.stack)
        assert await host.call("host.get_management_interface", host.stack.host) == pif(host, "eth0")
