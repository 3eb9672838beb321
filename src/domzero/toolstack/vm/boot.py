"""From a machine that does not run to one that does: the steps of every start, reboot and resume."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from domzero.engine.clock import moment
from domzero.engine.steps import Steps
from domzero.engine.transactions import Transaction
from domzero.host.hypervisor.protocol import DomainNotFoundError, DomainStatus, GuestProcessor, RunState
from domzero.host.hypervisor.spec import DiskSpec, MachineSpec, NicSpec
from domzero.idl.types import NULL_REF, Ref
from domzero.toolstack.figures import state_fields
from domzero.toolstack.network.cards import connect_card
from domzero.toolstack.stack import Stack
from domzero.toolstack.vm import attachment, disk_loader, failures, installer
from domzero.toolstack.vm.consoles import open_consoles
from domzero.toolstack.vm.memory_needs import memory_overhead
from domzero.toolstack.vm.operations import PAUSED, RUNNING
from domzero.toolstack.vm.owner import Domain, Machine
from domzero.toolstack.vm.rows import refresh_all, remove_guest_metrics
from domzero.toolstack.vm.specification import as_booted, boot_record, is_hvm, machine_spec, nic_slot

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Boot:
    """How a machine comes up. `image` is a saved memory to go on from; `bounces` see `Domain`."""

    host: Ref
    paused: bool = False
    image: Path | None = None
    bounces: int = 0
    progress: Callable[[float], None] = lambda _share: None
    """Told how much is done, 0 to 1, where that takes long."""


@dataclass(frozen=True, slots=True)
class Sizes:
    """What the guest was booted with: bytes left by the balloon, virtual processors, and what differs from the row."""

    memory_target: int
    vcpus: int
    overrides: Mapping[str, Any] = field(default_factory=dict)
    """Fields of the machine that did not hold for this boot, and what did."""
    installation: installer.Installation = field(default_factory=installer.Installation)


async def boot(stack: Stack, machine: Machine, how: Boot) -> None:
    """Run the machine, whose turn the caller holds, as a new domain. On failure nothing of it is left.

    A start takes all drives and cards of the machine; going on from an image takes those that it was saved with.
    """
    vm = machine.vm
    record = stack.database.record("VM", vm)
    vbds, vifs = _devices(stack, record, saved=how.image is not None)
    before = attachment.state(stack, vm, vbds, vifs)
    async with Steps() as steps:
        installation = await _prepare(stack, steps, vm, how)
        await steps.do(
            "reserve devices",
            lambda: attachment.reserve(stack, vm, how.host, vbds, vifs),
            lambda: attachment.release(stack, before),
        )
        domid = stack.machines.next_domid()
        disks = await attachment.disk_specs(stack, vbds)
        overrides = dict(installation.fields)
        if how.image is None:
            overrides |= await _look_for_kernel(stack, steps, vm, record, installation, disks)
        await steps.do("remember the intent", stack.database.durable)
        nics = [await _connect(stack, steps, vif, domid) for vif in vifs]
        saved = how.image is not None
        booted = as_booted(record) if saved else {**record, **overrides}
        spec = machine_spec(vm, booted, domid, disks, tuple(nics), stack.settings, saved=saved)
        stack.machines.expect(machine, Domain(domid, stack.clock.monotonic(), how.bounces))
        steps.on_failure("forget the domain", lambda: stack.machines.forget(machine))
        status = await steps.do(
            "build the domain", lambda: _build(stack, vm, spec, how), lambda: end_domain(stack, domid)
        )
        sizes = Sizes(spec.memory_target, spec.vcpus, overrides, installation)
        await steps.do(
            "record the domain",
            lambda: record_running(stack, vm, sizes, status, how.host, started=how.image is None),
        )
        stack.machines.built(machine, status)
    refresh_all(stack, vm)


async def _prepare(stack: Stack, steps: Steps, vm: Ref, how: Boot) -> installer.Installation:
    """What takes the place of the machine's own settings for a boot of its installer."""
    if how.image is not None:
        return installer.Installation()
    uuid = stack.database.get("VM", vm, "uuid")
    return await steps.do(
        "fetch the installer",
        lambda: installer.prepare(stack, vm, how.progress),
        lambda: installer.discard(stack, uuid),
    )


async def _look_for_kernel(
    stack: Stack,
    steps: Steps,
    vm: Ref,
    record: Mapping[str, Any],
    installation: installer.Installation,
    disks: tuple[DiskSpec, ...],
) -> dict[str, Any]:
    """What takes the place of the machine's own settings for a boot of a kernel on its disk, or on a disc."""

    async def look() -> dict[str, Any]:
        on_disc = await disk_loader.kernel_on_disc(stack, vm, record, installation.plan, disks)
        return on_disc or await disk_loader.kernel_on_disk(stack, vm, {**record, **installation.fields}, disks)

    return await steps.do("look for a kernel", look, lambda: installer.discard(stack, record["uuid"]))


