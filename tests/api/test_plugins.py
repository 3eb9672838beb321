"""Plugins of a host, called as clients call them."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from domzero.toolstack.host.plugins import ORIGINATOR
from tests.api.errors import refused
from tests.api.harness import PASSWORD, InProcessHost, login, plain_proxy
from tests.api.jsonrpc import JsonRpc
from tests.house.sources import ROOT
from tests.xe.terminal import printed, raw

GUIDE = (ROOT / "docs/howto-write-a-plugin.md").read_text()

HELD = """
import XenAPIPlugin

def hold(session, args):
    with open(args["pipe"], "w") as pipe:
        pipe.write(session.handle)
    with open(args["pipe"]) as pipe:
        pipe.read()
    return session.xenapi.session.get_originator(session.handle)

def fail(session, args):
    raise XenAPIPlugin.Failure("SOME_CODE", ["a", 7])

def call_wrongly(session, args):
    return session.xenapi.VM.start("OpaqueRef:nothing", False, False)

def break_down(session, args):
    return {}["key"]

def leave(session, args):
    raise SystemExit(9)

def no_text(session, args):
    return 7

def log_in(session, args):
    import XenAPI
    own = XenAPI.xapi_local()
    own.login_with_password("root", "")
    name = own.xenapi.session.get_auth_user_name(own.handle)
    own.xenapi.session.logout()
    return name + str(own.handle)

