"""What clients in use today rely on, each as it does it: Xen Orchestra, its in-host page, SDKs, orchestrators."""

from __future__ import annotations

import json
import re
import threading
import time
from typing import Any
from xml.etree import ElementTree as ET

import pytest

from domzero.datamodel.graph import GRAPH
from tests.api.errors import refused
from tests.api.harness import PASSWORD, InProcessHost, plain_proxy
from tests.api.jsonrpc import JsonRpc


@pytest.fixture
def rpc(host: InProcessHost) -> JsonRpc:
    return JsonRpc(host.url)


@pytest.fixture
def token(rpc: JsonRpc) -> str:
    return str(rpc.call("session.login_with_password", "root", PASSWORD))


def test_content_type_is_bare(rpc: JsonRpc, token: str) -> None:
    rpc.call("pool.get_all", token)
    assert rpc.content_type == "application/json"


def test_methods_are_listed_without_a_session_and_as_a_bare_list(rpc: JsonRpc) -> None:
    names = rpc.call("system.listMethods")
    classes = {name.removesuffix(".get_all_records") for name in names if name.endswith(".get_all_records")}
    assert {"VM", "host", "pool", "SR", "VDI", "task"} <= classes


def test_json_types(rpc: JsonRpc, token: str) -> None:
    record = next(iter(rpc.call("VM.get_all_records", token).values()))
    assert isinstance(record["memory_static_max"], int)
    assert isinstance(record["HVM_shadow_multiplier"], float)
    assert isinstance(record["is_a_template"], bool)
    assert re.fullmatch(r"\d{8}T\d\d:\d\d:\d\dZ", record["snapshot_time"])


def test_json_errors(host: InProcessHost, rpc: JsonRpc, token: str) -> None:
    error = rpc.raw("VM.get_record", token, "OpaqueRef:none")["error"]
    assert error == {"code": 1, "message": "HANDLE_INVALID", "data": ["VM", "OpaqueRef:none"]}
    old = JsonRpc(host.url, version=1).raw("VM.get_record", token, "OpaqueRef:none")
    assert "HANDLE_INVALID" in json.dumps(old)


@pytest.mark.parametrize("path", ["/", "/RPC2", "/xmlrpc", ""])
def test_paths_of_xml_rpc(host: InProcessHost, path: str) -> None:
    proxy = plain_proxy(host.url + path)
    for arguments in (("root", PASSWORD), ("root", PASSWORD, "1.0"), ("root", PASSWORD, "1.0", "me")):
        assert proxy.session.login_with_password(*arguments)["Status"] == "Success"


def test_underscore_names(api: Any, session: Any) -> None:
    assert session.xenapi_request("VM_get_all", ()) == api.VM.get_all()
    assert set(api.event_from(["*"], "", 0.0)) == {"events", "valid_ref_counts", "token"}


@pytest.mark.parametrize("classes", [["vm"], ["VM"], ["Vm"]])
def test_event_from_takes_any_case_and_answers_in_lower_case(api: Any, classes: list[str]) -> None:
    batch = api.event_from(classes, "", 1.0)
    assert {event["class"] for event in batch["events"]} == {"vm"}
    assert {event["operation"] for event in batch["events"]} == {"add"}
    assert batch["valid_ref_counts"] == {"vm": len(api.VM.get_all())}


def test_deletions_have_no_snapshot(api: Any) -> None:
    network = api.network.create({"name_label": "short-lived", "name_description": "", "other_config": {}})
    token = api.event_from(["network"], "", 1.0)["token"]
    api.network.destroy(network)
    (event,) = api.event_from(["network"], token, 5.0)["events"]
    assert (event["operation"], event["ref"]) == ("del", network)
    assert "snapshot" not in event


def test_barrier_of_xen_orchestra(api: Any) -> None:
    """It adds a key to the pool and waits until an event shows it."""
    (pool,) = api.pool.get_all()
    token = api.event_from(["*"], "", 0.0)["token"]
    api.pool.add_to_other_config(pool, "xo:barrier:1", "x")
    batch = api.event_from(["*"], token, 5.0)
    assert any("xo:barrier:1" in event["snapshot"]["other_config"] for event in batch["events"] if event["ref"] == pool)
    api.pool.remove_from_other_config(pool, "xo:barrier:1")


def test_inject_gives_a_token_that_from_passes(api: Any, machine: str) -> None:
    token = api.event_from(["vm"], "", 0.0)["token"]
    injected = api.event.inject("vm", machine)
    batch = api.event_from(["vm"], token, 5.0)
    assert machine in {event["ref"] for event in batch["events"]}
    assert batch["token"] >= injected


