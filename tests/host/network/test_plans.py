"""From plans to states and from states to steps, where the kernel at hand may lack what the steps would make."""

from __future__ import annotations

from dataclasses import replace

import pytest

from domzero.host.network.addresses import IPV6_STATIC, NOTHING, Addressing, RouteState, ipv4_wanted
from domzero.host.network.bond import kernel_options
from domzero.host.network.changes import Join, Make, SetAddresses, SetMac, SetOptions, Step, Switch, Unmake, steps
from domzero.host.network.dhcp_client import LeaseSettings
from domzero.host.network.ethtool import normalised
from domzero.host.network.layout import BOND, TAP, State, Wanted, bridge_mac, wanted_layout
from domzero.host.network.lease import lease_of
from domzero.host.network.plan import (
    AddressMode,
    AddressSpec,
    BondSpec,
    BridgeSpec,
    DhcpServer,
    InterfaceSpec,
    NetworkPlan,
    Route,
)
from domzero.host.network.planned import noted
from domzero.host.network.protocol import NetworkError
from domzero.host.network.vlan import vlan_name

MACS = {name: f"02:00:00:00:00:{number:02x}" for number, name in enumerate(("eth0", "eth1", "eth2", "eth3"), 1)}
OWN = Addressing(("192.0.2.7/24",), (RouteState("default", "192.0.2.1", 0),))
PRESENT = {
    name: State(mac=mac, mtu=1500, ipv4=OWN if name == "eth0" else NOTHING, ipv6=NOTHING, ipv6_switches=IPV6_STATIC)
    for name, mac in MACS.items()
}
BONDED = BondSpec("bond0", ("eth1", "eth2"), "lacp")
PLAN = NetworkPlan(
    bonds=(BONDED,),
    bridges=(BridgeSpec("xapi1", uplink="bond0"), BridgeSpec("xapi2", uplink="bond0", tag=12, mtu=1400)),
)
TAGGED = BridgeSpec("xapi7", uplink="eth1", tag=7)


def performed(present: dict[str, State], done: list[Step], wanted: Wanted) -> dict[str, State]:
    """What the kernel would have after the steps, by the rules that matter here."""
    there = dict(present)
    for step in done:
        match step:
            case Make(name, state):
                assert name not in there
                assert not state.parent or state.parent in there
                there[name] = replace(state, master="", up=False, ipv4=NOTHING, ipv6=NOTHING)
            case Unmake(name):
                assert not [one for one in there.values() if name in (one.parent, one.master)]
                del there[name]
            case Join(name, master):
                before = there[name]
                assert not master or master in there
                was_member = before.master and there[before.master].kind == BOND
                member = master and there[master].kind == BOND
                assert not (member and before.up), "the kernel takes no member that is switched on"
                up = True if member else False if was_member else before.up
                there[name] = replace(before, master=master, up=up)
            case Switch(name, up):
                there[name] = replace(there[name], up=up)
            case SetAddresses(name, version, addressing):
                assert there[name].up or addressing == NOTHING, "no route by an interface that is switched off"
                before = there[name]
                there[name] = replace(before, ipv4=addressing) if version == 4 else replace(before, ipv6=addressing)
            case SetMac(name, mac):
                there[name] = replace(there[name], mac=mac)
            case SetOptions(name, options):
                there[name] = replace(there[name], options={**there[name].options, **options})
            case _:
                assert step.name in there
    for name, goal in wanted.items():
        if goal is None:
            assert name not in there
        else:
            for key in ("master", "up", "parent", "options"):
                assert getattr(there[name], key) == getattr(goal, key), (name, key)
    return there


def after(present: dict[str, State], plan: NetworkPlan, found: dict[str, State]) -> dict[str, State]:
    wanted = wanted_layout(plan, present, noted(plan, present, found))
    return performed(present, steps(present, wanted), wanted)


