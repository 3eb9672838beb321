"""Who is told of which calls, what is told and what is not, and how lines get to disk."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import stat
import threading
from pathlib import Path
from typing import Any

import pytest

from domzero.engine.audit import Audit, AuditedPage, short
from domzero.engine.audit_file import FLUSH_SECONDS, AuditFile
from domzero.engine.calls import LOCAL
from domzero.engine.exchange import Arguments, Page
from domzero.engine.login import DELAYS_PER_ADDRESS, TOO_MANY
from domzero.engine.sensitive import HIDDEN, without_secrets
from domzero.idl.types import STRING, VOID, RefTo
from tests.engine.toy_calls import PASSWORD, Toy


class Heard:
    """The lines that an audit wrote, as they are read back."""

    def __init__(self, toy: Toy) -> None:
        self.lines: list[str] = []
        toy.dispatcher.auditor = self.audit = Audit(toy.database, toy.clock, self.lines.append)

    @property
    def last(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.lines[-1])
        return found


@pytest.fixture
def heard(toy: Toy) -> Heard:
    return Heard(toy)


async def test_a_change_is_told_with_who_what_and_how_it_ended(toy: Toy, heard: Heard) -> None:
    session, lamp = await toy.root(), toy.lamp()
    assert heard.last["call"] == "session.login_with_password"
    assert heard.last["made"] == [{"class": "session", "id": short(session)}]
    await toy.call("lamp.set_name_label", session, lamp, "desk")
    uuid = toy.database.get("lamp", lamp, "uuid")
    assert heard.last == {
        "time": "20110930T00:00:00Z", "from": "192.0.2.7", "who": "root", "session": short(session),
        "call": "lamp.set_name_label", "result": "success", "ms": 0,
        "objects": [{"class": "lamp", "uuid": uuid, "name": "lamp"}], "parameters": {"value": "desk"},
    }  # fmt: skip
    assert session not in "".join(heard.lines)


async def test_reading_is_not_told(toy: Toy, heard: Heard) -> None:
    session, lamp = await toy.root(), toy.lamp()
    before = len(heard.lines)
    for method, *params in (("lamp.get_record", lamp), ("lamp.get_all_records",), ("lamp.get_watts", lamp)):
        for _ in range(2):
            await toy.call(method, session, *params)
    await toy.call("event.from", session, ["*"], "", 0.0)
    assert len(heard.lines) == before


async def test_denied_calls_are_told_reading_ones_too(toy: Toy, heard: Heard) -> None:
    session, lamp = await toy.session_of("read-only"), toy.lamp()
    await toy.fails("lamp.set_name_label", session, lamp, "mine")
    assert (heard.last["result"], heard.last["who"]) == ("RBAC_PERMISSION_DENIED", "read-only")
    assert heard.last["objects"][0]["name"] == "lamp"
    await toy.fails("lamp.set_name_label", session, ["no", {"reference": 1}], None)
    assert heard.last["result"] == "RBAC_PERMISSION_DENIED"
    await refused_login(toy, "x" * 2000)
    assert heard.last["result"] == "SESSION_AUTHENTICATION_FAILED"


async def refused_login(toy: Toy, password: str) -> None:
    refused = asyncio.ensure_future(toy.fails("session.login_with_password", "nobody", password))
    await toy.clock.until_asleep()
    await toy.clock.advance(60)
    await refused


async def test_failures_and_tasks_are_told_when_they_end(toy: Toy, heard: Heard) -> None:
    session, lamp = await toy.root(), toy.lamp()
    await toy.fails("lamp.explode", session, lamp)
    assert heard.last["result"] == "INTERNAL_ERROR"
    before = len(heard.lines)
    task = await toy.call("Async.lamp.switch_on", session, lamp, True)
    await toy.turns()
    assert len(heard.lines) == before
    await toy.call("task.cancel", session, task)
    await toy.until(lambda: toy.task(task)["status"] == "cancelled")
    assert (heard.last["call"], heard.last["result"]) == ("lamp.switch_on", "cancelled")


async def test_no_secret_is_told(toy: Toy, heard: Heard) -> None:
    session, lamp = await toy.root(), toy.lamp()
    await refused_login(toy, "plain text")
    await toy.fails("lamp.lock", session, lamp, "plain text")
    await toy.fails("session.change_password", session, "plain text", "plain text too")
    assert heard.last["parameters"] == {"old_pwd": HIDDEN, "new_pwd": HIDDEN}
    assert "plain text" not in "".join(heard.lines)
    assert PASSWORD not in "".join(heard.lines)


async def test_a_session_given_for_something_else_is_not_told(toy: Toy, heard: Heard) -> None:
    session = await toy.root()
    await toy.fails("lamp.set_name_label", session, session, "mine")
    assert heard.last["objects"] == [{"class": "lamp", "unknown": short(session)}]


def test_what_is_hidden() -> None:
    config = {"server": "nas", "chappassword": "x", "cifspassword": "x", "password_secret": "x", "empty_token": ""}
    shown = without_secrets("device_config", config)
    assert shown == {**config, "chappassword": HIDDEN, "cifspassword": HIDDEN, "password_secret": HIDDEN}
    assert without_secrets("xenstore_data", {"vm-data/key": "x"}) == {"vm-data/key": HIDDEN}
    record = {"name_label": "a", "other_config": {"root_password": "x", "folder": "/"}, "tags": ("b",)}
    assert without_secrets("record", record) == {
        "name_label": "a", "other_config": {"root_password": HIDDEN, "folder": "/"}, "tags": ["b"],
    }  # fmt: skip


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ("https://user:p@ss@host/x", f"https://user:{HIDDEN}@host/x"),
        ("auto rootpw=plain quiet", f"auto rootpw={HIDDEN} quiet"),
        ("x?session_id=plain&y=1", f"x?session_id={HIDDEN}&y=1"),
        (f"{'x' * 190} https://user:{'p' * 150}@host/", f"{'x' * 190} https://u…"),
        ("-----BEGIN PRIVATE KEY-----\nMIIEplain", HIDDEN),
        ("a name: of a lamp", "a name: of a lamp"),
    ],
)
async def test_secrets_inside_texts_are_not_told(toy: Toy, heard: Heard, given: str, told: str) -> None:
    session, lamp = await toy.root(), toy.lamp()
    heard.audit.begin(_Rename, toy.engine.sessions.live[session], LOCAL, [lamp, given]).done(None)
    assert heard.last["parameters"] == {"value": told}
    heard.audit.begin(_Rename, None, LOCAL, [lamp, {"key": given, "session_id": given}]).done(None)
    assert heard.last["parameters"] == {"value": {"key": told, "session_id": HIDDEN}}


async def test_who_is_not_even_heard_fills_no_log(toy: Toy, heard: Heard) -> None:
    login = "session.login_with_password"
    guesses = [asyncio.ensure_future(toy.fails(login, "root", "wrong")) for _ in range(DELAYS_PER_ADDRESS)]
    await toy.clock.until_asleep(DELAYS_PER_ADDRESS)
    for _ in range(50):
        assert (await toy.fails(login, "root", "wrong"))[2] == TOO_MANY
    assert heard.lines == []
    await toy.clock.advance(60)
    await asyncio.gather(*guesses)
    assert len(heard.lines) == DELAYS_PER_ADDRESS


@pytest.mark.parametrize("text", ["a\nb", 'a\r\n{"time":"2"}', "\x1b[2J", "\u2028\x85", "\ud800", '"},{"'])
async def test_a_line_stays_a_line(toy: Toy, heard: Heard, text: str) -> None:
    session, lamp = await toy.root(), toy.lamp()
    heard.audit.begin(_Rename, toy.engine.sessions.live[session], LOCAL, [lamp, text]).done(None)
    assert heard.lines[-1].isascii()
    assert heard.lines[-1].isprintable()
    assert heard.last["parameters"] == {"value": text}
    heard.audit.begin(_Rename, None, LOCAL, [lamp, "x" * 100_000]).done(None)
    heard.audit.begin(_Rename, None, LOCAL, [lamp, {str(n): "x" * 999 for n in range(9999)}]).done(None)
    assert max(map(len, heard.lines)) < 8192


class _Rename:
    name = "lamp.set_name_label"
    parameters = (("self", RefTo("lamp")), ("value", STRING))
    result = VOID


async def test_pages_are_told(toy: Toy, heard: Heard) -> None:
    async def page(_context: Any, _peer: Any, arguments: Arguments) -> None:
        if arguments:
            raise ValueError

    serve = AuditedPage(heard.audit, Page("PUT", "/restore", "pool-admin", "restore"), page)
    context = toy.engine.contexts.background("restore")
    await serve(context, _NoPeer, Arguments({}))
    assert heard.last == {
        "time": "20110930T00:00:00Z", "from": "local", "call": "PUT /restore", "result": "success", "ms": 0
    }  # fmt: skip
    with pytest.raises(ValueError):  # noqa: PT011 - the page's own
        await serve(context, _NoPeer, Arguments({"session_id": "x", "dry_run": "true", "password": "y"}))
    assert heard.last["parameters"] == {"dry_run": "true", "password": HIDDEN}
    # A browser sends what other servers of the same machine gave it, too.
    cookies = Arguments({"elsewhere": "logged in", "uuid": "u", "force": "true"}, [("force", "true")])
    with pytest.raises(ValueError):  # noqa: PT011 - the page's own
        await serve(context, _NoPeer, cookies)
    assert heard.last["parameters"] == {"uuid": "u", "force": "true"}
    context.tasks.release(context.task)


_NoPeer: Any = None


@pytest.mark.slow
async def test_lines_are_written_within_a_second_and_at_the_end(tmp_path: Path) -> None:
    path = tmp_path / "audit.log"
    file = AuditFile(path)
    file.write("first")
    assert not path.exists()
    deadline = asyncio.get_running_loop().time() + FLUSH_SECONDS + 5
    while not path.exists():
        assert asyncio.get_running_loop().time() < deadline
        await asyncio.sleep(0.05)
    file.write("second")
    file.close()
    assert path.read_text() == "first\nsecond\n"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    file.write("third")
    file.close()
    assert path.read_text().endswith("second\nthird\n")


def line(second: int) -> str:
    return json.dumps({"time": f"20260101T00:00:{second:02}Z", "padding": "x" * 60}, separators=(",", ":"))


async def test_what_is_kept_is_bounded_and_read_in_order(tmp_path: Path) -> None:
    file = AuditFile(tmp_path / "audit.log", full=300, kept=2)
    for second in range(30):
        file.write(line(second))
        file.flush()
    file.close()
    assert sorted(os.listdir(tmp_path)) == ["audit.log.1", "audit.log.2"]
    kept = b"".join(file.read()).decode().splitlines()
    assert kept == [line(second) for second in range(30 - len(kept), 30)]
    assert b"".join(file.read("20260101T00:00:29Z")).decode().splitlines() == [line(29)]
    assert b"".join(file.read("20270101T00:00:00Z")) == b""


async def test_readers_miss_nothing_while_the_file_is_turned_over(tmp_path: Path) -> None:
    file = AuditFile(tmp_path / "audit.log", full=1, kept=40)
    stop = threading.Event()

    def read() -> list[list[int]]:
        found = []
        while not stop.is_set():
            found.append([int(json.loads(text)["padding"]) for text in b"".join(file.read()).splitlines()])
        return found

    reading = asyncio.create_task(asyncio.to_thread(read))
    for number in range(120):
        file.write(json.dumps({"time": "20260101T00:00:00Z", "padding": number}, separators=(",", ":")))
        file.flush()
        await asyncio.sleep(0)
    stop.set()
    for numbers in await reading:
        assert not numbers or numbers == list(range(numbers[0], numbers[-1] + 1))
    file.close()


async def test_a_disk_that_refuses_costs_lines_but_no_call(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    file = AuditFile(tmp_path / "there" / "audit.log")
    with caplog.at_level(logging.ERROR):
        for number in range(3):
            file.write(str(number))
            file.flush()
    assert len(caplog.records) == 1
    (tmp_path / "there").mkdir()
    file.write("last")
    file.close()
    assert (tmp_path / "there" / "audit.log").read_text() == "\nlast\n"


async def test_links_are_not_followed(tmp_path: Path) -> None:
    (tmp_path / "target").touch()
    (tmp_path / "audit.log").symlink_to(tmp_path / "target")
    file = AuditFile(tmp_path / "audit.log")
    file.write("line")
    file.close()
    assert (tmp_path / "target").read_text() == ""
