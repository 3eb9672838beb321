"""Which positions of a machine are free."""

from __future__ import annotations

from domzero.engine.binding import implements
from domzero.engine.context import Context
from domzero.idl.types import Ref
from domzero.toolstack.network import vif
from domzero.toolstack.stack import Stack
from domzero.toolstack.storage import vbd
from domzero.toolstack.vm.device_names import VBD_POSITIONS, VIF_POSITIONS, free_positions


@implements("VM.get_allowed_VBD_devices")
def get_allowed_VBD_devices(stack: Stack, context: Context, vm: Ref) -> tuple[str, ...]:
    """The positions that a new drive can have, as strings, lowest first."""
    return free_positions(VBD_POSITIONS, vbd.taken_positions(stack, vm))


@implements("VM.get_allowed_VIF_devices")
def get_allowed_VIF_devices(stack: Stack, context: Context, vm: Ref) -> tuple[str, ...]:
    """The positions that a new card can have, as strings, lowest first."""
    return free_positions(VIF_POSITIONS, vif.taken_positions(stack, vm))
