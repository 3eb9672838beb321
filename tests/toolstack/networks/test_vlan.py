"""VLANs through the API."""

from __future__ import annotations

from tests.toolstack.networks.rows import new_network, pif, plan, planned
from tests.toolstack.vm.world import World


async def test_a_vlan_comes_and_goes(host: World) -> None:
    second, network = pif(host, "eth1"), await new_network(host, MTU=1400)
    vlan = await host.call("VLAN.create", second, 42, network)
    upper = host.get("VLAN", vlan, "untagged_PIF")
    row = host.row("PIF", upper)
    assert (row["device"], row["VLAN"], row["MAC"], row["physical"]) == ("eth1", 42, "fe:ff:ff:ff:ff:ff", False)
    assert (row["network"], row["currently_attached"], row["VLAN_master_of"]) == (network, True, vlan)
    assert row["metrics"] == host.get("PIF", second, "metrics")
    assert host.get("PIF", second, "VLAN_slave_of") == (vlan,)
    spec = planned(host, upper)
    assert spec is not None
    assert (spec.uplink, spec.tag, spec.mtu) == ("eth1", 42, 1400)
    await host.call("PIF.unplug", second)
    # The VLAN still needs the interface, but not its bridge.
    assert [found.device for found in plan(host).interfaces] == ["eth0", "eth1"]
    await host.call("VLAN.destroy", vlan)
    assert [found.device for found in plan(host).interfaces] == ["eth0"]
    assert host.get("network", network, "PIFs") == ()
    assert host.stack.database.find("PIF", upper) is None


async def test_vlans_that_cannot_be(host: World) -> None:
    second, network = pif(host, "eth1"), await new_network(host)
    fails = host.fails
    for tag in (-1, 4095, 1 << 40):
        assert await fails("VLAN.create", second, tag, network) == ("VLAN_TAG_INVALID", str(tag))
    vlan = await host.call("VLAN.create", second, 0, network)
    upper = host.get("VLAN", vlan, "untagged_PIF")
    assert await fails("VLAN.create", upper, 5, await new_network(host)) == ("PIF_IS_VLAN", upper)
    assert await fails("pool.create_VLAN_from_PIF", upper, network, 5) == ("PIF_IS_VLAN", upper)
    assert await fails("VLAN.create", second, 0, await new_network(host)) == ("PIF_VLAN_EXISTS", second)
    assert await fails("VLAN.create", second, 5, network) == ("NETWORK_ALREADY_CONNECTED", network, upper)
    other = await new_network(host, managed=False)
    assert await fails("VLAN.create", second, 5, other) == ("NETWORK_UNMANAGED", other)
    assert await fails("pool.create_VLAN", "eth7", other, 5) == ("PIF_DEVICE_NOT_FOUND",)
    assert await fails("PIF.create_VLAN", "eth7", other, host.stack.host, 5) == ("PIF_DEVICE_NOT_FOUND",)
    assert (await fails("VLAN.create", "OpaqueRef:x", 5, other))[0] == "HANDLE_INVALID"
    await host.call("VLAN.destroy", vlan)
    bond = await host.call("Bond.create", network, [second], "", "active-backup", {})
    assert await fails("VLAN.create", second, 5, await new_network(host)) == ("CANNOT_ADD_VLAN_TO_BOND_SLAVE", second)
    assert host.get("Bond", bond, "slaves") == (second,)


async def test_vlans_in_use_stay(host: World) -> None:
    second, network = pif(host, "eth1"), await new_network(host)
    vlan = await host.call("VLAN.create", second, 5, network)
    upper = host.get("VLAN", vlan, "untagged_PIF")
    vm = await host.machine(disks=0, cards=1)
    vif = host.get("VM", vm, "VIFs")[0]
    await host.call("VIF.move", vif, network)
    await host.call("VM.start", vm, False, False)
    assert await host.fails("VLAN.destroy", vlan) == ("VIF_IN_USE", network, vif)
    await host.call("VM.hard_shutdown", vm)
    await host.call("PIF.set_disallow_unplug", upper, True)
    assert await host.fails("VLAN.destroy", vlan) == ("PIF_DOES_NOT_ALLOW_UNPLUG", upper)
    await host.call("PIF.set_disallow_unplug", upper, False)
    await host.call("PIF.reconfigure_ip", upper, "DHCP", "", "", "", "")
    await host.call("host.management_reconfigure", upper)
    assert await host.fails("VLAN.destroy", vlan) == ("PIF_IS_MANAGEMENT_INTERFACE", upper)


async def test_the_ways_to_make_one(host: World) -> None:
    first = await new_network(host)
    made = await host.call("pool.create_VLAN", "eth1", first, 10)
    assert [host.get("PIF", upper, "VLAN") for upper in made] == [10]
    second = await new_network(host)
    made = await host.call("pool.create_VLAN_from_PIF", pif(host, "eth1"), second, 11)
    assert made == (pif(host, "eth1", 11),)
    third = await new_network(host)
    assert await host.call("PIF.create_VLAN", "eth1", third, host.stack.host, 12) == pif(host, "eth1", 12)
    assert sorted(spec.tag for spec in plan(host).bridges if spec.uplink == "eth1") == [-1, 10, 11, 12]
