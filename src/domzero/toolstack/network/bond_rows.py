"""What bonding and its end do to the rows: the bond's own, its members', and those of the VLANs on them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from domzero.engine.transactions import Transaction
from domzero.idl.records import Record
from domzero.idl.types import NULL_REF, Ref
from domzero.toolstack.stack import Stack

NO_ADDRESS: Mapping[str, Any] = {
    "ip_configuration_mode": "None",
    "IP": "",
    "netmask": "",
    "gateway": "",
    "DNS": "",
    "ipv6_configuration_mode": "None",
    "IPv6": (),
    "ipv6_gateway": "",
    "management": False,
    "disallow_unplug": False,
}
"""The fields that move between the primary member and the bond, as the one that is left has them."""
CARRIED_KEYS = ("domain", "peerdns", "defaultroute")
"""The other_config keys that go with the addresses."""


def has_address(pif: Record) -> bool:
    """Whether the host is to have an address there."""
    return (pif["ip_configuration_mode"], pif["ipv6_configuration_mode"]) != ("None", "None")


def primary_of(stack: Stack, members: tuple[Ref, ...]) -> Ref:
    """The member that gives the bond its address and MAC: that of management, one with an address, else the first by
    name."""
    records = {pif: stack.database.record("PIF", pif) for pif in members}
    ordered = sorted(members, key=lambda pif: records[pif]["device"])
    managing = next((pif for pif in ordered if _manages(stack, records[pif])), None)
    return managing or next((pif for pif in ordered if has_address(records[pif])), ordered[0])


def _manages(stack: Stack, pif: Record) -> bool:
    """Whether management traffic goes by the interface, or by a VLAN on it."""
    above = (stack.database.get("VLAN", vlan, "untagged_PIF") for vlan in pif["VLAN_slave_of"])
    return bool(pif["management"]) or any(stack.database.get("PIF", upper, "management") for upper in above)


def bond_rows(
    stack: Stack,
    network: Ref,
    members: tuple[Ref, ...],
    primary: Ref,
    mac: str,
    mode: str,
    properties: Mapping[str, str],
) -> Callable[[Transaction], Ref]:
    """The change that makes the bond; gives its reference."""
    database = stack.database

    def change(transaction: Transaction) -> Ref:
        first = database.record("PIF", primary)
        keys = {key: value for key, value in first["other_config"].items() if key in CARRIED_KEYS}
        master = transaction.create(
            "PIF",
            {
                "device": _free_device(stack),
                "network": network,
                "host": first["host"],
                "MAC": mac or first["MAC"],
                "MTU": first["MTU"],
                "VLAN": -1,
                "physical": False,
                "currently_attached": True,
                "properties": first["properties"],
                "primary_address_type": first["primary_address_type"],
                "other_config": keys,
                "metrics": transaction.create("PIF_metrics", {}),
                **{name: first[name] for name in NO_ADDRESS},
            },
        )
        bond = transaction.create(
            "Bond",
            {
                "master": master,
                "primary_slave": primary,
                "mode": mode,
                "properties": properties,
                "auto_update_mac": not mac,
            },
        )
        for member in members:
            _move_vlans(stack, transaction, member, master)
            _move_cards(stack, transaction, member, network)
            transaction.update("PIF", member, bond_slave_of=bond, currently_attached=False, **NO_ADDRESS)
        return bond

    return change


def dissolve_rows(stack: Stack, bond: Ref) -> Callable[[Transaction], None]:
    """The change that ends the bond."""
    database = stack.database

    def change(transaction: Transaction) -> None:
        record = database.record("Bond", bond)
        master = database.record("PIF", record["master"])
        heir = record["primary_slave"] if record["primary_slave"] in record["slaves"] else record["slaves"][0]
        attached = master["currently_attached"]
        _move_vlans(stack, transaction, record["master"], heir)
        _move_cards(stack, transaction, record["master"], database.get("PIF", heir, "network"))
        for member in record["slaves"]:
            transaction.update("PIF", member, bond_slave_of=NULL_REF, currently_attached=attached)
        keys = {key: value for key, value in master["other_config"].items() if key in CARRIED_KEYS}
        others = {
            key: value for key, value in database.get("PIF", heir, "other_config").items() if key not in CARRIED_KEYS
        }
        transaction.update(
            "PIF",
            heir,
            other_config={**others, **keys},
            primary_address_type=master["primary_address_type"],
            **{name: master[name] for name in NO_ADDRESS},
        )
        transaction.destroy("Bond", bond)
        transaction.destroy("PIF", record["master"])
        if database.find("PIF_metrics", master["metrics"]) is not None:
            transaction.destroy("PIF_metrics", master["metrics"])

    return change


def _move_vlans(stack: Stack, transaction: Transaction, source: Ref, target: Ref) -> None:
    """Have the VLANs of one PIF carried by another."""
    database = stack.database
    carrier = database.record("PIF", target)
    for vlan in database.get("PIF", source, "VLAN_slave_of"):
        transaction.update("VLAN", vlan, tagged_PIF=target)
        untagged = database.get("VLAN", vlan, "untagged_PIF")
        transaction.update("PIF", untagged, device=carrier["device"], metrics=carrier["metrics"])


def cards_of(stack: Stack, pif: Ref) -> tuple[Ref, ...]:
    """The cards on the network of a PIF."""
    row = stack.database.find("network", stack.database.get("PIF", pif, "network"))
    return () if row is None else row.record["VIFs"]


def _move_cards(stack: Stack, transaction: Transaction, pif: Ref, network: Ref) -> None:
    """Have the cards on a PIF's network on another one: theirs leads nowhere any more."""
    for vif in cards_of(stack, pif):
        transaction.update("VIF", vif, network=network)


def _free_device(stack: Stack) -> str:
    """The first `bondN` that no PIF of the host has."""
    rows = stack.database.rows("PIF").values()
    taken = {row.record["device"] for row in rows if row.record["host"] == stack.host}
    taken |= stack.networking.present or frozenset()
    number = 0
    while f"bond{number}" in taken:
        number += 1
    return f"bond{number}"
