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

LEFT = 206
"""How many messages nobody implements. Implementing one lowers this; nothing raises it."""

LEFT_OF_4_1 = {
    "host.license_apply", "host.send_debug_keys", "pool.disable_ha", "pool.eject", "pool.emergency_reset_master",
    "pool.emergency_transition_to_master", "pool.enable_ha", "pool.join", "pool.join_force",
}  # fmt: skip
"""Those of them that XenServer 4.1 had: a pool of several hosts, Xen's debug keys, licences."""

OLD = ("rio", "miami")
"""XenServer 4.0 and 4.1."""


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
def test_all_of_4_1_is_known(error_of: Call, step: int) -> None:
    for name, method in islice(GRAPH.methods.items(), 0, None, step):
        if method.message.since in OLD and method.message.session:
            assert error_of(name, *SURPLUS)[0] == "MESSAGE_PARAMETER_COUNT_MISMATCH", name


def assert_whole(cls: str, record: Any) -> None:
    """A record as it is sent has every field of its class, with a value of the field's type."""
    assert list(record) == list(GRAPH.fields[cls])
    for field in GRAPH.classes[cls].fields:
        assert isinstance(record[field.name], wire_type(field.type)), f"{cls}.{field.name}"


@pytest.mark.parametrize(
    "cls", each(3, [name for name, cls in sorted(GRAPH.classes.items()) if cls.has_get_all and not cls.removed])
)
def test_records_have_every_field_with_its_type(session: Any, cls: str) -> None:
    for record in session.xenapi_request(f"{cls}.get_all_records", ()).values():
        assert_whole(cls, record)


def test_so_have_those_of_what_comes_into_being(session: Any, machine: Any) -> None:
    """Objects that a fresh host has none of."""
    api = session.xenapi
    network = api.network.create({"name_label": "seven", "name_description": "", "MTU": "1500", "other_config": {}})
    made = {
        "VIF": api.VIF.create({
            "VM": machine, "network": api.network.get_all()[0], "device": "0", "MAC": "", "MTU": "1500",
            "other_config": {}, "qos_algorithm_type": "", "qos_algorithm_params": {},
        }),
        "VLAN": api.VLAN.create(
            next(pif for pif in api.PIF.get_all() if api.PIF.get_device(pif) == "eth1"), "7", network
        ),
        "VM_appliance": api.VM_appliance.create({"name_label": "several", "name_description": ""}),
        "secret": api.secret.create({"value": "hidden", "other_config": {}}),
        "subject": api.subject.create({"subject_identifier": "somebody", "other_config": {}}),
        "blob": api.VM.create_new_blob(machine, "notes", "text/plain", False),
        "task": api.task.create("work", ""),
    }  # fmt: skip
    api.VM.start(machine, False, False)
    assert_whole("VM", api.VM.get_record(machine))
    for cls, ref in made.items():
        assert_whole(cls, getattr(api, cls).get_record(ref))
    for vbd in api.VM.get_VBDs(machine):
        assert_whole("VBD", api.VBD.get_record(vbd))
        assert_whole("VBD_metrics", api.VBD_metrics.get_record(api.VBD.get_metrics(vbd)))
    assert_whole("VIF_metrics", api.VIF_metrics.get_record(api.VIF.get_metrics(made["VIF"])))
    assert_whole("VM_metrics", api.VM_metrics.get_record(api.VM.get_metrics(machine)))
    mine = api.session.get_record(session.handle)
    assert_whole("session", mine)
    assert_whole("user", api.user.get_record(mine["this_user"]))
    alert = api.message.create("SAID", "3", "VM", api.VM.get_uuid(machine), "to everybody")
    assert_whole("message", api.message.get_record(alert))
    api.message.destroy(alert)
    api.task.destroy(made["task"])


def test_what_nobody_implements_says_so_by_name(error_of: Call) -> None:
    for name in UNIMPLEMENTED:
        params = [harmless(param.type) for param in GRAPH.methods[name].message.params]
        assert error_of(name, *params) == ["NOT_IMPLEMENTED", name]


def test_what_nobody_implements_only_becomes_less() -> None:
    assert len(UNIMPLEMENTED) == LEFT, "the list may only shrink; when it has, lower LEFT"
    assert list(UNIMPLEMENTED) == sorted(set(UNIMPLEMENTED))
    assert {name for name in UNIMPLEMENTED if GRAPH.methods[name].message.since in OLD} == LEFT_OF_4_1


def test_asynchronous_forms_that_the_published_sdks_call(session: Any) -> None:
    """Of these classes nothing else has such a form; XenCenter's SDK and that for C call these."""
    api, asynchronous = session.xenapi, session.xenapi.Async
    work = api.task.create("work", "of the client")
    calls = [
        asynchronous.task.cancel(work),
        asynchronous.session.get_all_subject_identifiers(),
        asynchronous.session.logout_subject_identifier("nobody"),
    ]
    for call in calls:
        token = ""
        while api.task.get_status(call) == "pending":
            token = api.event_from([f"task/{call}"], token, 5.0)["token"]
        assert api.task.get_status(call) == "success", api.task.get_error_info(call)
    assert api.task.get_status(work) in ("cancelling", "cancelled")
    for task in (work, *calls):
        api.task.destroy(task)


def test_unknown_methods(error_of: Call) -> None:
    assert error_of("VM.levitate") == ["MESSAGE_METHOD_UNKNOWN", "VM.levitate"]


def test_methods_are_listed_without_a_session(host: InProcessHost) -> None:
    names = plain_proxy(host.url).system.listMethods()
    assert isinstance(names, list)
    assert {"VM.start", "Async.VM.start", "VM.get_all_records"} <= set(names)
