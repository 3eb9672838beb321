"""Reads from the rows what a guest is told of its machine."""

from __future__ import annotations

from collections.abc import Iterator

from domzero.engine.database import Database
from domzero.idl.types import Ref
from domzero.toolstack.vm.device_names import parse_vbd_position, parse_vif_position
from domzero.toolstack.xenstore.nodes import Card, Drive, Facts


def facts_of(database: Database, vm: Ref, domid: int) -> Facts:
    """What is to be told to the machine's domain of that number, which need not be on record yet."""
    record = database.record("VM", vm)
    metrics = database.find("VM_metrics", record["metrics"])
    runs = record["domid"] == domid
    return Facts(
        domid=domid,
        uuid=record["uuid"],
        name=record["name_label"],
        memory_target=record["memory_target"] if runs else record["memory_dynamic_max"],
        memory_dynamic_min=record["memory_dynamic_min"],
        memory_dynamic_max=record["memory_dynamic_max"],
        memory_static_max=record["memory_static_max"],
        vcpus=metrics.record["VCPUs_number"] if runs and metrics else record["VCPUs_at_startup"],
        vcpus_max=record["VCPUs_max"],
        drives=tuple(_drives(database, record["VBDs"])),
        cards=tuple(_cards(database, record["VIFs"])),
        data=record["xenstore_data"],
    )


def _drives(database: Database, vbds: tuple[Ref, ...]) -> Iterator[Drive]:
    for vbd in vbds:
        drive = database.record("VBD", vbd)
        slot = parse_vbd_position(drive["userdevice"])
        if drive["currently_attached"] and slot is not None:
            is_cd = drive["type"] == "CD"
            yield Drive(slot, is_cd, is_cd or drive["mode"] == "RO")


def _cards(database: Database, vifs: tuple[Ref, ...]) -> Iterator[Card]:
    for vif in vifs:
        card = database.record("VIF", vif)
        slot = parse_vif_position(card["device"])
        if card["currently_attached"] and slot is not None:
            yield Card(slot, card["MAC"].lower(), card["MTU"])
