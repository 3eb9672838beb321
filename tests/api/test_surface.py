"""The server answers to the whole API, and every object shows every field with a value of its type."""

from __future__ import annotations

import ssl
import xmlrpc.client
from typing import Any

import pytest
import XenAPI

from domzero.datamodel.graph import GRAPH
from domzero.idl.types import BOOL, DATETIME, FLOAT, MapOf, RecordOf, SetOf, Type
from domzero.toolstack.unimplemented import UNIMPLEMENTED
from tests.api.values import harmless

SURPLUS = ["surplus"] * 25


def wire_type(type_: Type) -> type:
    if isinstance(type_, SetOf):
        return list
    if isinstance(type_, MapOf | RecordOf):
        return dict
    known: dict[Type, type] = {BOOL: bool, FLOAT: float, DATETIME: xmlrpc.client.DateTime}
    return known.get(type_, str)


def error_of(session: Any, method: str, *params: Any) -> list[str]:
    with pytest.raises(XenAPI.Failure) as failure:
        session.xenapi_request(method, params)
    details: list[str] = failure.value.details
    return details


def test_every_method_is_known(session: Any) -> None:
    for name in GRAPH.methods:
        if name == "session.login_with_password":
            continue
        code = error_of(session, name, *SURPLUS)[0]
        assert code in ("MESSAGE_PARAMETER_COUNT_MISMATCH", "MESSAGE_REMOVED", "NOT_IMPLEMENTED"), (name, code)


def test_all_of_4_1_is_served(session: Any) -> None:
    for name, method in GRAPH.methods.items():
        if method.message.since in ("rio", "miami") and method.message.session:
            assert error_of(session, name, *SURPLUS)[0] == "MESSAGE_PARAMETER_COUNT_MISMATCH", name


@pytest.mark.parametrize("cls", [name for name, cls in sorted(GRAPH.classes.items()) if cls.has_get_all])
def test_records_have_every_field_with_its_type(session: Any, cls: str) -> None:
    for record in session.xenapi_request(f"{cls}.get_all_records", ()).values():
        assert list(record) == list(GRAPH.fields[cls])
        for field in GRAPH.classes[cls].fields:
            assert isinstance(record[field.name], wire_type(field.type)), f"{cls}.{field.name}"


def test_what_nobody_implements_says_so_by_name(session: Any) -> None:
    for name in UNIMPLEMENTED:
        params = [harmless(param.type) for param in GRAPH.methods[name].message.params]
        assert error_of(session, name, *params) == ["NOT_IMPLEMENTED", name]


def test_unknown_methods(session: Any) -> None:
    assert error_of(session, "VM.levitate") == ["MESSAGE_METHOD_UNKNOWN", "VM.levitate"]


def test_methods_are_listed_without_a_session(host: Any) -> None:
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    with xmlrpc.client.ServerProxy(host.url, context=context) as proxy:
        names = proxy.system.listMethods()
    assert isinstance(names, list)
    assert {"VM.start", "Async.VM.start", "VM.get_all_records"} <= set(names)
