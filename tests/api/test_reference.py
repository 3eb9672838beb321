"""A host serves the API reference to everybody."""

from __future__ import annotations

import http.client
import shutil
import ssl
import subprocess
from pathlib import Path

import pytest

from tests.api.harness import PASSWORD, InProcessHost

pytestmark = pytest.mark.slow


def get(host: InProcessHost, path: str, **headers: str) -> tuple[int, dict[str, str], str]:
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    connection = http.client.HTTPSConnection(host.url.removeprefix("https://"), context=context, timeout=100)
    try:
        connection.request("GET", path, headers={name.replace("_", "-"): text for name, text in headers.items()})
        answer = connection.getresponse()
        return (
            answer.status,
            {name.lower(): text for name, text in answer.getheaders()},
            answer.read().decode("utf-8", "replace"),
        )
    finally:
        connection.close()


def test_it_is_served_without_a_session_and_kept_by_browsers(host: InProcessHost) -> None:
    assert get(host, "/docs")[1]["location"] == "/docs/"
    status, headers, text = get(host, "/docs/")
    assert (status, headers["content-type"]) == (200, "text/html; charset=utf-8")
    assert 'href="class-VM.html"' in text
    assert get(host, "/docs/", If_None_Match=headers["etag"])[::2] == (304, "")
    assert "Async.VM.start" in get(host, "/docs/class-VM.html")[2]
    assert get(host, "/docs/class-vm.html")[0] == 404


def test_it_comes_as_a_pdf_too(host: InProcessHost) -> None:
    assert 'href="reference.pdf"' in get(host, "/docs/")[2]
    status, headers, text = get(host, "/docs/reference.pdf")
    assert (status, headers["content-type"], text[:5]) == (200, "application/pdf", "%PDF-")


@pytest.mark.skipif(shutil.which("curl") is None, reason="needs curl")
def test_the_sample_for_the_shell_works(host: InProcessHost, tmp_path: Path) -> None:
    script, password = tmp_path / "first-call.sh", tmp_path / "password"
    script.write_text(get(host, "/docs/first-call.sh")[2])
    password.write_text(PASSWORD)
    done = subprocess.run(["sh", script, host.url, password], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")
    assert "Tiny Linux" in done.stdout.splitlines()


def test_it_says_what_this_host_does_not_carry_out(host: InProcessHost) -> None:
    assert "NOT_IMPLEMENTED" in get(host, "/docs/class-DR_task.html")[2]
