"""Which modules carry out messages, and the functions found in them, ready to be bound.

When you add a module with implementations, add it to `MODULES`; when you implement a message, take its name off the
list in `domzero.toolstack.unimplemented`. The daemon refuses to start otherwise.
"""

from __future__ import annotations

from importlib import import_module

from domzero.engine.binding import Implementation, collect, merge
from domzero.toolstack.stack import Stack

MODULES: tuple[str, ...] = (
    "domzero.toolstack.bond",
    "domzero.toolstack.console",
    "domzero.toolstack.crashdump",
    "domzero.toolstack.host.logs",
    "domzero.toolstack.host.power",
    "domzero.toolstack.host.queries",
    "domzero.toolstack.management",
    "domzero.toolstack.network",
    "domzero.toolstack.pbd",
    "domzero.toolstack.pif",
    "domzero.toolstack.pif_addresses",
    "domzero.toolstack.pool",
    "domzero.toolstack.probing",
    "domzero.toolstack.sr",
    "domzero.toolstack.vbd",
    "domzero.toolstack.vbd_qos",
    "domzero.toolstack.vdi",
    "domzero.toolstack.vif",
    "domzero.toolstack.vif_rules",
    "domzero.toolstack.vlan",
    "domzero.toolstack.vm.bios_strings",
    "domzero.toolstack.vm.cloning",
    "domzero.toolstack.vm.configuration",
    "domzero.toolstack.vm.creation",
    "domzero.toolstack.vm.devices",
    "domzero.toolstack.vm.lifecycle",
    "domzero.toolstack.vm.live",
    "domzero.toolstack.vm.memory_settings",
    "domzero.toolstack.vm.placement",
    "domzero.toolstack.vm.provisioning",
    "domzero.toolstack.vm.queries",
    "domzero.toolstack.vm.snapshots",
    "domzero.toolstack.vm.suspend",
    "domzero.toolstack.vm_appliance",
)


def implementations(stack: Stack) -> dict[str, Implementation]:
    """Method name → function of (context, parameters). Raises `BindingError` when two functions claim one method."""
    return merge(*(collect(import_module(name), stack) for name in MODULES))
