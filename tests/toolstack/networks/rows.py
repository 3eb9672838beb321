"""Networks, interfaces and what stands on them, made as clients make them."""

from __future__ import annotations

from typing import Any

from domzero.host.network.plan import BridgeSpec, NetworkPlan
from domzero.idl.types import Ref
from tests.toolstack.vm.world import World

NETWORK: dict[str, Any] = {
    "name_label": "a network", "name_description": "", "other_config": {}, "bridge": "", "MTU": 1500,
}  # fmt: skip


async def new_network(host: World, **fields: Any) -> Ref:
    return str(await host.call("network.create", {**NETWORK, **fields}))


def pif(host: World, device: str, tag: int = -1) -> Ref:
    """The PIF of a device, or of a VLAN on it."""
    for ref, row in host.stack.database.rows("PIF").items():
        if (row.record["device"], row.record["VLAN"]) == (device, tag):
            return ref
    raise AssertionError(f"there is no PIF {device} with tag {tag}")


def bridge(host: World, ref: Ref) -> str:
    """The bridge of a network or of a PIF's network."""
    found = host.stack.database.find("PIF", ref)
    network = ref if found is None else found.record["network"]
    return str(host.get("network", network, "bridge"))


def plan(host: World) -> NetworkPlan:
    """What the simulated host was told last."""
    return host.network.plans[-1]


def planned(host: World, ref: Ref) -> BridgeSpec | None:
    """The bridge of a network or PIF in that plan."""
    name = bridge(host, ref)
    return next((spec for spec in plan(host).bridges if spec.name == name), None)


async def static(host: World, ref: Ref, address: str, gateway: str = "", dns: str = "") -> None:
    await host.call("PIF.reconfigure_ip", ref, "Static", address, "255.255.255.0", gateway, dns)


def pif_rows(host: World) -> dict[Ref, dict[str, Any]]:
    """All PIFs, without what is measured."""
    return {ref: host.row("PIF", ref) for ref in host.stack.database.refs("PIF")}


def bridge_of_card(host: World, vm: Ref) -> str:
    """Where the first card of a running machine is on the host."""
    return host.network.card(host.get("VM", vm, "domid"), 0).bridge
