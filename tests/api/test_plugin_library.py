"""`XenAPI` and `XenAPIPlugin` for plugins: what programs that were written for XenServer's expect of them."""

from __future__ import annotations

import ast
import sys
import xmlrpc.client
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import XenAPI

from domzero.host.plugins.directory import LIBRARY
from tests.api.harness import PASSWORD, InProcessHost
from tests.xe.terminal import socket_of

NAMES = ("XenAPI", "XenAPIPlugin")


@pytest.fixture
def library(monkeypatch: pytest.MonkeyPatch) -> dict[str, ModuleType]:
    """The modules as a plugin imports them; nothing else in this process sees them."""
    monkeypatch.syspath_prepend(str(LIBRARY))
    before = {name: sys.modules.pop(name) for name in NAMES if name in sys.modules}
    found = {name: import_module(name) for name in NAMES}
    for name in NAMES:
        del sys.modules[name]
    sys.modules.update(before)
    assert all(Path(str(module.__file__)).parent == LIBRARY for module in found.values())
    return found


@pytest.fixture
def local(host: InProcessHost, library: dict[str, ModuleType], monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    monkeypatch.setenv("DOMZERO_SOCKET", str(socket_of(host)))
    session = library["XenAPI"].xapi_local()
    yield session
    session._server("close")()


@pytest.mark.parametrize("file", sorted(LIBRARY.glob("*.py")), ids=lambda file: file.name)
def test_the_library_runs_on_old_pythons_with_nothing_but_their_own(file: Path) -> None:
    tree = ast.parse(file.read_text(), feature_version=(3, 7))
    imported = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    imported |= {str(node.module) for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    assert {name.partition(".")[0] for name in imported} <= {*sys.stdlib_module_names, "XenAPI"}
    assert not any(isinstance(node, ast.Match | ast.NamedExpr) for node in ast.walk(tree))


def test_a_session_of_this_host(local: Any) -> None:
    assert local.handle is None
    local.login_with_password("root", "")
    assert local.handle == local._session
    (here,) = local.xenapi.host.get_all()
    assert local.xenapi.session.get_this_host(local._session) == here
    assert local.xenapi_request("host.get_uuid", (local.handle, here)) == local.xenapi.host.get_uuid(here)
    before = local.handle
    local.logout()
    assert local.handle is None
    local._session = before
    with pytest.raises(Exception, match="SESSION_INVALID"):
        local.xenapi.host.get_all()


def test_the_other_ways_to_log_in_and_out(local: Any) -> None:
    local.xenapi.login_with_password("root", "", "1.0", "tests")
    assert local.xenapi.session.get_originator(local.handle) == "tests"
    local.xenapi.session.logout()
    assert local.handle is None
    local.xenapi.login_with_password("root", "")
    local.xenapi.logout()
    assert local.handle is None


def test_a_session_elsewhere(host: InProcessHost, library: dict[str, ModuleType]) -> None:
    module = library["XenAPI"]
    session = module.Session(host.url, ignore_ssl=True)
    with pytest.raises(module.Failure) as failure:
        session.xenapi.VM.get_all()
    assert failure.value.details[0] == "SESSION_INVALID"
    assert str(failure.value) == str(failure.value.details)
    session.login_with_password("root", PASSWORD)
    assert session.xenapi.VM.get_all()
    session.logout()
    session._server("close")()


def test_it_has_the_names_of_the_official_binding(library: dict[str, ModuleType]) -> None:
    module = library["XenAPI"]
    assert {"Session", "Failure", "xapi_local"} <= set(dir(XenAPI)) & set(dir(module))


@pytest.mark.parametrize("arguments", [[], ["a", "b"]])
def test_a_plugin_that_is_not_called_as_one(
    library: dict[str, ModuleType], monkeypatch: pytest.MonkeyPatch, arguments: list[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["plugin", *arguments])
    with pytest.raises(SystemExit, match=r"host\.call_plugin"):
        library["XenAPIPlugin"].dispatch({})


def test_messages_for_plugins_that_write_their_answers_themselves(library: dict[str, ModuleType]) -> None:
    module = library["XenAPIPlugin"]
    (answer,), _ = xmlrpc.client.loads(module.success_message("<&>"))
    assert answer == {"Status": "Success", "Value": "<&>"}
    (answer,), _ = xmlrpc.client.loads(module.failure_message(["CODE", 7]))
    assert answer == {"Status": "Failure", "ErrorDescription": ["CODE", "7"]}
    failure = module.Failure("CODE", ["a"])
    assert (failure.params, str(failure)) == (["CODE", "a"], "['CODE', 'a']")