def test_a_bond_with_vlans_is_made_in_an_order_that_the_kernel_takes() -> None:
    there = after(PRESENT, PLAN, {})
    assert {name for name, state in there.items() if state.master == "bond0"} == {"eth1", "eth2"}
    assert (there["bond0"].master, there["bond0.12"].master, there["bond0.12"].parent) == ("xapi1", "xapi2", "bond0")
    assert {there[name].mac for name in ("bond0", "bond0.12", "xapi1", "xapi2")} == {MACS["eth1"]}
    assert there["bond0.12"].mtu == 1400
    assert there["eth0"] == PRESENT["eth0"]
    found = noted(PLAN, PRESENT, {})
    back = after(there, NetworkPlan(), found)
    assert {name: (state.master, state.up, state.ipv4) for name, state in back.items()} == {
        name: (state.master, state.up, state.ipv4) for name, state in PRESENT.items()
    }


@pytest.mark.parametrize(
    "change",
    [
        replace(BONDED, mode="active-backup"),
        replace(BONDED, members=("eth1", "eth3")),
        replace(BONDED, members=("eth3", "eth2")),
        replace(BONDED, properties={"miimon": "250"}),
        replace(BONDED, name="bond1"),
    ],
    ids=["mode", "last member", "first member", "interval", "name"],
)
def test_a_bond_changes_under_its_vlans(change: BondSpec) -> None:
    found = noted(PLAN, PRESENT, {})
    there = after(PRESENT, PLAN, {})
    bridges = tuple(replace(bridge, uplink=change.name) for bridge in PLAN.bridges)
    again = after(there, NetworkPlan(bonds=(change,), bridges=bridges), found)
    assert {name for name, state in again.items() if state.master == change.name} == set(change.members)
    assert again[f"{change.name}.12"].master == "xapi2"
    assert again["xapi1"].mac == MACS[change.members[0]]


def test_cards_keep_their_bridge_when_its_uplink_goes() -> None:
    there = after(PRESENT, PLAN, {}) | {"vif1.0": State(kind=TAP, ours=True, master="xapi2")}
    again = after(there, NetworkPlan(), noted(PLAN, PRESENT, {}))
    assert {name for name, state in again.items() if state.ours} == {"xapi2", "vif1.0"}
    assert again["vif1.0"].master == "xapi2"
    assert again["xapi2"].mac == bridge_mac("xapi2")


@pytest.mark.parametrize(
    ("plan", "text"),
    [
        (NetworkPlan(bonds=(replace(BONDED, members=()),)), "no members"),
        (NetworkPlan(bonds=(replace(BONDED, members=("eth1", "eth9")),)), "no interface eth9"),
        (NetworkPlan(bonds=(replace(BONDED, mode="broadcast"),)), "no mode"),
        (NetworkPlan(bonds=(BONDED, replace(BONDED, name="bond1"))), "a member of bond0 and bond1"),
        (replace(PLAN, bridges=(BridgeSpec("xapi1", uplink="eth1"),)), "as well"),
        (NetworkPlan(bonds=(replace(BONDED, properties={"miimon": "-1"}),)), "milliseconds"),
        (NetworkPlan(bonds=(replace(BONDED, properties={"hashing_algorithm": "x"}),)), "hashing_algorithm"),
        (NetworkPlan(bridges=(BridgeSpec("xapi1", uplink="eth1", tag=4095),)), "no VLAN"),
        (NetworkPlan(bridges=(TAGGED, replace(TAGGED, name="xapi8"))), "twice"),
        (NetworkPlan(bridges=(BridgeSpec("../x", uplink="eth1"),)), "no name"),
        (NetworkPlan(interfaces=(InterfaceSpec("eth1", {"mtu": "1e3"}),)), "MTU"),
        (NetworkPlan(bridges=(BridgeSpec("eth1", uplink="eth2"),)), "not ours"),
    ],
)
def test_plans_that_cannot_be(plan: NetworkPlan, text: str) -> None:
    with pytest.raises(NetworkError, match=text):
        wanted_layout(plan, PRESENT, noted(plan, PRESENT, {}))


def test_nothing_is_wanted_of_interfaces_that_the_plan_does_not_name() -> None:
    wanted = wanted_layout(PLAN, PRESENT, noted(PLAN, PRESENT, {}))
    assert wanted.keys() == {"eth1", "eth2", "bond0", "bond0.12", "xapi1", "xapi2"}
    assert wanted_layout(NetworkPlan(), PRESENT, {}) == {}


