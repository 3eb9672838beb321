"""Who may come in, with which rights, and what becomes of those who do not keep to the protocol."""

from __future__ import annotations

import asyncio
import struct
import subprocess
import time
from collections.abc import Awaitable, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from domzero.datamodel.graph import GRAPH
from domzero.engine.calls import LOCAL, Answer, Origin
from domzero.idl.types import STRING, VOID
from domzero.xe import door
from domzero.xe.conversation import Conversation
from domzero.xe.errors import CommandError, UsageError
from domzero.xe.line import parse
from tests.api.harness import PASSWORD, InProcessHost, login
from tests.xe.terminal import HELLO, RawTerminal, local, printed, raw, refused, remote, request, secured

HINT = "For usage run: 'xe help'\n"


def sessions(host: InProcessHost) -> int:
    return len(host.daemon.engine.sessions.live)


def test_a_password_opens_the_door(host: InProcessHost) -> None:
    before = sessions(host)
    said = remote(host, "root", PASSWORD, "vm-list", "params=name-label", "--minimal")
    assert (said.code, said.err) == (0, "")
    assert said.out.startswith("Control domain on host")
    assert sessions(host) == before


@pytest.mark.slow
def test_a_wrong_password_does_not(host: InProcessHost) -> None:
    assert remote(host, "root", "wrong", "vm-list").err == "Authentication failed\n"
    said = remote(host, "", "", "vm-list")
    assert (said.code, said.out) == (1, "")
    assert said.err.startswith("Authentication failed\nGive a user name")


def test_help_needs_no_password(host: InProcessHost) -> None:
    assert remote(host, "", "", "help", "--minimal").code == 0


def test_a_session_that_exists_is_used_and_left_open(host: InProcessHost) -> None:
    session = login(host.url)
    with secured(host) as connection:
        said = RawTerminal(connection, {}, ()).run(["vm-list", "--minimal", f"session_id={session.handle}"])
    assert said.code == 0
    assert session.xenapi.VM.get_all()
    session.xenapi.session.logout()
    with secured(host) as connection:
        assert RawTerminal(connection, {}, ()).run(["vm-list", "session_id=OpaqueRef:none"]).code == 1


def test_roles_hold(host: InProcessHost, machine: str) -> None:
    host.run(host.daemon.engine.users.add("reader", PASSWORD, "read-only"))
    host.run(host.daemon.engine.users.add("operator", PASSWORD, "vm-operator"))
    assert machine in remote(host, "reader", PASSWORD, "vm-list", "--minimal").out
    said = remote(host, "reader", PASSWORD, "vm-start", f"uuid={machine}")
    assert said.code == 1
    assert "vm.start" in said.err
    assert remote(host, "operator", PASSWORD, "vm-start", f"uuid={machine}").code == 0
    assert remote(host, "operator", PASSWORD, "vm-destroy", f"uuid={machine}").code == 1
    assert remote(host, "reader", PASSWORD, "secret-list").code == 1


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["dance"], "Unknown command: dance\n"),
        (["help", "dance"], "Unknown command: dance\n"),
        ([""], "Syntax error: no command was given\n"),
        (["--minimal"], "Syntax error: no command was given\n"),
        (["vm-list", "stray"], "Syntax error: stray\n"),
        (["vm-list", "-x"], "Syntax error: -x needs a value\n"),
        (["vm-start vm=x"], "Unknown command: vm-start vm"),
        (["vm-list", "minimal=perhaps"], "Error: Parameter minimal must be a boolean (true or false)\n"),
    ],
)
def test_rubbish_on_the_command_line(host: InProcessHost, arguments: list[str], said: str) -> None:
    if said.endswith("vm"):
        assert refused(host, *arguments).startswith("Syntax error: no command")
    else:
        assert refused(host, *arguments) == (said if said.startswith("Error: ") else said + HINT)


@given(st.lists(st.text(max_size=12), max_size=6))
def test_no_command_line_raises_anything_else(arguments: list[str]) -> None:
    try:
        line = parse(arguments)
        for name, _ in line.params:
            line.flag(name)
    except (UsageError, CommandError):
        return
    assert line.command in arguments


@given(
    arguments=st.lists(
        st.text(st.characters(exclude_characters="\n", exclude_categories=["Cs"]), max_size=8), max_size=4
    )
)
@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
def test_any_arguments_are_answered(host: InProcessHost, arguments: list[str]) -> None:
    said = raw(host, "vm-list", *arguments)
    assert said.code in (0, 1)
    assert "in a way that it should not" not in said.err


