"""Open vSwitch with the kernel's datapath: what the tests of its networks say of the one in user space."""

from __future__ import annotations

import subprocess
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from domzero.host.network.openvswitch.backend import KERNEL
from tests.host.network import test_ovs, test_ovs_bonds
from tests.host.network.stage import network_namespace
from tests.host.network.switched import SwitchedHost, far_ends, host_with_cables

Check = Callable[[SwitchedHost], Awaitable[None]]
WiredCheck = Callable[[SwitchedHost, tuple[int, int]], Awaitable[None]]


@pytest.fixture(autouse=True)
def module() -> None:
    subprocess.run(["modprobe", "openvswitch"], check=True, timeout=60)


@pytest.mark.parametrize(
    "check",
    [
        test_ovs.test_cards_of_one_network_reach_each_other,
        test_ovs.test_the_same_plan_again_changes_nothing,
        test_ovs.test_an_uplink_gives_its_place_to_the_bridge_and_gets_back_what_it_had,
        test_ovs.test_an_uplink_of_vlans_alone_keeps_its_addresses_within_reach,
        test_ovs.test_a_plan_that_fails_leaves_what_was_there,
        test_ovs.test_what_linux_bridges_had_is_taken_over,
    ],
)
async def test_networks(tmp_path: Path, check: Check) -> None:
    with network_namespace() as namespace, network_namespace() as elsewhere:
        async with host_with_cables(namespace, elsewhere, tmp_path, KERNEL) as host:
            await check(host)


@pytest.mark.parametrize(
    "check",
    [
        test_ovs.test_vlans_leave_and_come_with_their_tags,
        test_ovs.test_networks_change_under_cards,
        test_ovs_bonds.test_a_bond_goes_on_when_a_cable_fails,
    ],
)
async def test_cables(tmp_path: Path, check: WiredCheck) -> None:
    with network_namespace() as namespace, network_namespace() as elsewhere:
        async with (
            host_with_cables(namespace, elsewhere, tmp_path, KERNEL) as host,
            far_ends(elsewhere, tmp_path / "elsewhere") as wires,
        ):
            await check(host, wires)
