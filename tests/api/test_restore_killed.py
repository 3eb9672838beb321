"""A host that is killed while it is restored, or while it starts after that: the old one or the new one, whole."""

from __future__ import annotations

import http.client
import random
import ssl
import threading
import time
from base64 import b64encode
from pathlib import Path
from typing import Any

import pytest

from tests.api.harness import PASSWORD, ProcessHost, disconnect, login

MACHINES = 40
KILLS = 8


def request(host: ProcessHost, method: str, page: str, body: bytes | None = None) -> bytes:
    """The answer's body, or what there was of it when the host was killed."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    connection = http.client.HTTPSConnection(host.url.removeprefix("https://"), context=context, timeout=60)
    try:
        credentials = b64encode(f"root:{PASSWORD}".encode()).decode()
        connection.request(method, page, body, {"Authorization": f"Basic {credentials}"})
        return connection.getresponse().read()
    finally:
        connection.close()


def names(api: Any) -> set[str]:
    records = api.VM.get_all_records_where('field "is_a_template" = "false"')
    return {record["name_label"] for record in records.values() if not record["is_control_domain"]}


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize(("get", "put"), [("/host_backup", "/host_restore"), ("/pool/xmldbdump", "/pool/xmldbdump")])
def test_old_or_new(tmp_path: Path, get: str, put: str) -> None:
    moments = random.Random(4)
    host = ProcessHost(tmp_path)
    host.start()
    try:
        old, new = prepare(host, get)
        seen = {"old": 0, "new": 0}
        for _ in range(KILLS):
            sender = threading.Thread(target=sent, args=(host, put, new[1]))
            sender.start()
            if is_late := moments.random() < 0.5:
                sender.join(60)
            # It starts again two seconds after the answer.
            time.sleep(moments.uniform(1.5, 3.5) if is_late else moments.uniform(0.0, 0.4))
            disconnect(host.url)
            host.kill()
            sender.join(60)
            host.start()
            found = names(login(host.url).xenapi)
            assert found in ((new[0],) if is_late else (old[0], new[0]))
            seen["new" if found == new[0] else "old"] += 1
            old, new = (old, new) if found == old[0] else (new, old)
        assert seen["new"]
        assert not list((tmp_path / "state").glob("restore/*"))
    finally:
        disconnect(host.url)
        host.stop()


def prepare(host: ProcessHost, get: str) -> tuple[tuple[set[str], bytes], tuple[set[str], bytes]]:
    """Two states of the host, the present one first, with what restores them."""
    api = login(host.url).xenapi
    template = api.VM.get_by_name_label("Tiny Linux")[0]
    first = [api.VM.clone(template, f"first {number}") for number in range(MACHINES)]
    new = names(api), request(host, "GET", get)
    for number, machine in enumerate(first):
        api.VM.set_name_label(machine, f"second {number}")
    return (names(api), request(host, "GET", get)), new


def sent(host: ProcessHost, page: str, content: bytes) -> None:
    try:
        request(host, "PUT", page, content)
    except (OSError, http.client.HTTPException):
        # The host was killed under this client, which is what the test is about.
        return
