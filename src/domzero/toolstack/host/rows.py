"""The rows that stand for this machine: made at the first start, brought up to date at every later one."""

from __future__ import annotations

from datetime import UTC, datetime

from domzero.engine.clock import moment
from domzero.engine.transactions import Transaction
from domzero.host.metrics.protocol import MachineInfo
from domzero.idl.types import NULL_REF, Ref
from domzero.toolstack.host.description import host_fields, processor_fields
from domzero.toolstack.stack import Stack


def ensure_pool_and_host(stack: Stack, machine: MachineInfo) -> None:
    """Make or refresh the pool, the host, its processors and its control domain; sets `stack.host` and `stack.pool`."""
    database = stack.database
    with database.transaction() as transaction:
        hosts = database.refs("host")
        stack.host = hosts[0] if hosts else _create_host(transaction, machine)
        pools = database.refs("pool")
        stack.pool = pools[0] if pools else transaction.create("pool", {"master": stack.host})
    with database.transaction() as transaction:
        fields = host_fields(machine, stack.hypervisor.capabilities(), stack.settings.version, stack.network.mode())
        transaction.update("host", stack.host, address=stack.settings.address, **fields)
        transaction.update("pool", stack.pool, cpu_info=fields["cpu_info"])
        _refresh_metrics(stack, transaction, machine)
        _replace_processors(stack, transaction, machine)
        _ensure_control_domain(stack, transaction, machine)


def _create_host(transaction: Transaction, machine: MachineInfo) -> Ref:
    metrics = transaction.create("host_metrics", {"memory_total": machine.memory.total})
    return transaction.create(
        "host",
        {
            "name_label": machine.hostname,
            "name_description": "A Linux machine that runs domzero",
            "metrics": metrics,
            "enabled": True,
            "other_config": {},
        },
    )


def _refresh_metrics(stack: Stack, transaction: Transaction, machine: MachineInfo) -> None:
    now = moment(stack.clock.now())
    boot = {"boot_time": f"{machine.boot_time:.0f}.", "agent_start_time": f"{stack.clock.now().timestamp():.0f}."}
    other_config = {**stack.database.get("host", stack.host, "other_config"), **boot}
    transaction.update("host", stack.host, other_config=other_config)
    transaction.update(
        "host_metrics",
        stack.database.get("host", stack.host, "metrics"),
        memory_total=machine.memory.total,
        memory_free=machine.memory.free,
        live=True,
        last_updated=now,
    )


def _replace_processors(stack: Stack, transaction: Transaction, machine: MachineInfo) -> None:
    known = {row.record["number"]: ref for ref, row in stack.database.rows("host_cpu").items()}
    for processor in machine.processors:
        fields = processor_fields(processor)
        if processor.number in known:
            transaction.update("host_cpu", known.pop(processor.number), **fields)
        else:
            transaction.create("host_cpu", {"host": stack.host, **fields})
    for ref in known.values():
        transaction.destroy("host_cpu", ref)


def _ensure_control_domain(stack: Stack, transaction: Transaction, machine: MachineInfo) -> None:
    if stack.database.get("host", stack.host, "control_domain") == NULL_REF:
        transaction.update("host", stack.host, control_domain=_create_control_domain(stack, transaction, machine))
    control_domain = stack.database.get("host", stack.host, "control_domain")
    transaction.update("VM", control_domain, **_control_domain_sizes(machine))
    transaction.update(
        "VM_metrics",
        stack.database.get("VM", control_domain, "metrics"),
        memory_actual=machine.memory.total - machine.memory.free,
        VCPUs_number=len(machine.processors),
        start_time=moment(datetime.fromtimestamp(machine.boot_time, UTC)),
        last_updated=moment(stack.clock.now()),
    )


def _create_control_domain(stack: Stack, transaction: Transaction, machine: MachineInfo) -> Ref:
    return transaction.create(
        "VM",
        {
            "name_label": f"Control domain on host: {machine.hostname}",
            "name_description": "The host itself, which runs domzero",
            "is_control_domain": True,
            "power_state": "Running",
            "domid": 0,
            "resident_on": stack.host,
            "affinity": stack.host,
            **_control_domain_sizes(machine),
            "actions_after_shutdown": "destroy",
            "actions_after_reboot": "destroy",
            "actions_after_crash": "destroy",
            "metrics": transaction.create("VM_metrics", {}),
            "HVM_shadow_multiplier": 1.0,
            "other_config": {"is_system_domain": "true"},
        },
    )


def _control_domain_sizes(machine: MachineInfo) -> dict[str, int]:
    """The control domain is the whole computer, whose memory and processors may be others after a boot."""
    memory, processors = machine.memory.total, len(machine.processors)
    return {
        "memory_target": memory,
        "memory_static_max": memory,
        "memory_dynamic_max": memory,
        "memory_dynamic_min": memory,
        "VCPUs_max": processors,
        "VCPUs_at_startup": processors,
    }
