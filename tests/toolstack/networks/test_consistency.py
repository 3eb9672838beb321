"""Whatever is done to VLANs, bonds and interfaces, in any order: rows and host agree, and undoing it all restores."""

from __future__ import annotations

import asyncio
import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from domzero.engine.errors import ApiError
from domzero.idl.types import NULL_REF, Ref
from domzero.toolstack.network.network_plan import plan_for, rows_of
from tests.toolstack.networks.rows import new_network, pif, pif_rows
from tests.toolstack.vm.world import World, world

NETWORKS = 3
ACTIONS = (
    "make VLAN", "make VLAN", "end VLAN", "make bond", "make bond", "end bond", "plug", "unplug", "address", "forget",
    "scan", "manage",
)  # fmt: skip
Move = tuple[str, int, int, bool]
"""What, on which, with which value, and whether the host refuses."""
MOVES = st.lists(st.tuples(st.sampled_from(ACTIONS), st.integers(0, 5), st.integers(0, 3), st.booleans()), max_size=25)


@settings(max_examples=6, deadline=None)
@given(MOVES)
def test_rows_and_host_agree_whatever_is_done(moves: list[Move]) -> None:
    play_anew(moves)


@pytest.mark.slow
@settings(max_examples=50, deadline=None)
@given(MOVES)
def test_rows_and_host_still_agree(moves: list[Move]) -> None:
    play_anew(moves)


def play_anew(moves: list[Move]) -> None:
    with tempfile.TemporaryDirectory() as directory:
        asyncio.run(_play(Path(directory), moves))


async def _play(directory: Path, moves: list[Move]) -> None:
    async with world(directory) as host:
        await host.call("PIF.reconfigure_ip", pif(host, "eth0"), "None", "", "", "", "")
        networks = [await new_network(host) for _ in range(NETWORKS)]
        for what, which, value, refused in moves:
            before, plans = _rows(host), list(host.network.plans)
            if refused:
                host.network.faults["apply"] = "refused"
            failed = await _act(host, networks, what, which, value)
            host.network.faults.clear()
            if failed:
                assert (_rows(host), host.network.plans) == (before, plans), what
            _check(host)
        await _undo_all(host)
        _check(host)
        assert {row["device"]: row["bond_slave_of"] for row in pif_rows(host).values()} == {
            "eth0": NULL_REF, "eth1": NULL_REF,
        }  # fmt: skip
        assert host.network.plans[-1].bonds == ()
        assert all(spec.tag == -1 for spec in host.network.plans[-1].bridges)


def _rows(host: World) -> dict[str, Any]:
    database = host.stack.database
    return {cls: {ref: host.row(cls, ref) for ref in database.refs(cls)} for cls in ("PIF", "VLAN", "Bond")}


def _pick(refs: tuple[Ref, ...], which: int) -> Ref:
    return refs[which % len(refs)] if refs else "OpaqueRef:none"


async def _act(host: World, networks: list[Ref], what: str, which: int, value: int) -> bool:
    """Whether it was refused. Mostly what can be done is tried: nonsense is for other tests."""
    database = host.stack.database
    pifs = {ref: row.record for ref, row in database.rows("PIF").items()}
    some = _pick(tuple(pifs), which)
    carrier = _pick(
        tuple(ref for ref, pif in pifs.items() if pif["VLAN"] < 0 and pif["bond_slave_of"] == NULL_REF), which
    )
    physical = tuple(ref for ref, pif in pifs.items() if pif["physical"])
    free = _pick(tuple(ref for ref in networks if not database.get("network", ref, "PIFs")), value)
    calls: dict[str, tuple[Any, ...]] = {
        "make VLAN": ("VLAN.create", carrier, value, free),
        "end VLAN": ("VLAN.destroy", _pick(database.refs("VLAN"), which)),
        "make bond": ("Bond.create", free, physical if value else [_pick(physical, which)], "", "lacp", {}),
        "end bond": ("Bond.destroy", _pick(database.refs("Bond"), which)),
        "plug": ("PIF.plug", some),
        "unplug": ("PIF.unplug", some),
        "address": ("PIF.reconfigure_ip", some, "Static", f"198.51.{value}.5", "255.255.255.0", "", ""),
        "forget": ("PIF.forget", some),
        "scan": ("PIF.scan", host.stack.host),
        "manage": ("host.management_reconfigure", some),
    }
    try:
        await host.call(*calls[what])
    except ApiError as error:
        if error.code == "INTERNAL_ERROR":
            raise
        # An interface may have been plugged before it turns out to have no address.
        return what != "manage"
    return False


def _check(host: World) -> None:
    database = host.stack.database
    fresh = plan_for(rows_of(database, host.stack.host, present=host.stack.networking.present))
    plan = host.network.plans[-1]
    assert host.stack.networking.plan == plan
    assert {(spec.name, spec.uplink, spec.tag) for spec in plan.bridges if spec.uplink} == {
        (spec.name, spec.uplink, spec.tag) for spec in fresh.bridges if spec.uplink
    }
    assert [spec.addresses for spec in plan.bridges if spec.uplink] == [
        spec.addresses for spec in fresh.bridges if spec.uplink
    ]
    assert plan.bonds == fresh.bonds
    assert [spec.device for spec in plan.interfaces] == [spec.device for spec in fresh.interfaces]
    assert len({spec.name for spec in plan.bridges}) == len(plan.bridges)
    for ref, row in database.rows("VLAN").items():
        tagged, untagged = (database.record("PIF", row.record[end]) for end in ("tagged_PIF", "untagged_PIF"))
        assert (untagged["device"], untagged["VLAN"]) == (tagged["device"], row.record["tag"])
        assert (untagged["VLAN_master_of"], tagged["bond_slave_of"]) == (ref, NULL_REF)
    for ref, row in database.rows("Bond").items():
        assert database.get("PIF", row.record["master"], "bond_master_of") == (ref,)
        assert row.record["primary_slave"] in row.record["slaves"]
    for row in database.rows("network").values():
        assert len(row.record["PIFs"]) <= 1
    assert sum(1 for row in database.rows("PIF").values() if row.record["management"]) <= 1


async def _undo_all(host: World) -> None:
    database = host.stack.database
    for ref, row in database.rows("PIF").items():
        if row.record["management"]:
            host.change("PIF", ref, management=False, disallow_unplug=False)
    for vlan in database.refs("VLAN"):
        await host.call("VLAN.destroy", vlan)
    for bond in database.refs("Bond"):
        await host.call("Bond.destroy", bond)
    await host.call("PIF.scan", host.stack.host)
    for ref in database.refs("PIF"):
        await host.call("PIF.reconfigure_ip", ref, "None", "", "", "", "")
        await host.call("PIF.plug", ref)
