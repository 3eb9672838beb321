"""The rows of an import: made before the disks are filled, so that everybody sees what is coming; and their end.

Until its disks are there a machine is busy with `import`, as its `current_operations` say; nothing else can begin on
it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from domzero.engine.clock import moment
from domzero.engine.context import Context
from domzero.engine.database import Database
from domzero.engine.transactions import Transaction
from domzero.idl.types import NULL_REF, Ref
from domzero.toolstack.alerts import Alert, tell
from domzero.toolstack.network import vif
from domzero.toolstack.network.network import free_bridge
from domzero.toolstack.network.network_keys import checked_mtu
from domzero.toolstack.stack import Stack
from domzero.toolstack.storage import vbd
from domzero.toolstack.transfer.import_devices import NewCard, NewDrive
from domzero.toolstack.transfer.import_plan import NewMachine, Plan
from domzero.toolstack.vm.creation import create_metrics, remove_machine
from domzero.toolstack.vm.operations import HALTED, SUSPENDED
from domzero.toolstack.vm.rows import refresh_all

IMPORT_TASK: Final = "import_task"
"""The key of a machine's other_config that names the task which made it."""
INCOMPLETE: Final = "import-incomplete"
"""The key of the other_config of what an import has made and not completed yet; it names the import's task."""
NOTES: Final = "import-notes"
"""The key under which it is said what was changed in it, or keeps it from running."""
IMPORTED_WITH_NOTES: Final = Alert("VM_IMPORTED_WITH_NOTES", 3)
"""The host's own: XenServer changes nothing in what it imports."""
OBJECT_CREATION: Final = "object_creation"


@dataclass(slots=True)
class Made:
    """What an import has made so far, by the archive's identifiers."""

    machines: dict[str, Ref] = field(default_factory=dict)
    networks: dict[str, Ref] = field(default_factory=dict)
    disks: dict[str, Ref] = field(default_factory=dict)
    images: dict[str, Ref] = field(default_factory=dict)
    attached: list[tuple[str, Ref, dict[str, Any]]] = field(default_factory=list)
    """Devices (class, reference, fields) that count as attached once a machine is suspended."""


def record_objects(stack: Stack, context: Context, plan: Plan, made: Made) -> None:
    """All rows but those of disks, in one transaction. Raises what drives and cards raise; then there are none."""
    with stack.database.transaction() as transaction:
        for id, fields in plan.found.networks.items():
            made.networks[id] = _network(stack, transaction, context, fields)
        for machine in plan.machines:
            made.machines[machine.id] = _machine(stack, transaction, context, machine)
        for drive in plan.drives:
            _drive(stack, plan, made, drive)
        for card in plan.cards:
            _card(stack, transaction, plan, made, card)
        _relate(transaction, plan, made)
        task = stack.database.get("task", context.task.ref, "other_config")
        transaction.update("task", context.task.ref, other_config={**task, OBJECT_CREATION: "complete"})
    for vm in made.machines.values():
        refresh_all(stack, vm)


def _network(stack: Stack, transaction: Transaction, context: Context, fields: Mapping[str, Any]) -> Ref:
    taken = (row.record["bridge"] for row in stack.database.rows("network").values())
    config = {INCOMPLETE: context.task.ref}
    return transaction.create(
        "network",
        {**fields, "MTU": checked_mtu(fields["MTU"]), "bridge": free_bridge(taken), "other_config": config},
    )


def _machine(stack: Stack, transaction: Transaction, context: Context, machine: NewMachine) -> Ref:
    config = {**machine.fields["other_config"], IMPORT_TASK: context.task.ref, INCOMPLETE: context.task.ref}
    config.pop(NOTES, None)
    return transaction.create("VM", {
        **machine.fields,
        "power_state": HALTED,
        "domid": -1,
        "other_config": config,
        "metrics": create_metrics(transaction, moment(stack.clock.now())),
        "current_operations": {context.task.ref: "import"},
    })  # fmt: skip


def _drive(stack: Stack, plan: Plan, made: Made, drive: NewDrive) -> None:
    vdi = NULL_REF if not drive.disk else made.disks.get(drive.disk) or plan.found.known[drive.disk]
    fields = {**drive.fields, "VM": made.machines[drive.machine], "VDI": vdi, "empty": vdi == NULL_REF}
    ref = vbd.add_drive(stack, fields)
    if drive.fields["currently_attached"]:
        made.attached.append(("VBD", ref, {"currently_attached": True}))


