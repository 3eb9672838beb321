"""What can be changed of a guest while it runs."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from domzero.engine.binding import implements
from domzero.engine.context import Context
from domzero.engine.errors import ApiError
from domzero.host.hypervisor.protocol import DomainNotFoundError, HypervisorError
from domzero.idl.types import Ref
from domzero.toolstack.figures import state_fields
from domzero.toolstack.stack import Stack
from domzero.toolstack.vm.admission import bad_power_state
from domzero.toolstack.vm.failures import acting_on
from domzero.toolstack.vm.memory_constraints import check_multiplier
from domzero.toolstack.vm.memory_needs import overhead_of
from domzero.toolstack.vm.placement import growth_obstacle
from domzero.toolstack.vm.rows import refresh_all
from domzero.toolstack.vm.specification import HIGHEST_WEIGHT, boot_record, read_boot_record, scheduling_of

TRIGGERS: Final = ("nmi", "reset", "power", "sleep")
SCHEDULING: Final = ("weight", "cap", "mask")
BALLOON_PATIENCE: Final = 30.0
"""Seconds that a guest may take to reach its memory target."""
BALLOON_LOOK: Final = 0.5
"""Seconds between two looks at how far it is."""
CLOSE_ENOUGH: Final = 4 << 20
"""Bytes between memory in use and the target that do not matter."""


@implements("VM.send_sysrq")
async def send_sysrq(stack: Stack, context: Context, vm: Ref, key: str) -> None:
    """Press Alt-SysRq and the key in the guest: a letter, a digit, or a space for the list of what there is."""
    if len(key) != 1 or not key.isascii() or not (key.isalnum() or key == " "):
        raise ApiError("INVALID_VALUE", "key", key)
    async with stack.gates["VM"].operation(context, vm, "send_sysrq"), stack.machines.running(vm) as domain:
        with acting_on(vm):
            await stack.hypervisor.send_sysrq(domain.domid, key)


@implements("VM.send_trigger")
async def send_trigger(stack: Stack, context: Context, vm: Ref, trigger: str) -> None:
    """Send the guest a hardware signal: `nmi`, `reset`, `power` or `sleep`."""
    if trigger not in TRIGGERS:
        raise ApiError("INVALID_VALUE", "trigger", trigger)
    async with stack.gates["VM"].operation(context, vm, "send_trigger"), stack.machines.running(vm) as domain:
        with acting_on(vm):
            await stack.hypervisor.send_trigger(domain.domid, trigger)


@implements("VM.set_VCPUs_number_live")
async def set_VCPUs_number_live(stack: Stack, context: Context, self: Ref, nvcpu: int) -> None:
    """Bring that many virtual processors online, until the next boot. OPERATION_NOT_ALLOWED where the guest cannot."""
    async with stack.gates["VM"].operation(context, self, "changing_VCPUs_live"):
        record = stack.database.record("VM", self)
        most = read_boot_record(record["last_booted_record"], record)["VCPUs_max"]
        if not 1 <= nvcpu <= most:
            raise ApiError("INVALID_VALUE", "nvcpu", str(nvcpu))
        async with stack.machines.running(self) as domain:
            with _possible(self):
                await stack.hypervisor.set_vcpus(domain.domid, nvcpu)
            _record_vcpus(stack, self, nvcpu)


def _record_vcpus(stack: Stack, vm: Ref, count: int) -> None:
    """A saved guest is resumed with the processors it had, so the boot record follows."""
    record = stack.database.record("VM", vm)
    booted = {**read_boot_record(record["last_booted_record"], record), "VCPUs_at_startup": count}
    with stack.database.transaction(observed=True) as transaction:
        transaction.update("VM", vm, last_booted_record=boot_record(booted))
        transaction.update("VM_metrics", record["metrics"], **state_fields(count, record["power_state"]))


@implements("VM.add_to_VCPUs_params_live")
async def add_to_VCPUs_params_live(stack: Stack, context: Context, self: Ref, key: str, value: str) -> None:
    """Change how a running machine's processors share the host's: `weight`, or `mask`, on which of them they run.

    A `cap` is recorded only. Raises INVALID_VALUE, and OPERATION_NOT_ALLOWED where the host does not let the daemon.
    """
    _check_scheduling(stack, key, value)
    gate = stack.gates["VM"]
    async with gate.operation(context, self, "changing_VCPUs_live"), stack.machines.running(self) as domain:
        record = stack.database.record("VM", self)
        params = {**record["VCPUs_params"], key: value}
        with _possible(self):
            await stack.hypervisor.schedule(domain.domid, scheduling_of(params))
        with stack.database.transaction(observed=True) as transaction:
            transaction.update("VM", self, VCPUs_params=params)
            transaction.update("VM_metrics", record["metrics"], VCPUs_params=params)


@contextmanager
def _possible(vm: Ref) -> Iterator[None]:
    """OPERATION_NOT_ALLOWED for what guest or host cannot do, VM_BAD_POWER_STATE when the domain ended on the way."""
    try:
        yield
    except DomainNotFoundError as error:
        raise bad_power_state(vm, ("Running",), "Halted") from error
    except HypervisorError as error:
        raise ApiError("OPERATION_NOT_ALLOWED", str(error)) from error


def _check_scheduling(stack: Stack, key: str, value: str) -> None:
    if key not in SCHEDULING:
        raise ApiError("INVALID_VALUE", "key", key)
    numbers = value.split(",") if key == "mask" else [value]
    if not all(number.isascii() and number.isdecimal() and len(number) < 7 for number in numbers):
        raise ApiError("INVALID_VALUE", "value", value)
    if key == "weight" and not 1 <= int(value) <= HIGHEST_WEIGHT:
        raise ApiError("INVALID_VALUE", "value", value)
    present = {row.record["number"] for row in stack.database.rows("host_cpu").values()}
    if key == "mask" and not present.issuperset(map(int, numbers)):
        raise ApiError("INVALID_VALUE", "value", value)


@implements("VM.set_memory_target_live")
async def set_memory_target_live(stack: Stack, context: Context, self: Ref, target: int) -> None:
    """Ask the guest's balloon to leave it that many bytes; between the static limits, or MEMORY_CONSTRAINT_VIOLATION.

    Raises HOST_NOT_ENOUGH_FREE_MEMORY where the host has not so much left.
    """
    async with stack.gates["VM"].operation(context, self, "changing_memory_live"):
        record = stack.database.record("VM", self)
        if not record["memory_static_min"] <= target <= record["memory_static_max"]:
            raise ApiError("MEMORY_CONSTRAINT_VIOLATION", "static_min <= target <= static_max")
        async with stack.machines.running(self) as domain:
            more = target - stack.database.get("VM", self, "memory_target")
            if (error := growth_obstacle(stack, self, more)) is not None:
                raise error
            with acting_on(self):
                await stack.hypervisor.set_memory_target(domain.domid, target)
            with stack.database.transaction(observed=True) as transaction:
                transaction.update("VM", self, memory_target=target)


@implements("VM.wait_memory_target_live", abandoned_with_caller=True)
async def wait_memory_target_live(stack: Stack, context: Context, self: Ref) -> None:
    """Return when the guest is at its memory target. VMS_FAILED_TO_COOPERATE when it takes too long."""
    async with stack.gates["VM"].operation(context, self, "awaiting_memory_live"):
        deadline = stack.clock.monotonic() + BALLOON_PATIENCE
        with context.task.cancellable():
            while not await _at_target(stack, self):
                if stack.clock.monotonic() >= deadline:
                    raise ApiError("VMS_FAILED_TO_COOPERATE")
                await stack.clock.sleep(BALLOON_LOOK)


async def _at_target(stack: Stack, vm: Ref) -> bool:
    domain = stack.machines.domain(vm)
    if domain is None:
        raise bad_power_state(vm, ("Running",), stack.database.get("VM", vm, "power_state"))
    with acting_on(vm):
        statistics = await stack.hypervisor.statistics(domain.domid)
    return bool(abs(statistics.memory_actual - stack.database.get("VM", vm, "memory_target")) <= CLOSE_ENOUGH)


@implements("VM.set_shadow_multiplier_live")
async def set_shadow_multiplier_live(stack: Stack, context: Context, self: Ref, multiplier: float) -> None:
    """Change what is set aside for a running machine's page tables, or HOST_NOT_ENOUGH_FREE_MEMORY."""
    check_multiplier("multiplier", multiplier)
    async with stack.gates["VM"].operation(context, self, "changing_shadow_memory_live"):
        record = stack.database.record("VM", self)
        overhead = overhead_of(record["memory_static_max"], record["VCPUs_max"], multiplier)
        if (error := growth_obstacle(stack, self, overhead - record["memory_overhead"])) is not None:
            raise error
        with stack.database.transaction() as transaction:
            transaction.update("VM", self, HVM_shadow_multiplier=multiplier, memory_overhead=overhead)


@implements("VM.pool_migrate")
async def pool_migrate(stack: Stack, context: Context, vm: Ref, host: Ref, options: dict[str, str]) -> None:
    """Move a running machine to another host of the pool; one that is there already stays where it is."""
    stack.database.row("host", host)
    async with stack.gates["VM"].operation(context, vm, "pool_migrate"):
        here = stack.database.get("VM", vm, "resident_on")
        if host != here:
            raise ApiError("VM_MIGRATE_FAILED", vm, here, host, "the host cannot take over running machines")
    refresh_all(stack, vm)
