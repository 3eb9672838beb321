"""The first page, the client that is downloaded from it, and the pages that are not there."""

from __future__ import annotations

import http.client
import os
import re
import ssl
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest

from domzero.engine.exchange import collect_pages
from domzero.toolstack import registry
from domzero.toolstack.host import unserved
from domzero.toolstack.host.unserved import REASONS
from tests.api.harness import PASSWORD, InProcessHost
from tests.api.pages import CURL, get
from tests.sampling import each
from tests.xe.terminal import port_of


def test_the_first_page_and_its_links(host: InProcessHost, tmp_path: Path) -> None:
    def anonymously(page: str) -> bytes:
        return subprocess.run((*CURL, f"{host.url}{page}"), capture_output=True, check=True).stdout

    (tmp_path / "page.html").write_bytes(anonymously("/"))
    command = ("xmllint", "--html", "--xpath", "//a/@href", tmp_path / "page.html")
    links = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()
    assert links == ['href="/docs/"', 'href="/download/xe"']
    assert b"<title>" in anonymously("/docs/")
    client = tmp_path / "xe"
    client.write_bytes(anonymously("/download/xe"))
    where = ("-s", "127.0.0.1", "-p", str(port_of(host)), "-u", "root", "-pw", PASSWORD)
    done = subprocess.run(
        (sys.executable, "-I", client, "host-list", "--minimal", *where),
        capture_output=True, text=True, check=True, env={"HOME": str(tmp_path)}, cwd=tmp_path,
    )  # fmt: skip
    assert len(done.stdout.strip()) == 36
    assert os.linesep not in done.stderr
    told = subprocess.run((sys.executable, "-I", "-S", client, "--version"), capture_output=True, text=True, check=True)
    assert told.stdout == f"domzero xe {version('domzero')}\n"


def test_nothing_lies_below_it(host: InProcessHost) -> None:
    for page in ("/etc/passwd", "/../etc/passwd", "/nowhere", "/download/", "/download/../xe"):
        done, said = get(host, page)
        assert not done, said
        assert b"404" in said
    assert b"405" in get(host, "/host_restore")[1]
    assert not host.daemon.server.routes.has("GET", "/nowhere")


def asked(host: InProcessHost, method: str, page: str) -> int:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    connection = http.client.HTTPSConnection("127.0.0.1", port_of(host), context=context, timeout=20)
    connection.putrequest(method, page)
    connection.putheader("Content-Length", "0")
    connection.endheaders()
    status = connection.getresponse().status
    connection.close()
    return status


UNSERVED = (
    "GET /sync_config_files/2", "CONNECT /remotecmd", "CONNECT /migrate", "POST /remote_db_access", "PUT /vm_connect",
    "POST /remote_db_access_v2", "POST /remote_stats", "GET /services/x", "PUT /services/SM", "PUT /oem_patch_stream",
    "GET /wlb_report", "GET /wlb_diagnostics", "GET /update/x", "GET /updates", "GET /host_updates", "GET /repository",
    "PUT /bundle", "PUT /messages",
)  # fmt: skip


@pytest.mark.parametrize("line", each(6, UNSERVED))
def test_pages_that_are_not_served_say_so(host: InProcessHost, session: Any, line: str) -> None:
    method, page = line.split()
    assert asked(host, method, page) == 401
    assert asked(host, method, f"{page}?session_id={session.handle}") == 501


def test_their_task_fails(host: InProcessHost, api: Any, session: Any) -> None:
    task = api.task.create("report", "")
    done, said = get(host, f"/wlb_report?session_id={session.handle}&task_id={task}")
    assert not done
    assert REASONS["wlb"].encode() in said
    assert api.task.get_error_info(task) == ["INTERNAL_ERROR", REASONS["wlb"]]


def test_the_document_lists_the_pages_that_there_are(host: InProcessHost) -> None:
    text = (Path(__file__).parents[2] / "docs" / "http-pages.md").read_text()
    rows = [line.split(" | ") for line in text.splitlines() if re.match(r"\| `[A-Z]+ /", line)]
    listed = {(page, "not served" in row[-1]) for row in rows for page in re.findall(r"`([A-Z]+ /[^`]*)`", row[0])}
    routes = host.daemon.server.routes
    served = {f"{method} {route.prefix}" for method, found in routes.rows.items() for route in found}
    refused = {f"{page.method} {page.path}" for page, _ in collect_pages(unserved)}
    assert listed == {(page, page in refused) for page in served}
    assert refused <= {page for page, _ in listed}
    roles = {f"{page.method} {page.path}": page.role for page, _ in registry.pages(host.daemon.stack)}
    for row in rows:
        for page in re.findall(r"`([A-Z]+ /[^`]*)`", row[0]):
            assert page not in roles or f"`{roles[page]}`" in row[1]