def test_properties_become_the_kernels_options() -> None:
    assert kernel_options(replace(BONDED, mode="balance-slb")) == {
        "mode": 1,
        "miimon": 100,
        "downdelay": 200,
        "updelay": 31000,
    }
    properties = {
        "miimon": "70",
        "updelay": "100",
        "downdelay": "0",
        "lacp-time": "fast",
        "hashing_algorithm": "src_mac",
    }
    assert kernel_options(replace(BONDED, properties=properties)) == {
        "mode": 4,
        "miimon": 70,
        "updelay": 70,
        "downdelay": 0,
        "xmit_hash_policy": 0,
        "ad_lacp_rate": 1,
    }


def test_names_of_vlans_fit_the_kernel() -> None:
    assert vlan_name("eth0", 4094) == "eth0.4094"
    names = {vlan_name(device, 4094) for device in ("enp130s0f0np0", "enp130s0f0np1")}
    assert len(names) == 2
    assert all(len(name) <= 15 for name in names)


def test_addresses_of_a_bridge() -> None:
    routes = (Route("198.51.100.0/24", "192.0.2.3"), Route("2001:db8::/32", "fe80::1"))
    spec = AddressSpec(AddressMode.STATIC, "192.0.2.7/24", "192.0.2.1", routes=routes)
    assert ipv4_wanted(spec) == Addressing(
        ("192.0.2.7/24",), (RouteState("198.51.100.0/24", "192.0.2.3"), RouteState("default", "192.0.2.1"))
    )
    server = DhcpServer("198.51.100.1/24", "198.51.100.2", "198.51.100.3")
    assert ipv4_wanted(AddressSpec(), server) == Addressing(("198.51.100.1/24",))
    assert ipv4_wanted(AddressSpec(AddressMode.DHCP)) is None
    for wrong in ("192.0.2.7/33", "", "2001:db8::1/64"):
        with pytest.raises(NetworkError):
            ipv4_wanted(replace(spec, address=wrong))


def test_what_a_dhcp_server_says_is_not_believed_blindly() -> None:
    settings = LeaseSettings(
        "xenbr0", accept_dns=True, accept_gateway=True, resolver="", contributions="", uplink="eth0"
    )
    answer = {"ip": "192.0.2.7", "mask": "24", "router": "192.0.2.1 192.0.2.2", "dns": "192.0.2.53 x 192.0.2.54"}
    lease = lease_of(answer, settings)
    assert lease.addressing == Addressing(("192.0.2.7/24",), (RouteState("default", "192.0.2.1"),))
    assert lease.servers == ("192.0.2.53", "192.0.2.54")
    outside = lease_of({**answer, "router": "203.0.113.1"}, settings).addressing.routes
    assert outside == (RouteState("203.0.113.1/32", ""), RouteState("default", "203.0.113.1"))
    classless = {**answer, "staticroutes": "198.51.100.0/24 192.0.2.9 0.0.0.0/0 192.0.2.3 x y"}
    assert lease_of(classless, settings).addressing.routes == (
        RouteState("198.51.100.0/24", "192.0.2.9"),
        RouteState("default", "192.0.2.3"),
    )
    shy = replace(settings, accept_dns=False, accept_gateway=False)
    assert lease_of(answer, shy).addressing.routes == ()
    assert lease_of(answer, shy).servers == ()
    for wrong in ({}, {"ip": "127.0.0.1"}, {"ip": "224.0.0.1"}, {"ip": "0.0.0.0"}, {"ip": "192.0.2.7", "mask": "x"}):
        with pytest.raises(NetworkError):
            lease_of(wrong, settings)


def test_settings_that_mean_nothing_are_left_out(caplog: pytest.LogCaptureFixture) -> None:
    given = {"TX": "on", "tx": " ON ", "speed": "1000", "duplex": "Full", "advertise": "0x2F", "mtu": "9000"}
    assert normalised(given) == {"tx": "on", "speed": "1000", "duplex": "full", "advertise": "0x2f"}
    nonsense = {"rx": "yes", "speed": "0", "duplex": "both", "advertise": "-1", "autoneg": ""}
    assert normalised(nonsense) == {}
    assert caplog.text.count("means nothing") == len(nonsense)