XenAPIPlugin.dispatch(dict(
    hold=hold, fail=fail, call_wrongly=call_wrongly, break_down=break_down, leave=leave, no_text=no_text, log_in=log_in,
))
"""


def put(host: InProcessHost, name: str, text: str) -> Path:
    assert host.settings.state_dir is not None
    directory = Path(host.settings.state_dir, "plugins")
    directory.mkdir(mode=0o755, exist_ok=True)
    file = directory / name
    file.write_text(text)
    file.chmod(0o755)
    return file


def example(language: str) -> str:
    """A program in the guide."""
    found = re.search(rf"^```{language}\n(#!.*?)^```", GUIDE, re.MULTILINE | re.DOTALL)
    assert found is not None
    return found[1]


@pytest.fixture
def here(api: Any) -> Any:
    return api.host.get_all()[0]


@pytest.fixture
def held(host: InProcessHost) -> str:
    put(host, "held.py", "#!/usr/bin/env python3\n" + HELD)
    return "held.py"


def test_the_guides_example(host: InProcessHost, api: Any, here: Any, machine: Any) -> None:
    put(host, "machines", example("python"))
    api.VM.set_name_label(machine, "web 1")
    assert api.host.call_plugin(here, "machines", "count", {"prefix": "web"}) == "1"
    assert api.host.call_plugin(here, "machines", "count", {"prefix": "nothing"}) == "0"
    assert re.fullmatch(r"\d+\.\d\d", api.host.call_plugin(here, "machines", "load", {}))
    with refused("INVALID_VALUE", "args", "a, b"):
        api.host.call_plugin(here, "machines", "load", {"a": "1", "b": "2"})
    with refused("UNKNOWN_XENAPI_PLUGIN_FUNCTION", "explode"):
        api.host.call_plugin(here, "machines", "explode", {})


def test_the_guides_example_in_shell(host: InProcessHost, api: Any, here: Any) -> None:
    put(host, "kernel", example("sh"))
    assert api.host.call_plugin(here, "kernel", "version", {}) == os.uname().release


def test_the_command(host: InProcessHost, api: Any, here: Any) -> None:
    put(host, "machines", example("python"))
    uuid = api.host.get_uuid(here)
    call = ("host-call-plugin", f"host-uuid={uuid}", "plugin=machines", "fn=count", "args:prefix=Control domain")
    assert printed(host, *call) == "1\n"
    for plugin, fn, said in (
        ("machines", "explode", "UNKNOWN_XENAPI_PLUGIN_FUNCTION"),
        ("nothing", "count", "no plugin of that name"),
        ("machines", "load", "args"),
    ):
        failed = raw(host, "host-call-plugin", f"host-uuid={uuid}", f"plugin={plugin}", f"fn={fn}", "args:prefix=x")
        assert failed.code == 1
        assert said in failed.err or any(said in (code, *params) for code, params in failed.errors), failed


def test_the_errors_of_plugins(api: Any, here: Any, held: str) -> None:
    with refused("XENAPI_MISSING_PLUGIN", "no such thing"):
        api.host.call_plugin(here, "no such thing", "f", {})
    with refused("XENAPI_MISSING_PLUGIN", "../plugins/" + held):
        api.host.call_plugin(here, "../plugins/" + held, "fail", {})
    with refused("HANDLE_INVALID", "host", "OpaqueRef:nothing"):
        api.host.call_plugin("OpaqueRef:nothing", held, "fail", {})
    with refused("SOME_CODE", "a", "7"):
        api.host.call_plugin(here, held, "fail", {})
    with refused("HANDLE_INVALID", "VM", "OpaqueRef:nothing"):
        api.host.call_plugin(here, held, "call_wrongly", {})
    with refused("XENAPI_PLUGIN_FAILURE", "break_down", "KeyError", "'key'"):
        api.host.call_plugin(here, held, "break_down", {})
    with refused("XENAPI_PLUGIN_FAILURE", "non-zero exit", "", ""):
        api.host.call_plugin(here, held, "leave", {})
    with refused("XENAPI_PLUGIN_FAILURE"):
        api.host.call_plugin(here, held, "no_text", {})
    with refused("XENAPI_PLUGIN_FAILURE"):
        api.host.call_plugin(here, held, "fail", {"much": "x" * 200_000})


def test_what_xml_cannot_carry_does_no_harm(host: InProcessHost, session: Any, here: Any, held: str) -> None:
    json = JsonRpc(host.url)
    for plugin, fn, args in ((held, "f\0ail", {}), (held, "fail", {"\0": ""}), (held + "\0", "fail", {})):
        said = json.raw("host.call_plugin", session.handle, here, plugin, fn, args)
        assert said["error"]["message"] == "INVALID_VALUE"


def test_a_plugin_may_log_in_itself(api: Any, here: Any, held: str) -> None:
    assert api.host.call_plugin(here, held, "log_in", {}) == "rootNone"


class Holding:
    """A plugin at work: whose session it is, and when it may end."""

    def __init__(self, api: Any, here: Any, plugin: str, pipe: Path) -> None:
        os.mkfifo(pipe)
        self.task = api.Async.host.call_plugin(here, plugin, "hold", {"pipe": str(pipe)})
        self.session = pipe.read_text()
        self._pipe = pipe

    def let_go(self) -> None:
        self._pipe.write_text("done")


@pytest.fixture
def holding(api: Any, here: Any, held: str, tmp_path: Path) -> Iterator[Holding]:
    one = Holding(api, here, held, tmp_path / "pipe")
    yield one
    if api.task.get_status(one.task) == "pending":
        api.task.cancel(one.task)


def finished(api: Any, task: Any) -> str:
    """How the task ended."""
    token = ""
    while api.task.get_status(task) in ("pending", "cancelling"):
        token = getattr(api.event, "from")(["task"], token, 30.0)["token"]
    return str(api.task.get_status(task))


def test_the_session_is_good_for_the_plugin_alone_and_for_the_while(
    host: InProcessHost, session: Any, here: Any, holding: Holding
) -> None:
    api = session.xenapi
    assert api.session.get_auth_user_name(holding.session) == "root"
    stranger = plain_proxy(host.url)
    for answer in (stranger.VM.get_all(holding.session), stranger.host.get_uuid(holding.session, here)):
        assert answer["ErrorDescription"] == ["SESSION_INVALID", holding.session]
    page = subprocess.run(
        ("curl", "--silent", "--insecure", "--output", "/dev/null", "--write-out", "%{http_code}",
         f"{host.url}/host_rrd?session_id={holding.session}"), capture_output=True,
    )  # fmt: skip
    assert page.stdout == b"401"
    holding.let_go()
    assert finished(api, holding.task) == "success"
    assert "plugin held.py" in api.task.get_result(holding.task)
    with refused("HANDLE_INVALID", "session", holding.session):
        api.session.get_uuid(holding.session)


def test_cancelling_the_task_ends_the_plugin_and_its_session(api: Any, holding: Holding) -> None:
    assert "cancel" in api.task.get_allowed_operations(holding.task)
    api.task.cancel(holding.task)
    assert finished(api, holding.task) == "cancelled"
    with refused("HANDLE_INVALID", "session", holding.session):
        api.session.get_uuid(holding.session)


def test_a_plugins_session_has_its_callers_rights(host: InProcessHost, held: str, tmp_path: Path) -> None:
    host.run(host.daemon.engine.users.add("admin", PASSWORD, "pool-admin"))
    host.run(host.daemon.engine.users.add("operator", PASSWORD, "pool-operator"))
    api = login(host.url, "admin").xenapi
    (here,) = api.host.get_all()
    with refused("RBAC_PERMISSION_DENIED"):
        login(host.url, "operator").xenapi.host.call_plugin(here, held, "fail", {})
    holding = Holding(api, here, held, tmp_path / "pipe")
    assert api.session.get_auth_user_name(holding.session) == "admin"
    assert not api.session.get_is_local_superuser(holding.session)
    holding.let_go()
    assert finished(api, holding.task) == "success"


def test_a_long_name_is_cut_in_the_originator(api: Any, here: Any) -> None:
    with refused("XENAPI_MISSING_PLUGIN", "x" * 2 * ORIGINATOR):
        api.host.call_plugin(here, "x" * 2 * ORIGINATOR, "f", {})
