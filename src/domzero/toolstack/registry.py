"""Which modules carry out messages and serve pages, and the functions found in them, ready to be bound.

When you add a module with implementations, add it to `MODULES`; when you implement a message, take its name off the
list in `domzero.toolstack.unimplemented`. The daemon refuses to start otherwise. Modules with pages (functions marked
with `engine.exchange.serves`) stand in `PAGES`.
"""

from __future__ import annotations

from importlib import import_module

from domzero.engine.audit import AuditedPage
from domzero.engine.binding import Implementation, collect, merge
from domzero.engine.exchange import Page, PageFunction, collect_pages
from domzero.toolstack.noticed import noticed
from domzero.toolstack.stack import Stack

MODULES: tuple[str, ...] = (
    "domzero.toolstack.blobs.blob",
    "domzero.toolstack.console",
    "domzero.toolstack.crashdump",
    "domzero.toolstack.host.crash_dumps",
    "domzero.toolstack.host.logs",
    "domzero.toolstack.host.plugins",
    "domzero.toolstack.host.power",
    "domzero.toolstack.host.queries",
    "domzero.toolstack.host.system_status",
    "domzero.toolstack.message",
    "domzero.toolstack.network.bond",
    "domzero.toolstack.network.management",
    "domzero.toolstack.network.network",
    "domzero.toolstack.network.pif",
    "domzero.toolstack.network.pif_addresses",
    "domzero.toolstack.network.vif",
    "domzero.toolstack.network.vif_rules",
    "domzero.toolstack.network.vlan",
    "domzero.toolstack.patches.pool_patch",
    "domzero.toolstack.pool",
    "domzero.toolstack.rrd.data_sources",
    "domzero.toolstack.storage.pbd",
    "domzero.toolstack.storage.probing",
    "domzero.toolstack.storage.sr",
    "domzero.toolstack.storage.vbd",
    "domzero.toolstack.storage.vbd_qos",
    "domzero.toolstack.storage.vdi",
    "domzero.toolstack.transfer.import_fetched",
    "domzero.toolstack.vm.bios_strings",
    "domzero.toolstack.vm.cloning",
    "domzero.toolstack.vm.configuration",
    "domzero.toolstack.vm.creation",
    "domzero.toolstack.vm.devices",
    "domzero.toolstack.vm.lifecycle",
    "domzero.toolstack.vm.live",
    "domzero.toolstack.vm.memory_settings",
    "domzero.toolstack.vm.placement",
    "domzero.toolstack.vm.plugins",
    "domzero.toolstack.vm.provisioning",
    "domzero.toolstack.vm.queries",
    "domzero.toolstack.vm.snapshots",
    "domzero.toolstack.vm.suspend",
    "domzero.toolstack.vm_appliance",
)

LOCAL_METHODS = frozenset({
    "host.emergency_ha_disable", "host.get_management_interface", "host.get_system_status_capabilities",
    "host.local_management_reconfigure", "host.management_disable", "host.shutdown_agent",
    "pool.emergency_reset_master", "pool.emergency_transition_to_master", "session.local_logout",
})  # fmt: skip
"""What a session of `session.slave_local_login_with_password` is good for, as in XenServer."""

PAGES: tuple[str, ...] = (
    "domzero.toolstack.blobs.pages",
    "domzero.toolstack.host.audit_log",
    "domzero.toolstack.host.backup",
    "domzero.toolstack.host.database_dump",
    "domzero.toolstack.host.log_download",
    "domzero.toolstack.host.restore",
    "domzero.toolstack.host.system_status",
    "domzero.toolstack.host.unserved",
    "domzero.toolstack.patches.pages",
    "domzero.toolstack.rrd.pages",
    "domzero.toolstack.rrd.prometheus",
    "domzero.toolstack.transfer.export",
    "domzero.toolstack.transfer.import_pages",
    "domzero.toolstack.transfer.raw_vdi",
)


def implementations(stack: Stack) -> dict[str, Implementation]:
    """Method name → function of (context, parameters). Raises `BindingError` when two functions claim one method."""
    return merge(noticed(stack), *(collect(import_module(name), stack) for name in MODULES))


def pages(stack: Stack) -> list[tuple[Page, PageFunction]]:
    """Every page of the toolstack with its function of (context, peer, arguments)."""
    found = [row for name in PAGES for row in collect_pages(import_module(name), stack)]
    return [
        (page, AuditedPage(stack.auditor, page, function) if _matters(page) else function) for page, function in found
    ]


def _matters(page: Page) -> bool:
    """Whether requests of a page are worth telling of afterwards: it changes something, or not everybody may ask."""
    return page.method != "GET" or page.role != "read-only"