def _devices(stack: Stack, record: Mapping[str, Any], *, saved: bool) -> tuple[tuple[Ref, ...], tuple[Ref, ...]]:
    if not saved:
        return record["VBDs"], record["VIFs"]
    get = stack.database.get
    return (
        tuple(vbd for vbd in record["VBDs"] if get("VBD", vbd, "currently_attached")),
        tuple(vif for vif in record["VIFs"] if get("VIF", vif, "currently_attached")),
    )


async def _connect(stack: Stack, steps: Steps, vif: Ref, domid: int) -> NicSpec:
    slot = nic_slot(stack.database.record("VIF", vif))
    return await steps.do(
        "connect a card",
        lambda: connect_card(stack, vif, domid),
        lambda: stack.network.disconnect(domid, slot),
    )


async def _build(stack: Stack, vm: Ref, spec: MachineSpec, how: Boot) -> DomainStatus:
    with failures.starting(stack, vm):
        if how.image is None:
            return await stack.hypervisor.start(spec, paused=how.paused)
        return await stack.hypervisor.restore(spec, how.image, paused=how.paused)


async def end_domain(stack: Stack, domid: int) -> None:
    """Destroy the domain; one that has ended already is no error. Raises `HypervisorError`."""
    try:
        await stack.hypervisor.destroy(domid)
    except DomainNotFoundError:
        log.debug("domain %d had ended already", domid)


def record_running(stack: Stack, vm: Ref, spec: Sizes, status: DomainStatus, host: Ref, *, started: bool) -> None:
    """The one transaction after which everybody sees a running machine; `started` tells a new boot from a resume."""
    record = stack.database.record("VM", vm)
    hvm = is_hvm(record)
    with stack.database.transaction(observed=True) as transaction:
        changes: dict[str, Any] = {}
        if started:
            remove_guest_metrics(stack, transaction, vm)
            changes = {
                "last_booted_record": boot_record({**record, **spec.overrides}),
                "last_boot_CPU_flags": cpu_flags(status.processor),
                "requires_reboot": False,
                **spec.installation.after(record),
            }
        transaction.update(
            "VM",
            vm,
            power_state=RUNNING if status.state is RunState.RUNNING else PAUSED,
            resident_on=host,
            scheduled_to_be_resident_on=NULL_REF,
            domid=status.domid,
            domarch=stack.hypervisor.capabilities().architectures[0],
            memory_target=spec.memory_target,
            memory_overhead=memory_overhead(record),
            suspend_VDI=NULL_REF,
            **changes,
        )
        _record_devices(stack, transaction, vm)
        _record_metrics(stack, transaction, vm, spec, started=started)
        open_consoles(stack, transaction, vm, hvm=hvm)


def cpu_flags(processor: GuestProcessor | None) -> dict[str, str]:
    """`VM.last_boot_CPU_flags`: the features as words of eight hexadecimal digits with hyphens between; empty when
    the hypervisor does not tell."""
    if processor is None:
        return {}
    return {"vendor": processor.vendor, "features": "-".join(f"{word:08x}" for word in processor.features)}


def _record_devices(stack: Stack, transaction: Transaction, vm: Ref) -> None:
    for vbd in stack.database.get("VM", vm, "VBDs"):
        drive = stack.database.record("VBD", vbd)
        if drive["currently_attached"]:
            transaction.update("VBD", vbd, **attachment.attached_fields(drive))
    for vif in stack.database.get("VM", vm, "VIFs"):
        if stack.database.get("VIF", vif, "currently_attached"):
            transaction.update("VIF", vif, status_code=0, status_detail="")


def _record_metrics(stack: Stack, transaction: Transaction, vm: Ref, spec: Sizes, *, started: bool) -> None:
    now = moment(stack.clock.now())
    record = stack.database.record("VM", vm)
    fields: dict[str, Any] = {
        "memory_actual": spec.memory_target,
        **state_fields(spec.vcpus, record["power_state"]),
        "VCPUs_params": record["VCPUs_params"],
        "hvm": is_hvm(record),
        "current_domain_type": "hvm" if is_hvm(record) else "pv",
        "last_updated": now,
    }
    if started:
        fields["start_time"] = now
    if stack.database.find("VM_metrics", record["metrics"]) is None:
        transaction.update("VM", vm, metrics=transaction.create("VM_metrics", fields))
    else:
        transaction.update("VM_metrics", record["metrics"], **fields)