@pytest.mark.parametrize(
    "sent",
    [
        b"POST /cli HTTP/1.0\r\n\r\n",
        request(b"", 300 << 10),
        request(b"vm-list") + b"HTTP/1.1 200 OK\r\nnothing of it here\r\n",
        request(b"vm-list") + HELLO[:27] + struct.pack("<ii", 7, 0),
        request(b"event-wait\nclass=vm\nname-label=x") + HELLO + struct.pack("<i", -5),
        request(b"vm-uninstall\nvm=mine") + HELLO + struct.pack("<iii", 8, 10, 5),
        request(b"event-wait\nclass=vm\nname-label=x") + HELLO + struct.pack("<iii", 8, 10, 5) * 20,
        request(b"event-wait\nclass=vm\nname-label=x") + HELLO + struct.pack("<i", 1 << 20),
    ],
    ids=[
        "no length",
        "too long",
        "no greeting",
        "other version",
        "negative length",
        "response unasked",
        "talks and talks",
        "long message",
    ],
)
def test_who_does_not_keep_to_the_protocol_is_disconnected(host: InProcessHost, machine: str, sent: bytes) -> None:
    with local(host) as connection:
        connection.sendall(sent)
        assert connection.recv(len(HELLO)) == HELLO
        started = time.monotonic()
        while connection.recv(4096):
            assert time.monotonic() - started < 10
    assert printed(host, "vm-list", f"uuid={machine}", "--minimal").strip() == machine


class SlowLogin:
    """A dispatcher that takes its time to open a session, and goes on with that whoever leaves."""

    def __init__(self) -> None:
        self.asked, self.go_on = asyncio.Event(), asyncio.Event()
        self.sessions: set[str] = set()

    def call(self, method: str, params: Sequence[Any], _: Origin) -> Answer | Awaitable[Answer]:
        if method == "session.logout":
            self.sessions.discard(params[0])
            return Answer(VOID, None)
        self.opening = asyncio.ensure_future(self._open())
        return asyncio.shield(self.opening)

    async def _open(self) -> Answer:
        self.asked.set()
        await self.go_on.wait()
        self.sessions.add("OpaqueRef:one")
        return Answer(STRING, "OpaqueRef:one")


async def test_who_leaves_while_logging_in_leaves_no_session(tmp_path: Path) -> None:
    slow, left = SlowLogin(), asyncio.Event()
    made = door.CommandDoor(GRAPH, slow, lambda: ("VM.get_all_records",), lambda *_: False)

    async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(ConnectionError):
            await made.serve(reader, writer, len(b"vm-list"), LOCAL)
        writer.close()
        left.set()

    server = await asyncio.start_unix_server(accept, tmp_path / "socket")
    _, writer = await asyncio.open_unix_connection(tmp_path / "socket")
    writer.write(b"vm-list" + HELLO)
    await slow.asked.wait()
    writer.close()
    await asyncio.sleep(0.05)
    slow.go_on.set()
    await slow.opening
    await left.wait()
    assert not slow.sessions
    server.close()


@pytest.mark.parametrize(("command", "heard_out"), [("vm-param-get", True), ("help", False)])
def test_whoever_is_known_may_read_slowly(
    host: InProcessHost, machine: str, monkeypatch: pytest.MonkeyPatch, command: str, heard_out: bool
) -> None:
    monkeypatch.setattr(door, "Conversation", partial(Conversation, stall=0.05))
    api, size = login(host.url).xenapi, 2_000_000
    api.VM.set_name_description(api.VM.get_by_uuid(machine), "x" * size)
    words = [f"uuid={machine}", "param-name=name-description"] if heard_out else ["vm-list"] * 6000
    with local(host) as connection:
        connection.sendall(request("\n".join([command, *words]).encode()) + HELLO)
        time.sleep(0.2)
        read = b""
        with suppress(ConnectionResetError):
            while data := connection.recv(1 << 20):
                read += data
    assert read.endswith(struct.pack("<iiii", 12, 9, 4, 0)) is heard_out
    assert not heard_out or read.count(b"x" * 1000) == size // 1000


def test_curl_gets_the_greeting_and_no_http(host: InProcessHost) -> None:
    with subprocess.Popen(
        ["curl", "--silent", "--insecure", "--http0.9", "--no-buffer", "--max-time", "30", "--output", "-", "--data",
         "help", f"{host.url}/cli"], stdout=subprocess.PIPE,
    ) as curl:  # fmt: skip
        assert curl.stdout is not None
        assert curl.stdout.read(len(HELLO)) == HELLO
        curl.kill()