def test_queries(api: Any, machine: str) -> None:
    where = api.VM.get_all_records_where
    templates = where('field "is_a_template" = "true" and field "is_a_snapshot" = "false"')
    assert templates
    assert machine not in templates
    (this,) = api.host.get_all()
    assert set(api.PBD.get_all_records_where(f'field "host"="{this}"')) == set(api.PBD.get_all())
    assert list(where('field "name__label" = "a machine"')) == [machine]
    with refused("INVALID_VALUE"):
        where('field "name__label" like "a"')


def test_recommendations_hold_several_restrictions(api: Any) -> None:
    for record in api.VM.get_all_records().values():
        if record["is_a_template"]:
            assert len(ET.fromstring(record["recommendations"]).findall("restriction")) >= 2


def test_free_device_numbers_start_at_0(api: Any, template: str) -> None:
    vm = api.VM.clone(template, "bare")
    assert api.VM.get_allowed_VBD_devices(vm)[0] == "0"
    assert api.VM.get_allowed_VIF_devices(vm)[0] == "0"
    api.VM.destroy(vm)


def test_snapshots_with_two_and_three_arguments(api: Any, machine: str) -> None:
    nothing_left_out: list[str] = []
    for arguments in ((machine, "s2"), (machine, "s3", nothing_left_out)):
        snapshot = api.VM.snapshot(*arguments)
        assert api.VM.get_snapshot_of(snapshot) == machine
        disks = [api.VBD.get_VDI(vbd) for vbd in api.VM.get_VBDs(snapshot)]
        api.VM.destroy(snapshot)
        for disk in disks:
            api.VDI.destroy(disk)


def test_tasks_end_with_an_xml_result(api: Any, template: str) -> None:
    task = api.Async.VM.clone(template, "by task")
    deadline = time.monotonic() + 20
    while api.task.get_status(task) == "pending":
        assert time.monotonic() < deadline
        time.sleep(0.01)
    result = api.task.get_result(task)
    assert re.fullmatch(r"<value>OpaqueRef:[-0-9a-f]{36}</value>", result)
    api.task.destroy(task)
    api.VM.destroy(result.removeprefix("<value>").removesuffix("</value>"))


def test_xen_orchestra_waits_for_tasks_by_events_alone(api: Any, machine: str) -> None:
    token = api.event_from(["task"], "", 0.0)["token"]
    task = api.Async.VM.start(machine, False, False)
    state = ""
    while state != "success":
        batch = api.event_from(["task"], token, 20.0)
        assert batch["events"]
        assert batch["valid_ref_counts"]["task"] >= 1
        token = batch["token"]
        state = next((e["snapshot"]["status"] for e in batch["events"] if e["ref"] == task), state)
    api.task.destroy(task)


def test_register_nothing_then_log_out(host: InProcessHost) -> None:
    """`event.next` without any class waits, until the session goes."""
    # The official binding would log in again by itself.
    waiting, other = plain_proxy(host.url), plain_proxy(host.url)
    handle = waiting.session.login_with_password("root", PASSWORD)["Value"]
    waiting.event.register(handle, [])
    outcome: list[Any] = []
    thread = threading.Thread(target=lambda: outcome.append(waiting.event.next(handle)))
    thread.start()
    time.sleep(0.3)
    assert not outcome
    other.session.logout(handle)
    thread.join(20)
    assert outcome == [{"Status": "Failure", "ErrorDescription": ["SESSION_INVALID", handle]}]


def test_roles_and_permissions_as_the_net_sdk_reads_them(api: Any) -> None:
    roles = {record["name_label"]: record for record in api.role.get_all_records().values()}
    assert set(GRAPH.roles) <= set(roles)


def test_type_errors_are_told(session: Any) -> None:
    for method, params in (
        ("VM.start", ({"a": "struct"}, False, False)),
        ("VM.start", ("OpaqueRef:x", "true", False)),
        ("VM.set_tags", ("OpaqueRef:x", "no set")),
    ):
        with refused("XMLRPC_UNMARSHAL_FAILURE"):
            session.xenapi_request(method, params)
    with refused("INVALID_VALUE"):
        session.xenapi_request("VM.assert_operation_valid", ("OpaqueRef:x", "levitate"))
    with refused("MESSAGE_PARAMETER_COUNT_MISMATCH", "VM.start", "3", "1"):
        session.xenapi_request("VM.start", ("OpaqueRef:x",))
