"""The server answers to the whole API, and every object shows every field with a value of its type."""

from __future__ import annotations

import xmlrpc.client
from collections.abc import Callable
from itertools import islice
from typing import Any

import pytest

from domzero.datamodel.graph import GRAPH
from domzero.idl.types import BOOL, DATETIME, FLOAT, MapOf, RecordOf, SetOf, Type
from domzero.toolstack.unimplemented import UNIMPLEMENTED
from tests.api.harness import InProcessHost, plain_proxy
from tests.api.values import harmless
from tests.sampling import SOME_OR_ALL, each

SURPLUS = ["surplus"] * 25


def wire_type(type_: Type) -> type:
    if isinstance(type_, SetOf):
        return list
    if isinstance(type_, MapOf | RecordOf):
        return dict
    known: dict[Type, type] = {BOOL: bool, FLOAT: float, DATETIME: xmlrpc.client.DateTime}
    return known.get(type_, str)


Call = Callable[..., list[str]]


@pytest.fixture
def error_of(host: InProcessHost, session: Any) -> Call:
    """Calls a method that must fail and gives its error. (The official binding has its own idea of some names.)"""
    proxy = plain_proxy(host.url)

    def call(method: str, *params: Any) -> list[str]:
        answer = getattr(proxy, method)(session.handle, *params)
        assert answer["Status"] == "Failure", method
        return list(answer["ErrorDescription"])

    return call


@pytest.mark.parametrize("step", SOME_OR_ALL)
def test_every_method_is_known(error_of: Call, step: int) -> None:
    for name in islice(GRAPH.methods, 0, None, step):
        if name == "session.login_with_password":
            continue
        code = error_of(name, *SURPLUS)[0]
        assert code in ("MESSAGE_PARAMETER_COUNT_MISMATCH", "MESSAGE_REMOVED", "NOT_IMPLEMENTED"), (name, code)


@pytest.mark.parametrize("step", SOME_OR_ALL)
def test_all_of_4_1_is_served(error_of: Call, step: int) -> None:
    for name, method in islice(GRAPH.methods.items(), 0, None, step):
        if method.message.since in ("rio", "miami") and method.message.session:
            assert error_of(name, *SURPLUS)[0] == "MESSAGE_PARAMETER_COUNT_MISMATCH", name


@pytest.mark.parametrize(
    "cls", each(3, [name for name, cls in sorted(GRAPH.classes.items()) if cls.has_get_all and not cls.removed])
)
def test_records_have_every_field_with_its_type(session: Any, cls: str) -> None:
    for record in session.xenapi_request(f"{cls}.get_all_records", ()).values():
        assert list(record) == list(GRAPH.fields[cls])
        for field in GRAPH.classes[cls].fields:
            assert isinstance(record[field.name], wire_type(field.type)), f"{cls}.{field.name}"


def test_what_nobody_implements_says_so_by_name(error_of: Call) -> None:
    for name in UNIMPLEMENTED:
        params = [harmless(param.type) for param in GRAPH.methods[name].message.params]
        assert error_of(name, *params) == ["NOT_IMPLEMENTED", name]


def test_unknown_methods(error_of: Call) -> None:
    assert error_of("VM.levitate") == ["MESSAGE_METHOD_UNKNOWN", "VM.levitate"]


def test_methods_are_listed_without_a_session(host: InProcessHost) -> None:
    names = plain_proxy(host.url).system.listMethods()
    assert isinstance(names, list)
    assert {"VM.start", "Async.VM.start", "VM.get_all_records"} <= set(names)
