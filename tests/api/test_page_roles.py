"""Who may ask for which page: XenServer's own table, against ours and over the wire."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from domzero.datamodel.graph import GRAPH
from domzero.toolstack import registry
from tests.api.harness import PASSWORD, InProcessHost, login
from tests.xe.terminal import local

TABLE = """
vm-admin        PUT /import, PUT /import_metadata, PUT /import_raw_vdi, GET /export, GET /export_metadata
vm-admin        GET /export_raw_vdi
vm-operator     CONNECT /console, GET /console, GET /vncsnapshot
pool-admin      GET /host_backup, PUT /host_restore, GET /pool/xmldbdump, PUT /pool/xmldbdump
pool-admin      GET /sync_config_files, PUT /rrd, CONNECT /remotecmd, POST /remote_db_access, POST /remote_stats
pool-admin      POST /remote_db_access_v2
pool-operator   GET /host_logs_download, PUT /pool_patch_upload, GET /pool_patch_download, PUT /oem_patch_stream
pool-operator   GET /system-status
read-only       GET /vm_rrd, GET /host_rrd, GET /sr_rrd, GET /vm_rrds, GET /host_rrds, GET /rrd_updates, GET /blob
read-only       GET /wlb_report, GET /wlb_diagnostics, GET /audit_log
vm-power-admin  PUT /blob, PUT /messages, CONNECT /migrate
"""
"""The pages that XenServer has, each with the least role that it asks for."""

LEAST = {page: role for role, _, pages in (row.partition(" ") for row in TABLE.strip().split("\n"))
         for page in pages.strip().split(", ")}  # fmt: skip
RANKED = sorted(GRAPH.roles, key=lambda name: GRAPH.roles[name].rank)
OURS = ("/metrics", "/services", "/update", "/updates", "/host_updates", "/repository", "/bundle", "/vm_connect")
"""Those that the table says nothing of, or that 4.1's does."""
EMPTY = "Content-Length: 0\r\n\r\n"
SOCKET = (
    "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
    "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
)


def test_our_table_is_xenservers(host: InProcessHost) -> None:
    ours = {f"{page.method} {page.path}": page.role for page, _ in registry.pages(host.daemon.stack)}
    consoles = {"CONNECT /console", "GET /console", "GET /vncsnapshot"}
    assert {page: role for page, role in ours.items() if not page.endswith(OURS)} == {
        page: role for page, role in LEAST.items() if page not in consoles
    }


@pytest.fixture(scope="module")
def sessions(host: InProcessHost) -> Iterator[dict[str, str]]:
    """A session of each role."""
    for role in RANKED:
        host.run(host.daemon.engine.users.add(f"a-{role}", PASSWORD, role))
    opened = {role: login(host.url, f"a-{role}") for role in RANKED}
    yield {role: session.handle for role, session in opened.items()}
    for session in opened.values():
        session.xenapi.session.logout()


def status(host: InProcessHost, page: str, session: str) -> int:
    method, path = page.split()
    domain = host.daemon.stack.database.get("host", host.daemon.stack.host, "control_domain")
    with local(host) as connection:
        query, head = f"session_id={session}&ref={domain}", SOCKET if page == "GET /console" else EMPTY
        connection.sendall(f"{method} {path}?{query} HTTP/1.1\r\nHost: x\r\n{head}".encode())
        with connection.makefile("rb") as answer:
            return int(answer.readline().split()[1])


def test_one_role_less_is_too_little(host: InProcessHost, sessions: dict[str, str]) -> None:
    for page, role in LEAST.items():
        below = RANKED.index(role) - 1
        handle = "OpaqueRef:none" if below < 0 else sessions[RANKED[below]]
        assert status(host, page, handle) == (401 if below < 0 else 403), page
        # The only machine there is here is the control domain, whose consoles are an administrator's.
        needed = "pool-admin" if "console" in page or "vnc" in page else role
        assert needed == role or status(host, page, sessions["pool-operator"]) == 403
