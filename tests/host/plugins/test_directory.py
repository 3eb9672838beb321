"""Real programs as plugins: good ones, broken ones, and those that do not stop."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from domzero.host.plugins.directory import QUOTED, PluginDirectory
from domzero.host.plugins.protocol import PluginFailedError, PluginMissingError, PluginRefusedError
from domzero.host.plugins.requests import AnswerError, answer, request
from domzero.host.process import OUTPUT_LIMIT
from domzero.wire.xmlrpc import decode_call
from tests.host.hurry import hurried

SESSION = "OpaqueRef:a-session"
ANSWER = (
    "<methodResponse><params><param><value><struct><member><name>Status</name><value>{}</value></member>"
    "<member><name>{}</name><value>{}</value></member></struct></value></param></params></methodResponse>"
)


class Home:
    """A directory of plugins, written in shell where nothing else is said."""

    def __init__(self, path: Path) -> None:
        self.path = path
        path.mkdir(mode=0o755)

    def put(self, name: str, body: str, interpreter: str = "/bin/sh") -> Path:
        file = self.path / name
        file.write_text(f"#!{interpreter}\n{body}\n")
        file.chmod(0o755)
        return file

    async def call(self, name: str, time_limit: float = 30.0, **arguments: str) -> str:
        plugins = PluginDirectory(self.path, Path("/nowhere/socket"), time_limit)
        return await plugins.call(name, "a function", SESSION, arguments)


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(tmp_path / "plugins")


def says(text: str, status: str = "Success", name: str = "Value") -> str:
    return f"cat <<'END'\n{ANSWER.format(status, name, text)}\nEND"


async def test_a_program_gets_one_argument_and_answers(home: Home, tmp_path: Path) -> None:
    home.put("tell", f'printf %s "$1" >{tmp_path}/seen; echo $# >>{tmp_path}/count; {says("a &amp; b")}')
    assert await home.call("tell", what="<&>\r\n", empty="") == "a & b"
    call = decode_call((tmp_path / "seen").read_bytes())
    assert (call.method, call.params) == ("a function", [SESSION, {"what": "<&>\r\n", "empty": ""}])
    assert (tmp_path / "count").read_text() == "1\n"


async def test_a_program_gets_little_else(home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SECRET_OF_THE_DAEMON", "x")
    secret = os.open(tmp_path / "secret", os.O_CREAT | os.O_WRONLY)
    os.set_inheritable(secret, True)
    home.put("look", f"{{ env; pwd; ls -l /proc/self/fd; cat; }} >{tmp_path}/seen; {says('')}")
    assert await home.call("look") == ""
    os.close(secret)
    seen = (tmp_path / "seen").read_text()
    names = {line.partition("=")[0] for line in seen.splitlines() if "=" in line}
    assert names - {"_", "PWD", "SHLVL", "OLDPWD"} == {"PATH", "LC_ALL", "PYTHONPATH", "DOMZERO_SOCKET"}
    assert "\n/\n" in seen
    assert str(tmp_path / "secret") not in seen


async def test_the_errors_that_a_plugin_answers_with(home: Home) -> None:
    home.put("refuse", says("<array><data><value>VDI_IN_USE</value><value>x</value></data></array>", "Failure",
                            "ErrorDescription"))  # fmt: skip
    with pytest.raises(PluginRefusedError) as refused:
        await home.call("refuse")
    assert refused.value.description == ("VDI_IN_USE", "x")


@pytest.mark.parametrize(
    ("body", "failure"),
    [
        ("echo said; echo why >&2; exit 3", ("non-zero exit", "said\n", "why\n")),
        ("echo said; kill -SEGV $$", ("signal: SIGSEGV", "said\n", "")),
        ("kill -40 $$", ("signal: 40", "", "")),
    ],
)
async def test_programs_that_end_badly(home: Home, body: str, failure: tuple[str, str, str]) -> None:
    home.put("broken", body)
    with pytest.raises(PluginFailedError) as failed:
        await home.call("broken")
    assert (failed.value.status, failed.value.stdout, failed.value.stderr) == failure


@pytest.mark.parametrize(
    ("output", "status"),
    [
        (b"hello", "no XML-RPC response"),
        (b"", "no XML-RPC response"),
        (b"\xff\xfe\x00", "no XML-RPC response"),
        (b"<!DOCTYPE x [<!ENTITY a 'b'>]><methodResponse/>", "no XML-RPC response"),
        (b"<methodResponse><params/></methodResponse>", "one value"),
        (ANSWER.format("Success", "Value", "<int>7</int>").encode(), "the result is no text but int"),
        (ANSWER.format("Success", "Value", "<nil/>").encode(), "the result is no text but nothing"),
        (ANSWER.format("Success", "Other", "x").encode(), "neither a result nor an error"),
        (ANSWER.format("Failure", "Value", "x").encode(), "neither a result nor an error"),
        (ANSWER.format("Failure", "ErrorDescription", "<array><data/></array>").encode(), "neither a result nor"),
        (ANSWER.format("Failure", "ErrorDescription", "x").encode(), "neither a result nor an error"),
        (b"<methodResponse><params><param><value>x</value></param></params></methodResponse>", "neither a result"),
    ],
)
def test_what_is_no_answer(output: bytes, status: str) -> None:
    with pytest.raises(AnswerError, match=status):
        answer(output)


async def test_what_a_program_wrote_in_place_of_an_answer_is_shown(home: Home) -> None:
    home.put("chatty", "echo debugging; echo more >&2")
    with pytest.raises(PluginFailedError, match="no XML-RPC response") as failed:
        await home.call("chatty")
    assert (failed.value.stdout, failed.value.stderr) == ("debugging\n", "more\n")


async def test_programs_that_cannot_be_run(home: Home) -> None:
    with pytest.raises(PluginMissingError):
        await home.call("../../bin/true")
    home.put("strange", "", "/no/such/interpreter")
    with pytest.raises(PluginFailedError, match="could not be started"):
        await home.call("strange")
    home.put("fine", says("x"))
    with pytest.raises(PluginFailedError, match="Argument list too long"):
        await home.call("fine", much="x" * 200_000)
    home.path.chmod(0o777)
    with pytest.raises(PluginFailedError, match="can be written by others"):
        await home.call("fine")


def test_what_xml_cannot_carry_is_left_out_of_the_request() -> None:
    call = decode_call(request("f\0", SESSION, {"a\0": "\0b\ud800"}).encode())
    assert (call.method, call.params) == ("f", [SESSION, {"a": "b"}])


async def test_a_program_that_does_not_stop_writing_is_ended(home: Home) -> None:
    home.put("flood", "cat /dev/zero")
    with pytest.raises(PluginFailedError, match=f"more than {OUTPUT_LIMIT} bytes") as failed:
        await home.call("flood")
    assert len(failed.value.stdout) == QUOTED


async def test_a_program_that_does_not_end_is_ended_with_its_children(
    home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pids, ready = tmp_path / "pids", tmp_path / "ready"
    os.mkfifo(ready)
    home.put("hang", f"sleep 1000 & echo $! $$ >{pids}; echo before; echo >{ready}; wait")
    call = asyncio.ensure_future(home.call("hang", time_limit=60))
    await asyncio.to_thread(ready.read_text)
    await hurried(monkeypatch, call, 60)
    with pytest.raises(PluginFailedError, match="no end within 60 seconds") as failed:
        await call
    assert failed.value.stdout == "before\n"
    await gone(pids)


async def test_cancelling_ends_the_program_with_its_children(home: Home, tmp_path: Path) -> None:
    pids, ready = tmp_path / "pids", tmp_path / "ready"
    os.mkfifo(ready)
    home.put("hang", f"sleep 1000 & echo $! $$ >{pids}; echo >{ready}; wait")
    call = asyncio.ensure_future(home.call("hang"))
    await asyncio.to_thread(ready.read_text)
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    await gone(pids)


async def gone(pids: Path) -> None:
    """None of the processes runs; one that was killed may have to wait for somebody to look."""
    for pid in (await asyncio.to_thread(pids.read_text)).split():
        async with asyncio.timeout(20):
            while runs(pid):  # noqa: ASYNC110 - they are nobody's children here, and tell nobody
                await asyncio.sleep(0.01)


def runs(pid: str) -> bool:
    try:
        return Path("/proc", pid, "stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


async def test_what_a_program_leaves_running_goes_on_and_delays_nothing(home: Home, tmp_path: Path) -> None:
    pids, end = tmp_path / "pids", tmp_path / "end"
    os.mkfifo(end)
    home.put("leave", f"{{ read word <{end}; echo $word >{tmp_path}/done; }} & echo $! >{pids}; {says('left')}")
    async with asyncio.timeout(20):
        assert await home.call("leave") == "left"
    assert runs(pids.read_text().strip())
    end.write_text("over\n")
    await gone(pids)
    assert (tmp_path / "done").read_text() == "over\n"


SAID = st.one_of(
    st.binary(max_size=60),
    st.tuples(
        st.sampled_from(["Success", "Failure", "<int>1</int>", "x"]), st.sampled_from(["Value", "ErrorDescription"]),
        st.sampled_from(["x", "<array><data/></array>", "<array><data><value>E</value></data></array>", "<nil/>",
                         "<array><data><value><int>1</int></value></data></array>", "<struct/>", "</value>"]),
    ).map(lambda parts: ANSWER.format(*parts).encode()),
)  # fmt: skip


@given(SAID)
def test_whatever_a_plugin_says(said: bytes) -> None:
    try:
        told: tuple[str, ...] = (answer(said),)
    except PluginRefusedError as error:
        told = error.description
    except AnswerError as error:
        told = (str(error),)
    assert all(isinstance(part, str) for part in told)