def _card(stack: Stack, transaction: Transaction, plan: Plan, made: Made, card: NewCard) -> None:
    network = made.networks.get(card.network) or plan.found.known[card.network]
    ref = vif.add_card(stack, {**card.fields, "VM": made.machines[card.machine], "network": network})
    if card.fields["MAC"]:
        transaction.update("VIF", ref, MAC_autogenerated=card.fields["MAC_autogenerated"])
    if card.fields["currently_attached"]:
        made.attached.append(("VIF", ref, {"currently_attached": True}))


def _relate(transaction: Transaction, plan: Plan, made: Made) -> None:
    """Snapshots and what they are of, descendants and what they come from."""
    for machine in plan.machines:
        origin, parent = made.machines.get(machine.snapshot_of), made.machines.get(machine.parent)
        vm = made.machines[machine.id]
        transaction.update("VM", vm, snapshot_of=origin or NULL_REF, parent=parent or NULL_REF)
    for disk in plan.found.disks.values():
        if disk.snapshot_of in made.disks:
            transaction.update("VDI", made.disks[disk.id], snapshot_of=made.disks[disk.snapshot_of])


def remove_objects(stack: Stack, made: Made) -> None:
    """Take back what `record_objects` did. What somebody else has removed or begun to use meanwhile is left."""
    database = stack.database
    with database.transaction() as transaction:
        for vm in made.machines.values():
            if database.find("VM", vm) is not None:
                remove_machine(stack, vm)
        for network in made.networks.values():
            remove_network(database, transaction, network)


def remove_network(database: Database, transaction: Transaction, network: Ref) -> None:
    """Remove it, unless it is gone or somebody uses it."""
    found = database.find("network", network)
    if found is not None and not found.record["VIFs"] and not found.record["PIFs"]:
        transaction.destroy("network", network)


def release_objects(stack: Stack, context: Context, made: Made) -> None:
    """What was made is not busy with the import any more."""
    database = stack.database
    with database.transaction() as transaction:
        for cls, refs in (("VM", made.machines), ("VDI", made.disks), ("network", made.networks)):
            for ref in refs.values():
                found = database.find(cls, ref)
                if found is not None:
                    config = {key: value for key, value in found.record["other_config"].items() if key != INCOMPLETE}
                    transaction.update(cls, ref, other_config=config)
        for vm in made.machines.values():
            found = database.find("VM", vm)
            if found is not None:
                running = found.record["current_operations"]
                left = {task: name for task, name in running.items() if task != context.task.ref}
                transaction.update("VM", vm, current_operations=left)
    for vm in made.machines.values():
        refresh_all(stack, vm)


def complete_objects(
    stack: Stack, plan: Plan, made: Made, notes: Mapping[str, tuple[str, ...]], *, suspended: bool
) -> None:
    """Everything is there: machines take the places of those that they replace; those with memory are suspended.

    Without `suspended` they are not: not all of it came.

    `notes` are told of machines where operators look: in their other_config, and as messages.
    """
    database = stack.database
    sleepers = {made.machines[machine.id] for machine in plan.machines if suspended and machine.image in made.images}
    with database.transaction() as transaction:
        for machine in plan.machines:
            vm = made.machines[machine.id]
            if database.find("VM", machine.replaces) is not None:
                remove_machine(stack, machine.replaces)
            if machine.uuid:
                transaction.update("VM", vm, uuid=machine.uuid)
            if vm in sleepers:
                transaction.update("VM", vm, power_state=SUSPENDED)
            if notes[machine.id]:
                _tell(stack, transaction, vm, " ".join(notes[machine.id]))
        for cls, ref, fields in made.attached:
            if database.get(cls, ref, "VM") in sleepers:
                transaction.update(cls, ref, **fields)


def _tell(stack: Stack, transaction: Transaction, vm: Ref, notes: str) -> None:
    record = stack.database.record("VM", vm)
    transaction.update("VM", vm, other_config={**record["other_config"], NOTES: notes})
    if not record["is_a_snapshot"]:
        tell(stack, IMPORTED_WITH_NOTES, "VM", record["uuid"], f"VM '{record['name_label']}': {notes}")
