"""Networks through the API, and what their keys mean."""

from __future__ import annotations

import pytest

from domzero.host.network.plan import DhcpServer
from domzero.toolstack.network.internal_network import free_subnet
from domzero.toolstack.network.network import bridge_for_interface
from domzero.toolstack.network.network_keys import dhcp_server, domain_of, ethtool_settings, routes_of
from tests.toolstack.networks.rows import NETWORK, new_network, pif
from tests.toolstack.vm.world import World


async def test_networks_come_and_go(host: World) -> None:
    network = await new_network(host, MTU=0)
    assert (host.get("network", network, "MTU"), host.get("network", network, "bridge")) == (1500, "xapi1")
    await host.call("network.destroy", network)
    named = await new_network(host, bridge="lab")
    assert await host.fails("network.create", {**NETWORK, "bridge": "lab"}) == ("BRIDGE_NAME_EXISTS", "lab")
    for name in ("xenbr7", "xapi9", "vif1.0", "tap0", "eth0", "a/b", "a\nb", "a b", "x" * 16, "..", "-a"):
        assert await host.fails("network.create", {**NETWORK, "bridge": name}) == ("INVALID_VALUE", "bridge", name)
    for size in (67, 65536):
        assert await host.fails("network.create", {**NETWORK, "MTU": size}) == ("INVALID_VALUE", "MTU", str(size))
        assert await host.fails("network.set_MTU", named, size) == ("INVALID_VALUE", "MTU", str(size))
    for size, taken in ((9000, 9000), (-1, 1500)):
        await host.call("network.set_MTU", named, size)
        assert host.get("network", named, "MTU") == taken
    vm = await host.machine(disks=0, cards=1)
    vif = host.get("VM", vm, "VIFs")[0]
    await host.call("VIF.move", vif, named)
    assert await host.fails("network.destroy", named) == ("NETWORK_CONTAINS_VIF", vif)
    first = pif(host, "eth0")
    home = host.get("PIF", first, "network")
    assert await host.fails("network.destroy", home) == ("NETWORK_CONTAINS_PIF", first)
    system = await new_network(host, other_config={"is_host_internal_management_network": "true"})
    assert await host.fails("network.destroy", system) == ("CANNOT_DESTROY_SYSTEM_NETWORK", system)


async def test_purposes(host: World) -> None:
    one, two = await new_network(host), await new_network(host)
    await host.call("network.add_purpose", one, "nbd")
    await host.call("network.add_purpose", one, "nbd")
    assert host.get("network", one, "purpose") == ("nbd",)
    error = await host.fails("network.add_purpose", two, "insecure_nbd")
    assert error == ("NETWORK_INCOMPATIBLE_PURPOSES", "insecure_nbd", "nbd")
    await host.call("network.remove_purpose", one, "nbd")
    await host.call("network.add_purpose", two, "insecure_nbd")


def test_bridges_have_names_that_linux_takes() -> None:
    assert [bridge_for_interface(name) for name in ("eth0", "eth12", "enp3s0")] == ["xenbr0", "xenbr12", "brenp3s0"]
    long = [bridge_for_interface(name) for name in ("enx0123456789ab", "enx0123456789cb", "enx9123456789ab")]
    assert len(set(long)) == 3
    assert all(len(name) == 15 for name in long)


SERVER = {"dhcp": "true", "ip_begin": "10.1.2.1", "ip_end": "10.1.2.100", "netmask": "255.255.255.0"}


def test_keys_of_a_dhcp_server() -> None:
    assert dhcp_server(SERVER) == DhcpServer("10.1.2.1/24", "10.1.2.2", "10.1.2.100")
    full = {**SERVER, "domain": "lab.example", "masquerade": "true"}
    assert dhcp_server(full) == DhcpServer("10.1.2.1/24", "10.1.2.2", "10.1.2.100", "lab.example", masquerade=True)


@pytest.mark.parametrize(
    "wrong",
    [
        {"dhcp": "no"},
        {"ip_begin": ""},
        {"ip_begin": "10.1.2.0"},
        {"ip_end": "10.1.3.1"},
        {"ip_end": "10.1.2.255"},
        {"ip_end": "10.1.2.1"},
        {"netmask": "255.0.255.0"},
        {"ip_begin": "10.1.2.1\ninterface=eth0"},
    ],
)
def test_a_dhcp_server_that_makes_no_sense(wrong: dict[str, str]) -> None:
    assert dhcp_server({**SERVER, **wrong}) is None


def test_keys_that_mean_nothing_are_left_out() -> None:
    keys = {
        "ethtool-tx": "ON", "ethtool-rx": "false", "ethtool-speed": "1000", "ethtool-duplex": "full",
        "ethtool-advertise": "0x20", "ethtool-gso": "maybe", "ethtool-speed ": "1", "ethtool-wol": "g",
        "ethtool-lro": "on\noff", "other": "x",
    }  # fmt: skip
    assert ethtool_settings(keys) == {
        "tx": "on", "rx": "off", "speed": "1000", "duplex": "full", "advertise": "0x20",
    }  # fmt: skip
    assert domain_of({"domain": "example.org"}) == "example.org"
    for domain in ("a\nnameserver 192.0.2.1", "a b", "..", "-x", "a" * 300):
        assert domain_of({"domain": domain}) == ""
    assert routes_of({"static-routes": "10.0.0.0/8/2001:db8::1,10.0.0.0/8,x/8/1.2.3.4,1.2.3.4/32/5.6.7.8/9"}) == ()


def test_a_subnet_that_nobody_has() -> None:
    assert str(free_subnet([])) == "172.16.122.0/24"
    assert str(free_subnet(["0.0.0.0/0", "172.16.122.9/30", "2001:db8::1/64"])) == "172.16.123.0/24"
    assert str(free_subnet(["172.16.5.1/16"])) == "172.17.122.0/24"
    assert free_subnet(["172.0.0.1/8"]) is None
