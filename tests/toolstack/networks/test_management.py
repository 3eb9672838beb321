"""Management: moved, on probation, taken back, disabled; and the host's name."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import cast

import pytest

from domzero.engine.calls import LOCAL, Origin
from domzero.host.clock import ManualClock
from domzero.host.control.sim import SimulatedControl
from domzero.toolstack.network.interfaces import refresh_interfaces
from domzero.toolstack.network.management import DISABLED_FILE
from domzero.toolstack.network.network_snapshot import FILE_NAME
from domzero.toolstack.network.remote_access import NoRemoteAccess
from tests.toolstack.networks.rows import bridge_of_card, new_network, pif, pif_rows, planned, static
from tests.toolstack.vm.world import World, world

ELSEWHERE = "203.0.113.77"


NONE = ("HOST_HAS_NO_MANAGEMENT_IP",)
PROBATION = 4


def deaf(host: World) -> None:
    """Have no neighbour answer, and nobody wait long for one."""
    host.stack.settings = replace(host.stack.settings, management_probation=PROBATION)
    cast(SimulatedControl, host.stack.control).neighbours_answer = False


def doors(host: World) -> NoRemoteAccess:
    return cast(NoRemoteAccess, host.stack.remote)


def kept(host: World) -> Path:
    return host.stack.settings.state_dir / FILE_NAME


async def managed(host: World, device: str, address: str) -> str:
    """Management on a device with a static address."""
    ref = pif(host, device)
    await static(host, ref, address, address.rpartition(".")[0] + ".1")
    await host.call("host.management_reconfigure", ref)
    return ref


async def test_management_moves_and_is_kept_when_the_gateway_answers(host: World) -> None:
    first = await managed(host, "eth0", "192.0.2.10")
    assert await host.call("host.get_management_interface", host.stack.host) == first
    assert host.get("host", host.stack.host, "address") == "192.0.2.10"
    second = await managed(host, "eth1", "198.51.100.5")
    assert await host.call("host.get_management_interface", host.stack.host) == second
    assert (host.get("PIF", first, "management"), host.get("PIF", first, "disallow_unplug")) == (False, False)
    assert host.get("host", host.stack.host, "address") == "198.51.100.5"
    one, two = planned(host, first), planned(host, second)
    assert one is not None
    assert two is not None
    assert (one.addresses.gateway, two.addresses.gateway) == ("", "198.51.100.1")
    assert not kept(host).exists()
    assert host.stack.networking.probation is None


async def test_pages_are_where_management_is(host: World) -> None:
    host.stack.authority = "127.0.0.1:8443"
    vm = await host.machine(disks=0, cards=0)
    await host.call("VM.start", vm, False, False)
    second = await managed(host, "eth1", "198.51.100.5")
    location = host.get("console", host.get("VM", vm, "consoles")[0], "location")
    assert location.startswith("https://198.51.100.5:8443/console")
    # As at a start that finds another address first.
    host.stack.authority = "127.0.0.1:8443"
    await refresh_interfaces(host.stack)
    assert host.stack.authority == "198.51.100.5:8443"
    await host.call("PIF.reconfigure_ipv6", second, "Static", "2001:db8::5/64", "", "")
    host.change("PIF", second, primary_address_type="IPv6")
    await refresh_interfaces(host.stack)
    assert host.stack.authority == "[2001:db8::5]:8443"


async def test_nobody_is_heard_and_everything_is_as_it_was(host: World) -> None:
    first = await managed(host, "eth0", "192.0.2.10")
    second = pif(host, "eth1")
    await static(host, second, "198.51.100.5", "198.51.100.1")
    before, plan = pif_rows(host), host.network.plans[-1]
    deaf(host)
    await host.call("host.management_reconfigure", second)
    assert host.get("host", host.stack.host, "address") == "198.51.100.5"
    assert kept(host).exists()
    busy = ("OTHER_OPERATION_IN_PROGRESS", "host", host.stack.host)
    assert await host.fails("host.management_reconfigure", first) == busy
    assert await host.fails("PIF.unplug", first) == busy
    assert await host.fails("PIF.reconfigure_ip", first, "DHCP", "", "", "", "") == busy
    await passing(host, PROBATION - 2)
    assert host.get("PIF", second, "management") is True
    await passing(host, 4)
    await finished(host)
    assert pif_rows(host) == before
    assert host.get("host", host.stack.host, "address") == "192.0.2.10"
    assert host.network.plans[-1] == plan
    assert not kept(host).exists()
    assert doors(host).witness is None


async def passing(host: World, seconds: int) -> None:
    """Let that much time go by."""
    for _ in range(seconds):
        await host.clock.advance(1)
        await host.settle()


async def finished(host: World) -> None:
    """Wait until the probation is over; its files are written in threads."""
    for _ in range(200):
        if host.stack.networking.probation is None:
            return
        await host.settle()
    raise AssertionError("the probation does not end")


async def test_a_call_from_elsewhere_proves_it(host: World) -> None:
    second = pif(host, "eth1")
    await static(host, second, "198.51.100.5")
    deaf(host)
    await host.call("host.management_reconfigure", second)
    witness = doors(host).witness
    assert witness is not None
    for origin in (
        LOCAL,
        Origin("127.0.0.1", own="127.0.0.1"),
        Origin("198.51.100.5", own="198.51.100.5"),
        Origin("192.0.2.10", own="198.51.100.5"),
        Origin(ELSEWHERE, own="192.0.2.10"),
        Origin("unknown", own="198.51.100.5"),
    ):
        witness(origin)
    await host.settle()
    assert host.stack.networking.probation is not None
    witness(Origin(ELSEWHERE, own="198.51.100.5"))
    await finished(host)
    assert host.get("PIF", second, "management") is True
    await passing(host, 2 * PROBATION)
    assert host.get("PIF", second, "management") is True


async def test_a_daemon_that_ends_meanwhile_takes_it_back_at_its_next_start(tmp_path: Path) -> None:
    clock = ManualClock()
    async with world(tmp_path, database=tmp_path / "db", clock=clock) as host:
        first = await managed(host, "eth0", "192.0.2.10")
        second = pif(host, "eth1")
        await static(host, second, "198.51.100.5")
        deaf(host)
        before = pif_rows(host)
        bond = await host.call("Bond.create", await new_network(host), [first], "", "active-backup", {})
        master = host.get("Bond", bond, "master")
        assert host.get("PIF", master, "management") is True
        assert kept(host).exists()
    async with world(tmp_path, database=tmp_path / "db", clock=clock) as host:
        assert pif_rows(host) == before
        assert host.stack.database.refs("Bond") == ()
        assert not kept(host).exists()
        assert await host.call("host.get_management_interface", host.stack.host) == first
        assert host.network.plans[-1].bonds == ()


@pytest.mark.parametrize("when", ["bond", "dissolve"])
async def test_a_bond_of_management_is_on_probation(host: World, when: str) -> None:
    """What is taken back includes the cards of machines, halted and running."""
    vms = [await host.machine(disks=0, cards=1) for _ in range(2)]
    await host.call("VM.start", vms[0], False, False)
    first = await managed(host, "eth0", "192.0.2.10")
    members = [first, pif(host, "eth1")]
    network = await new_network(host)
    if when == "dissolve":
        bond = await host.call("Bond.create", network, members, "", "lacp", {})
    before, bonds = pif_rows(host), host.stack.database.refs("Bond")
    cards, bridge = host.stack.database.rows("VIF"), bridge_of_card(host, vms[0])
    networks = {vif: row.record["network"] for vif, row in cards.items()}
    deaf(host)
    if when == "dissolve":
        await host.call("Bond.destroy", bond)
    else:
        await host.call("Bond.create", network, members, "", "lacp", {})
    assert host.stack.database.refs("Bond") != bonds
    assert bridge_of_card(host, vms[0]) != bridge
    await passing(host, PROBATION + 2)
    await finished(host)
    after = pif_rows(host)
    for row in (*before.values(), *after.values()):
        # The figures of a bond that was there before are measured anew.
        row.pop("metrics")
    assert after == before
    assert host.stack.database.refs("Bond") == bonds
    assert {vif: row.record["network"] for vif, row in cards.items()} == networks
    assert bridge_of_card(host, vms[0]) == bridge


async def test_a_new_address_of_management_is_on_probation(host: World) -> None:
    first = await managed(host, "eth0", "192.0.2.10")
    deaf(host)
    await static(host, first, "192.0.2.99", "192.0.2.1")
    assert host.get("host", host.stack.host, "address") == "192.0.2.99"
    await passing(host, PROBATION + 2)
    await finished(host)
    assert host.get("PIF", first, "IP") == "192.0.2.10"
    assert host.get("host", host.stack.host, "address") == "192.0.2.10"


async def test_a_host_that_does_not_go_back_at_least_says_what_it_should_be(host: World) -> None:
    first = await managed(host, "eth0", "192.0.2.10")
    deaf(host)
    await static(host, first, "192.0.2.99", "192.0.2.1")
    host.network.faults["apply"] = "no such luck"
    await passing(host, PROBATION + 2)
    await finished(host)
    assert host.get("PIF", first, "IP") == "192.0.2.10"
    assert not kept(host).exists()


async def test_interfaces_that_cannot_carry_management(host: World) -> None:
    second = pif(host, "eth1")
    fails = host.fails
    assert await fails("host.management_reconfigure", second) == ("PIF_HAS_NO_NETWORK_CONFIGURATION", second)
    await host.call("PIF.set_primary_address_type", second, "IPv6")
    assert await fails("host.management_reconfigure", second) == ("PIF_HAS_NO_V6_NETWORK_CONFIGURATION", second)
    await host.call("PIF.set_primary_address_type", second, "IPv4")
    assert await fails("host.local_management_reconfigure", "eth7") == ("PIF_DEVICE_NOT_FOUND",)
    assert await fails("host.local_management_reconfigure", "") == ("PIF_DEVICE_NOT_FOUND",)
    network = await new_network(host)
    assert await fails("pool.management_reconfigure", network) == ("PIF_NOT_PRESENT", host.stack.host, network)
    await host.call("Bond.create", network, [second], "", "active-backup", {})
    assert await fails("host.management_reconfigure", second) == ("CANNOT_PLUG_BOND_SLAVE", second)


@pytest.mark.slow
async def test_an_interface_that_gets_no_address(host: World) -> None:
    second = pif(host, "eth1")
    await host.call("PIF.reconfigure_ip", second, "DHCP", "", "", "", "")
    host.network.faults["devices"] = "silence"
    host.change("PIF", second, IP="")
    failing = host.begin("host.management_reconfigure", second)
    for _ in range(80):
        await host.clock.advance(0.5)
        await host.settle()
    with pytest.raises(Exception, match="INTERFACE_HAS_NO_IP"):
        await failing


async def test_by_name_and_by_network(host: World) -> None:
    second = pif(host, "eth1")
    await host.call("PIF.reconfigure_ip", second, "DHCP", "", "", "", "")
    await host.call("host.local_management_reconfigure", "xenbr1")
    assert host.get("PIF", second, "management") is True
    await host.call("host.local_management_reconfigure", "eth0")
    assert host.get("PIF", second, "management") is False
    await host.call("pool.management_reconfigure", host.get("PIF", second, "network"))
    assert host.get("PIF", second, "management") is True


async def test_disabled_until_it_is_given_an_interface(tmp_path: Path) -> None:
    async with world(tmp_path, database=tmp_path / "db") as host:
        first = await managed(host, "eth0", "192.0.2.10")
        await host.call("host.management_disable")
        assert doors(host).is_open is False
        assert host.get("PIF", first, "management") is False
        assert await host.fails("host.get_management_interface", host.stack.host) == NONE
    async with world(tmp_path, database=tmp_path / "db") as host:
        assert doors(host).is_open is False
        spec = planned(host, first)
        assert spec is not None
        # The machine keeps its way out.
        assert spec.addresses.gateway == "192.0.2.1"
        await host.call("host.management_reconfigure", first)
        assert doors(host).is_open is True
        assert not (tmp_path / DISABLED_FILE).exists()


async def test_the_hosts_name(host: World) -> None:
    await host.call("host.set_hostname_live", host.stack.host, "hyper-1.example.org")
    assert host.get("host", host.stack.host, "hostname") == "hyper-1.example.org"
    assert cast(SimulatedControl, host.stack.control).asked == ["hostname hyper-1.example.org"]
    for name in ("", "a" * 65, "a/b", "a\nb", "-a", "a..b", "a_b", "häuschen", "192.0.2.1", "a b", "."):
        error = await host.fails("host.set_hostname_live", host.stack.host, name)
        assert error[0] in ("HOST_NAME_INVALID", "INVALID_VALUE"), name
    assert host.get("host", host.stack.host, "hostname") == "hyper-1.example.org"


async def test_probation_is_as_long_as_the_setting_says(host: World) -> None:
    first = pif(host, "eth0")
    deaf(host)
    host.stack.settings = replace(host.stack.settings, management_probation=2 * PROBATION)
    await host.call("host.management_reconfigure", first)
    await passing(host, PROBATION + 2)
    assert host.get("PIF", first, "management") is True
    await passing(host, PROBATION)
    await finished(host)
    assert host.get("PIF", first, "management") is False
