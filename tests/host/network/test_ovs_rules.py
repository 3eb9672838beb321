"""What is decided about Open vSwitch before any of its programs runs."""

from __future__ import annotations

import pytest

from domzero.host.network.openvswitch import flows as ovs_flows
from domzero.host.network.openvswitch.addresses import with_trunks, with_whole_frames
from domzero.host.network.openvswitch.cards import read_note, tell
from domzero.host.network.openvswitch.layout import (
    CardPort,
    OvsBridge,
    Present,
    Uplink,
    commands,
    read_present,
    trunk_name,
    wanted_bridges,
)
from domzero.host.network.openvswitch.tool import plain
from domzero.host.network.plan import BondSpec, BridgeSpec, CardRules, InterfaceSpec, LockingMode, NetworkPlan
from domzero.host.network.protocol import NetworkError

MAC = "02:00:00:00:00:01"
NOTHING = Present({}, {}, frozenset())
SEVEN = BridgeSpec("xapi7", uplink="eth1", tag=7)
LOCKED = CardRules(LockingMode.LOCKED, ("192.0.2.1",), ("2001:db8::1",), 100)


def test_a_note_says_what_the_flows_are_made_from() -> None:
    note = read_note(tell(MAC.upper(), LOCKED))
    assert note is not None
    assert (note.mac, note.rules) == (MAC, LOCKED)
    for nonsense in ("", "{}", "[]", "7", '{"mac": 1, "locking": "open", "ipv4": [], "ipv6": [], "rate": 0}'):
        assert read_note(nonsense) is None


def test_vlans_alone_stand_on_a_bridge_of_their_own_and_then_on_the_network_of_their_uplink() -> None:
    trunk = trunk_name("eth1")
    alone = wanted_bridges(NetworkPlan(bridges=(SEVEN,)), NOTHING, {"eth1": MAC})
    uplink = Uplink("eth1", ("eth1",))
    seven = OvsBridge("xapi7", trunk, 7, mac=MAC)
    assert alone == {trunk: OvsBridge(trunk, uplink=uplink, mac=MAC), "xapi7": seven}
    present = Present(alone, {"vif1.0": CardPort("xapi7", 0x4000, "told")}, frozenset())
    plan = NetworkPlan(bridges=(SEVEN, BridgeSpec("xenbr1", uplink="eth1")))
    wanted = wanted_bridges(plan, present, {"eth1": MAC})
    assert [(bridge.name, bridge.parent) for bridge in wanted.values()] == [("xenbr1", ""), ("xapi7", "xenbr1")]
    words = commands(present, wanted, "netdev")
    assert words[:2] == [["--if-exists", "del-br", "xapi7"], ["--if-exists", "del-br", trunk]]
    assert ["--may-exist", "add-port", "xapi7", "vif1.0"] in words
    assert commands(Present(wanted, present.cards, frozenset()), wanted, "netdev") == []


@pytest.mark.parametrize(
    "plan",
    [
        NetworkPlan(bridges=(SEVEN, SEVEN)),
        NetworkPlan(bridges=(SEVEN, BridgeSpec("xapi8", uplink="eth1", tag=7))),
        NetworkPlan(bridges=(BridgeSpec("a", uplink="eth1"), BridgeSpec("b", uplink="eth1"))),
        NetworkPlan(bridges=(BridgeSpec("xapi0", uplink="eth1", tag=0),)),
        NetworkPlan(bridges=(BridgeSpec("--", uplink="eth1"),)),
        NetworkPlan(bridges=(BridgeSpec("theirs", uplink="eth1"),)),
        NetworkPlan(bonds=(BondSpec("bond0", ("eth1", "eth2"), "lacp"),), bridges=(SEVEN,)),
        NetworkPlan(bonds=(BondSpec("bond0", (), "lacp"),)),
    ],
)
def test_plans_that_cannot_be(plan: NetworkPlan) -> None:
    with pytest.raises(NetworkError):
        wanted_bridges(plan, Present({}, {}, frozenset({"theirs"})), {"eth1": MAC, "eth2": MAC})


def test_what_uplinks_are_asked_for_besides() -> None:
    plan = NetworkPlan((InterfaceSpec("eth1", {"gro": "on", "tx": "off"}),), bridges=(SEVEN, BridgeSpec("xapi0")))
    (interface,) = with_whole_frames(plan).interfaces
    assert interface.settings == {"gro": "off", "lro": "off", "tx": "off"}
    assert with_trunks(plan).bridges == (*plan.bridges, BridgeSpec(trunk_name("eth1"), uplink="eth1"))
    whole = NetworkPlan(bridges=(SEVEN, BridgeSpec("xenbr1", uplink="eth1")))
    assert with_trunks(whole) == whole


def test_cards_that_are_none_get_no_flows() -> None:
    for name, mac in (("vif1.0,actions=NORMAL", MAC), ("eth0", MAC), ("vif1.0", "02:00:00:00:00:01,x")):
        with pytest.raises(NetworkError):
            ovs_flows.restrict(name, 1, mac, LOCKED, 1)
    assert ovs_flows.restrict("vif1.0", 1, MAC, CardRules(), 1) == [ovs_flows.release("vif1.0")]
    meters = {ovs_flows.meter(domid, slot) for domid in range(300) for slot in range(8)}
    assert len(meters) == 2400


def test_rows_of_the_database() -> None:
    assert plain(["set", [["uuid", "a"], 7]]) == ["a", 7]
    assert plain(["map", [["key", ["set", []]]]]) == {"key": []}
    nothing: dict[str, object] = {"mtu_request": [], "mac": [], "ofport_request": [], "error": []}
    port: dict[str, object] = {"fake_bridge": [], "tag": [], "bond_active_slave": [], "external_ids": {}}
    present = read_present(
        {
            "Bridge": [
                {"name": "theirs", "ports": [], "external_ids": {}, "other_config": {}},
                {
                    "name": "xapi0",
                    "ports": ["p1", "p2", "gone"],
                    "external_ids": {"domzero": "bridge"},
                    "other_config": {"hwaddr": MAC},
                },
            ],
            "Port": [
                {**port, "_uuid": "p1", "name": "xapi0", "interfaces": "i1"},
                {
                    **port,
                    "_uuid": "p2",
                    "name": "vif1.0",
                    "interfaces": "i2",
                    "external_ids": {"domzero": "card", "domzero-card": "told"},
                },
            ],
            "Interface": [
                {**nothing, "_uuid": "i1", "name": "xapi0", "mtu_request": 1400},
                {**nothing, "_uuid": "i2", "name": "vif1.0", "ofport_request": 0x4000, "error": "no such device"},
            ],
        }
    )
    assert present.bridges == {"xapi0": OvsBridge("xapi0", mtu=1400, mac=MAC)}
    assert present.cards == {"vif1.0": CardPort("xapi0", 0x4000, "told")}
    assert (present.foreign, present.errors) == (frozenset({"theirs"}), {"vif1.0": "no such device"})
    assert present.free_number() == 0x4001
