"""The database as XML, out of one host and into another, with `curl`, `xe` and `xmllint`."""

from __future__ import annotations

import re
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import XenAPI

from tests.api.harness import PASSWORD, InProcessHost, in_process, login
from tests.api.pages import get, put
from tests.sampling import each
from tests.xe.terminal import process, secured, socket_of

PAGE = "/pool/xmldbdump"


@pytest.fixture(scope="module")
def dumped(host: InProcessHost, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A dump of a host with something in it."""
    api = login(host.url).xenapi
    template = api.VM.get_by_name_label("Tiny Linux")[0]
    machine = api.VM.clone(template, "a \"machine\" <&>\n\ttwo 'lines'")
    api.VM.set_other_config(machine, {"quo'ted \\ key": "(va'lue)", "empty": "", "newline": "a\nb"})
    api.VM.set_tags(machine, ["one", "t'wo", ""])
    api.secret.create({"value": "kept", "other_config": {}})
    path = tmp_path_factory.mktemp("dump") / "dump.xml"
    assert get(host, PAGE, target=path)[0]
    return path


def xpath(path: Path, expression: str) -> str:
    command = ("xmllint", "--huge", "--xpath", expression, path)
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


def records(api: Any) -> dict[str, dict[str, Any]]:
    """What a client can see and a start leaves alone."""
    classes = ("VM", "VBD", "VIF", "VDI", "SR", "PBD", "network", "PIF", "pool", "secret", "role", "subject")
    return {cls: getattr(api, cls).get_all_records() for cls in classes}


def test_an_independent_program_reads_and_writes_it(host: InProcessHost, dumped: Path, tmp_path: Path) -> None:
    subprocess.run(("xmllint", "--huge", "--noout", dumped), check=True)
    assert xpath(dumped, 'string(//pair[@key="product_brand"]/@value)') == "domzero"
    name = "a \"machine\" <&>\n\ttwo 'lines'"
    machine = xpath(dumped, "string(//table[@name='VM']/row[contains(@name_label, 'two ')]/@name_label)")
    assert machine == name
    config = xpath(dumped, "string(//table[@name='VM']/row[contains(@name_label, 'two ')]/@other_config)")
    assert r"('quo\'ted \\ key' '(va\'lue)')" in config
    assert "('empty' '')" in config
    assert xpath(dumped, "count(//table[@name='session'])") == "0"
    assert xpath(dumped, "count(//table[@name='task'])") == "0"
    assert int(xpath(dumped, "count(//table[@name='role']/row)")) > 5
    subprocess.run(("xmllint", "--huge", "--format", "--output", tmp_path / "written", dumped), check=True)
    assert (tmp_path / "written").read_bytes() != dumped.read_bytes()
    assert put(host, f"{PAGE}?dry_run=true", tmp_path / "written")[0]


def test_a_host_is_as_it_was_after_a_restore(tmp_path: Path) -> None:
    with in_process(tmp_path) as host:
        api = login(host.url).xenapi
        machine = api.VM.clone(api.VM.get_by_name_label("Tiny Linux")[0], "kept")
        api.secret.create({"value": "kept", "other_config": {}})
        before = records(api)
        done = process("pool-dump-database", f"file-name={tmp_path}/dump", "-s", str(socket_of(host)))
        assert (done.returncode, done.stderr) == (0, "")
        token = api.event_from(["*"], "", 0.0)["token"]
        api.VM.set_name_label(machine, "changed")
        api.VM.clone(machine, "too much")
        done = process(
            "pool-restore-database", f"file-name={tmp_path}/dump", "dry-run=true", "-s", str(socket_of(host))
        )
        assert (done.returncode, done.stderr) == (0, "")
        api.VM.set_name_description(machine, "still possible")
        restart, asked = host.daemon.stack.restart, threading.Event()
        host.daemon.stack.restart = asked.set
        done = process("pool-restore-database", f"file-name={tmp_path}/dump", "-s", str(socket_of(host)))
        assert (done.returncode, done.stderr) == (0, "")
        changes_are_refused(host, api, machine, tmp_path)
        assert asked.wait(60)
        host.loop.call_soon_threadsafe(restart)
        host.wait_for_end()
        assert host.daemon.restart.is_set()
    with in_process(tmp_path) as host:
        api = login(host.url).xenapi
        assert records(api) == before
        with pytest.raises(XenAPI.Failure) as failure:
            api.event_from(["vm"], token, 0.0)
        assert failure.value.details == ["EVENTS_LOST"]
        api.VM.set_name_label(machine, "changed again")
    aside = list((tmp_path / "state" / "before-restore").iterdir())
    assert len(aside) == 1
    assert (aside[0] / "state.db").stat().st_mode & 0o077 == 0
    assert not (tmp_path / "state" / "restore" / "ready").exists()


def changes_are_refused(host: InProcessHost, api: Any, machine: str, directory: Path) -> None:
    with pytest.raises(XenAPI.Failure) as failure:
        api.VM.set_name_label(machine, "would be lost")
    assert failure.value.details == ["HOST_STILL_BOOTING"]
    task = api.task.create("upload", "")
    taken, said = put(host, f"/pool_patch_upload?task_id={task}", directory / "dump")
    assert (taken, b"503" in said, api.task.get_status(task)) == (False, True, "pending")
    assert get(host, "/audit_log", target=directory / "audit")[0]
    assert api.VM.get_name_label(machine) == "changed"


def changed(dumped: Path, path: Path, pattern: str, replacement: str | Callable[[re.Match[str]], str]) -> Path:
    text, count = re.subn(pattern, replacement, dumped.read_text(), count=1)
    assert count == 1
    path.write_text(text)
    return path


WRONG: list[tuple[str, str, str]] = [
    ("RESTORE_INCOMPATIBLE_VERSION", r'key="schema_minor_vsn" value="\d+"', 'key="schema_minor_vsn" value="9999"'),
    ("RESTORE_INCOMPATIBLE_VERSION", r'value="domzero"', 'value="another"'),
    ("RESTORE_TARGET_MISSING_DEVICE(eth7)", r'device="eth1"', 'device="eth7"'),
    ("COULD_NOT_IMPORT_DATABASE", r'(?s)<table name="pool">.*?</table>', ""),
    ("COULD_NOT_IMPORT_DATABASE", r'power_state="Halted"', 'power_state="Upside down"'),
    ("COULD_NOT_IMPORT_DATABASE", r'memory_static_max="\d+"', 'memory_static_max="99999999999999999999"'),
    ("COULD_NOT_IMPORT_DATABASE", r'<row ref="OpaqueRef:', '<row ref="../../etc/passwd'),
    ("COULD_NOT_IMPORT_DATABASE", r"</database>", ""),
    ("COULD_NOT_IMPORT_DATABASE", r"<database>", '<!DOCTYPE d [<!ENTITY a "b">]><database>'),
    ("COULD_NOT_IMPORT_DATABASE", r'tags="\(\)"', "tags=\"(((((((((('a'))))))))))\""),
]


@pytest.mark.parametrize(("code", "pattern", "replacement"), each(5, WRONG))
def test_what_does_not_fit_is_refused_and_leaves_nothing(
    host: InProcessHost, dumped: Path, tmp_path: Path, code: str, pattern: str, replacement: str
) -> None:
    path = changed(dumped, tmp_path / "dump", pattern, replacement)
    taken, said = put(host, f"{PAGE}?dry_run=true", path)
    assert not taken
    assert code.encode() in said
    assert left(host) == []


def left(host: InProcessHost) -> list[str]:
    assert host.settings.state_dir is not None
    place = Path(host.settings.state_dir) / "restore"
    return [path.name for path in place.iterdir()] if place.exists() else []


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


@contextmanager
def sending(host: InProcessHost, page: str, handle: str, content: bytes, length: int) -> Iterator[socket.socket]:
    """A client in the middle of an upload, of which it has sent a part."""
    query = page if "?" in page else f"{page}?session_id={handle}"
    head = f"PUT {query} HTTP/1.1\r\nHost: x\r\nContent-Length: {length}\r\n\r\n"
    with secured(host) as connection:
        connection.sendall(head.encode() + content)
        until(lambda: left(host) == ["incoming"])
        yield connection


@pytest.mark.parametrize("page", each(2, [PAGE, "/host_restore"]))
def test_a_client_that_vanishes_leaves_nothing(host: InProcessHost, session: Any, dumped: Path, page: str) -> None:
    with sending(host, page, session.handle, dumped.read_bytes()[:3000] if page == PAGE else b"", 100_000):
        pass
    until(lambda: left(host) == [])


def test_one_at_a_time(host: InProcessHost, session: Any, dumped: Path) -> None:
    with sending(host, PAGE, session.handle, dumped.read_bytes()[:3000], 100_000):
        taken, said = put(host, f"{PAGE}?dry_run=true", dumped)
        assert not taken
        assert b"503" in said
    until(lambda: left(host) == [])
    assert put(host, f"{PAGE}?dry_run=true", dumped)[0]


@pytest.mark.slow
def test_a_restore_can_be_cancelled(host: InProcessHost, api: Any, session: Any, dumped: Path) -> None:
    task = api.task.create("restore", "")
    page = f"{PAGE}?task_id={task}&dry_run=true&session_id={session.handle}"
    with sending(host, page, session.handle, dumped.read_bytes()[:3000], 100_000):
        until(lambda: "cancel" in api.task.get_allowed_operations(task))
        api.task.cancel(task)
        until(lambda: api.task.get_status(task) == "cancelled")
    until(lambda: left(host) == [])


def test_whoever_may_not_gets_nothing(host: InProcessHost, dumped: Path) -> None:
    host.run(host.daemon.engine.users.add("operator", PASSWORD, "pool-operator"))
    assert get(host, PAGE, user="operator")[1].startswith(b"<!DOCTYPE html>\n<html><head><title>403")
    taken, said = put(host, f"{PAGE}?dry_run=true", dumped, user="operator")
    assert not taken
    assert b"403" in said


@pytest.mark.slow
def test_rubbish(host: InProcessHost, dumped: Path, tmp_path: Path) -> None:
    for content in (b"", b"\0" * 100, b"<database/>", dumped.read_bytes()[:20_000], b"<a>" * 100_000):
        (tmp_path / "rubbish").write_bytes(content)
        taken, said = put(host, f"{PAGE}?dry_run=true", tmp_path / "rubbish")
        assert not taken
        assert b"COULD_NOT_IMPORT_DATABASE" in said or b"RESTORE_INCOMPATIBLE_VERSION" in said
    taken, said = put(host, f"{PAGE}?dry_run=true", dumped, "--header", "Transfer-Encoding: chunked")
    assert not taken
    assert b"411" in said
    assert left(host) == []


@pytest.mark.slow
def test_the_task_tells(host: InProcessHost, api: Any, session: Any, dumped: Path, tmp_path: Path) -> None:
    path = changed(dumped, tmp_path / "dump", r'device="eth1"', 'device="eth7"')
    task = api.task.create("restore", "")
    put(host, f"{PAGE}?dry_run=true&session_id={session.handle}&task_id={task}", path)
    assert api.task.get_error_info(task) == ["RESTORE_TARGET_MISSING_DEVICE", "eth7"]
    task = api.task.create("restore", "")
    taken, _ = put(host, f"{PAGE}?dry_run=true&session_id={session.handle}&task_id={task}", dumped)
    assert taken
    assert api.task.get_status(task) == "success"
