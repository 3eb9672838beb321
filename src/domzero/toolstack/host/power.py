"""Taking the host out of service and back, and ending it."""

from __future__ import annotations

from domzero.engine.binding import implements
from domzero.engine.context import Context
from domzero.engine.errors import ApiError
from domzero.host.control.protocol import ControlError
from domzero.idl.types import Ref
from domzero.toolstack.host.admission import guests
from domzero.toolstack.stack import Stack


@implements("host.disable")
def disable(stack: Stack, context: Context, host: Ref) -> None:
    """No new machine starts here until somebody enables the host, or its next boot does; those that run go on."""
    set_enabled(stack, host, enabled=False)


@implements("host.enable")
def enable(stack: Stack, context: Context, host: Ref) -> None:
    """Machines may start here again."""
    set_enabled(stack, host, enabled=True)


@implements("host.assert_can_evacuate")
def assert_can_evacuate(stack: Stack, context: Context, host: Ref) -> None:
    """Raises CANNOT_EVACUATE_HOST with a line `code,machine` for each machine that has nowhere to go."""
    problems = _obstacles(stack, host)
    if problems:
        raise ApiError("CANNOT_EVACUATE_HOST", "|".join(",".join((*reason, vm)) for vm, reason in problems.items()))


@implements("host.get_vms_which_prevent_evacuation")
def get_vms_which_prevent_evacuation(stack: Stack, context: Context, self: Ref) -> dict[Ref, tuple[str, ...]]:
    """Each machine that has nowhere to go, with the error that moving it would give."""
    return _obstacles(stack, self)


@implements("host.evacuate")
async def evacuate(stack: Stack, context: Context, host: Ref, network: Ref, evacuate_batch_size: int) -> None:
    """Disable the host and move its machines away. Raises CANNOT_EVACUATE_HOST and changes nothing when they cannot."""
    assert_can_evacuate(stack, context, host)
    async with stack.gates["host"].operation(context, host, "evacuate"):
        set_enabled(stack, host, enabled=False)


@implements("host.shutdown")
async def shutdown(stack: Stack, context: Context, host: Ref) -> None:
    """Power a disabled, empty host off. OPERATION_NOT_ALLOWED unless the operator allowed it in the settings."""
    async with stack.gates["host"].operation(context, host, "shutdown"):
        await _end(stack, reboot=False)


@implements("host.reboot")
async def reboot(stack: Stack, context: Context, host: Ref) -> None:
    """Restart a disabled, empty host. OPERATION_NOT_ALLOWED unless the operator allowed it in the settings."""
    async with stack.gates["host"].operation(context, host, "reboot"):
        await _end(stack, reboot=True)


@implements("host.power_on")
async def power_on(stack: Stack, context: Context, host: Ref) -> None:
    """Wake a host that is off. Raises HOST_IS_LIVE for one that runs, as the only host of a pool always does."""
    async with stack.gates["host"].operation(context, host, "power_on"):
        raise ApiError("OPERATION_NOT_ALLOWED", "No way to wake this host is configured.")


@implements("host.restart_agent")
async def restart_agent(stack: Stack, context: Context, host: Ref) -> None:
    """Restart the toolstack; machines keep running. The call answers first."""
    stack.database.row("host", host)
    await stack.database.durable()
    stack.restart()


@implements("host.shutdown_agent")
async def shutdown_agent(stack: Stack, context: Context) -> None:
    """Stop the toolstack; machines keep running. The call answers first."""
    await stack.database.durable()
    stack.stop()


@implements("host.destroy")
def destroy(stack: Stack, context: Context, self: Ref) -> None:
    """Forget a host that is gone for good. The host that answers cannot forget itself."""
    if self == stack.host:
        raise ApiError("HOST_CANNOT_DESTROY_SELF", self)
    with stack.database.transaction() as transaction:
        transaction.destroy("host", self)


def set_enabled(stack: Stack, host: Ref, *, enabled: bool) -> None:
    """Say whether machines may start on the host, and compute anew what it allows."""
    with stack.database.transaction() as transaction:
        transaction.update("host", host, enabled=enabled)
    stack.gates["host"].refresh(host)


def _obstacles(stack: Stack, host: Ref) -> dict[Ref, tuple[str, ...]]:
    return dict.fromkeys(guests(stack.database, host), ("NO_HOSTS_AVAILABLE",))


async def _end(stack: Stack, *, reboot: bool) -> None:
    if not stack.settings.allow_power_off:
        raise ApiError(
            "OPERATION_NOT_ALLOWED", "Ending this machine is switched off; the setting allow-power-off permits it."
        )
    await stack.database.durable()
    try:
        await (stack.control.reboot() if reboot else stack.control.power_off())
    except ControlError as error:
        raise ApiError("INTERNAL_ERROR", str(error)) from error
