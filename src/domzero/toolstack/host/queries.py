"""Questions about the host that need no field: time, memory, names of calls."""

from __future__ import annotations

from datetime import UTC

from domzero.engine.binding import implements
from domzero.engine.clock import moment
from domzero.engine.context import Context
from domzero.engine.errors import ApiError
from domzero.idl.types import NULL_REF, Ref
from domzero.toolstack.stack import Stack
from domzero.toolstack.vm.placement import memory_available


@implements("host.list_methods")
def list_methods(stack: Stack, context: Context) -> tuple[str, ...]:
    """The name of every call this server answers to."""
    return stack.methods()


@implements("host.get_servertime")
def get_servertime(stack: Stack, context: Context, host: Ref) -> str:
    """The host's clock, in UTC."""
    stack.database.row("host", host)
    return moment(stack.clock.now())


@implements("host.get_server_localtime")
def get_server_localtime(stack: Stack, context: Context, host: Ref) -> str:
    """The host's clock in its own time zone, written as if it were UTC, as XenServer does."""
    stack.database.row("host", host)
    return moment(stack.clock.now().astimezone().replace(tzinfo=UTC))


@implements("host.compute_free_memory")
def compute_free_memory(stack: Stack, context: Context, host: Ref) -> int:
    """Bytes that new machines could have now: what no machine has or is about to get, whatever it uses of it.

    A machine that needs no more than this is started. `host_metrics.memory_free` is what the host does not use just
    now.
    """
    return max(0, memory_available(stack, host) or 0)


@implements("host.compute_memory_overhead")
def compute_memory_overhead(stack: Stack, context: Context, host: Ref) -> int:
    """Bytes the host keeps for itself: what is in use and not given to machines."""
    record = stack.database.record("host", host)
    metrics = stack.database.record("host_metrics", record["metrics"])
    given = sum(
        stack.database.get("VM_metrics", machine["metrics"], "memory_actual")
        for machine in (stack.database.record("VM", vm) for vm in record["resident_VMs"])
        if not machine["is_control_domain"] and machine["metrics"] != NULL_REF
    )
    return max(0, int(metrics["memory_total"] - metrics["memory_free"] - given))


@implements("host.get_management_interface")
def get_management_interface(stack: Stack, context: Context, host: Ref) -> Ref:
    """The PIF that carries management traffic.

    Raises HOST_HAS_NO_MANAGEMENT_IP when none does: no interface bears the address by which the host is reached, as on
    one that listens on loopback only, or management is disabled.
    """
    for pif in stack.database.get("host", host, "PIFs"):
        if stack.database.get("PIF", pif, "management"):
            return str(pif)
    raise ApiError("HOST_HAS_NO_MANAGEMENT_IP")


@implements("host.get_uncooperative_resident_VMs")
def get_uncooperative_resident_VMs(stack: Stack, context: Context, self: Ref) -> tuple[Ref, ...]:
    """Always empty, as in every release since the call lost its meaning: no machine is ever marked uncooperative."""
    stack.database.row("host", self)
    return ()
