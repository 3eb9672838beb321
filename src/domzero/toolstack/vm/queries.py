"""Questions about a machine that change nothing."""

from __future__ import annotations

from typing import Any

from domzero.engine.binding import implements
from domzero.engine.context import Context
from domzero.idl.types import Ref
from domzero.toolstack.stack import Stack
from domzero.toolstack.vm import memory_needs
from domzero.toolstack.vm.operations import HALTED
from domzero.toolstack.vm.specification import read_boot_record


@implements("VM.get_boot_record")
def get_boot_record(stack: Stack, context: Context, self: Ref) -> dict[str, Any]:
    """The configuration in force since the last boot; the present one of a halted machine."""
    record = stack.database.record("VM", self)
    if record["power_state"] == HALTED:
        return dict(record)
    return read_boot_record(record["last_booted_record"], record)


@implements("VM.assert_operation_valid")
def assert_operation_valid(stack: Stack, context: Context, self: Ref, op: str) -> None:
    """Raises what starting the operation now would raise."""
    stack.gates["VM"].assert_allowed(self, op)


@implements("VM.update_allowed_operations")
def update_allowed_operations(stack: Stack, context: Context, self: Ref) -> None:
    """Compute `allowed_operations` anew."""
    stack.database.row("VM", self)
    stack.gates["VM"].refresh(self)


@implements("VM.get_cooperative")
def get_cooperative(stack: Stack, context: Context, self: Ref) -> bool:
    """Whether the guest follows its memory target. Kept for older clients; nobody is called uncooperative any more."""
    stack.database.row("VM", self)
    return True


@implements("VM.maximise_memory")
def maximise_memory(stack: Stack, context: Context, self: Ref, total: int, approximate: bool) -> int:
    """The most memory, in bytes, with which the machine and its overhead fit into the total."""
    return memory_needs.largest_memory(stack.database.record("VM", self), total, approximate=approximate)


@implements("VM.compute_memory_overhead")
def compute_memory_overhead(stack: Stack, context: Context, vm: Ref) -> int:
    """Bytes of host memory that running the machine costs beyond the guest's own."""
    return memory_needs.memory_overhead(stack.database.record("VM", vm))
