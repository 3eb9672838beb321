"""Pages of XenServer that this host does not have: each says so, to whoever could use it, and its task fails.

docs/http-pages.md has the whole list of pages, those that are served and those that are not.
"""

from __future__ import annotations

from domzero.engine.context import Context
from domzero.engine.exchange import Arguments, Peer, RequestError, serves
from domzero.toolstack.stack import Stack

ALONE = "This host is the only one of its pool, and takes no orders from other hosts."
UPDATES = "This host takes updates as bundles, at /pool_patch_upload; it has no repositories of packages."
WORKLOAD = "This host has no workload balancing."

REASONS = {
    "sync_config_files": ALONE,
    "remotecmd": ALONE,
    "migrate": ALONE,
    "remote_db_access": ALONE,
    "remote_stats": ALONE,
    "messages": "Messages are made by the call message.create.",
    "services": "This host has no services behind its API.",
    "wlb": WORKLOAD,
    "oem_patch_stream": UPDATES,
    "updates": UPDATES,
    "vm_connect": "Consoles are reached at /console.",
}


@serves("GET", "/sync_config_files", role="pool-admin", label="sync_config_files", task=False)
@serves("CONNECT", "/remotecmd", role="pool-admin", label="remotecmd", task=False)
@serves("CONNECT", "/migrate", role="vm-power-admin", label="migrate", task=False)
@serves("POST", "/remote_db_access", role="pool-admin", label="remote_db_access", task=False)
@serves("POST", "/remote_db_access_v2", role="pool-admin", label="remote_db_access", task=False)
@serves("POST", "/remote_stats", role="pool-admin", label="remote_stats", task=False)
@serves("PUT", "/messages", role="vm-power-admin", label="messages", task=False)
@serves("GET", "/services", role="pool-admin", label="services", task=False)
@serves("PUT", "/services", role="pool-admin", label="services", task=False)
@serves("POST", "/services", role="pool-admin", label="services", task=False)
@serves("GET", "/wlb_report", role="read-only", label="wlb", task=False)
@serves("GET", "/wlb_diagnostics", role="read-only", label="wlb", task=False)
@serves("PUT", "/oem_patch_stream", role="pool-operator", label="oem_patch_stream", task=False)
@serves("GET", "/update", role="read-only", label="updates", task=False)
@serves("GET", "/updates", role="read-only", label="updates", task=False)
@serves("GET", "/host_updates", role="read-only", label="updates", task=False)
@serves("GET", "/repository", role="read-only", label="updates", task=False)
@serves("PUT", "/bundle", role="pool-operator", label="updates", task=False)
@serves("GET", "/vm_connect", role="vm-operator", label="vm_connect", task=False)
@serves("PUT", "/vm_connect", role="vm-operator", label="vm_connect", task=False)
async def unserved(stack: Stack, context: Context, peer: Peer, arguments: Arguments) -> None:
    """Raises `RequestError` 501, whose text says why."""
    raise RequestError(501, REASONS[context.method])
