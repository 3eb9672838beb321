"""The table of operations and power states, and the order of the errors."""

from __future__ import annotations

from typing import Any

import pytest

from domzero.datamodel.graph import GRAPH
from domzero.toolstack.vm.admission import Subject, refusal
from domzero.toolstack.vm.operations import LISTED, NAMES, OPERATIONS, POWER_STATES, may_begin_beside
from tests.sampling import each
from tests.toolstack.vm.world import World

VM = "OpaqueRef:vm"
PLAIN: dict[str, Any] = {
    "power_state": "Halted", "is_a_template": False, "is_default_template": False, "is_a_snapshot": False,
    "is_control_domain": False, "blocked_operations": {}, "current_operations": {}, "other_config": {}, "platform": {},
    "attached_PCIs": (), "VGPUs": (), "VUSBs": (),
}  # fmt: skip

TABLE = {
    "start start_on provision make_into_template changing_shadow_memory changing_NVRAM create_vtpm changing_VCPUs "
    "changing_static_range changing_memory_limits": "Halted",
    "changing_dynamic_range": "Halted Running",
    "clone copy create_template export destroy": "Halted Suspended",
    "unpause": "Paused",
    "resume resume_on csvm": "Suspended",
    "pause suspend clean_shutdown clean_reboot pool_migrate send_sysrq send_trigger snapshot_with_quiesce call_plugin "
    "data_source_op changing_memory_live awaiting_memory_live changing_VCPUs_live "
    "changing_shadow_memory_live": "Running",
    "hard_reboot": "Paused Running",
    "hard_shutdown shutdown checkpoint get_boot_record": "Paused Running Suspended",
    "migrate_send": "Halted Running Suspended",
    "snapshot revert reverting metadata_export power_state_reset assert_operation_valid update_allowed_operations "
    "query_services": "Halted Paused Running Suspended",
    "import": "",
}
"""The guide's table, written down a second time."""


def subject(**changes: Any) -> Subject:
    return Subject(VM, {**PLAIN, **changes}, {})


def code(operation: str, **changes: Any) -> str | None:
    error = refusal(subject(**changes), OPERATIONS[operation])
    return error.code if error else None


def expected() -> dict[str, set[str]]:
    return {name: set(states.split()) for names, states in TABLE.items() for name in names.split()}


def test_every_operation_of_the_datamodel_has_a_row() -> None:
    assert set(NAMES) == set(OPERATIONS) == set(GRAPH.enums["vm_operations"].values) == set(expected())


@pytest.mark.parametrize(
    ("operation", "state"), each(3, [(operation, state) for operation in NAMES for state in POWER_STATES])
)
def test_the_power_states_of_an_operation(operation: str, state: str) -> None:
    special: dict[str, Any] = {}
    if operation in ("provision", "revert"):
        special = {"is_a_template": True, "is_a_snapshot": operation == "revert"}
    error = refusal(subject(power_state=state, **special), OPERATIONS[operation])
    if state in expected()[operation]:
        assert error is None
    else:
        assert error is not None
        states = ", ".join(s.lower() for s in POWER_STATES if s in expected()[operation])
        assert error.description == ("VM_BAD_POWER_STATE", VM, states, state.lower())


def test_errors_come_in_the_documented_order() -> None:
    everything: dict[str, Any] = {
        "blocked_operations": {"clean_shutdown": "why"}, "power_state": "Halted",
        "current_operations": {"task": "suspend"}, "is_a_template": True, "is_control_domain": True,
        "platform": {"acpi": "false"},
    }  # fmt: skip
    seen = []
    for field, harmless in (
        ("blocked_operations", {}), ("power_state", "Running"), ("current_operations", {}), ("is_a_template", False),
        ("is_control_domain", False), ("platform", {}),
    ):  # fmt: skip
        seen.append(code("clean_shutdown", **everything))
        everything[field] = harmless
    assert seen == [
        "OPERATION_BLOCKED", "VM_BAD_POWER_STATE", "OTHER_OPERATION_IN_PROGRESS", "VM_IS_TEMPLATE",
        "OPERATION_NOT_ALLOWED", "VM_MISSING_PV_DRIVERS",
    ]  # fmt: skip
    assert code("clean_shutdown", **everything) is None


@pytest.mark.parametrize(
    ("operation", "running", "allowed"),
    [
        ("clone", "copy", True), ("export", "clone", True), ("copy", "start", False), ("snapshot", "checkpoint", False),
        ("snapshot", "snapshot_with_quiesce", True), ("get_boot_record", "start", True),
        ("start", "get_boot_record", True), ("metadata_export", "migrate_send", True),
        ("clean_shutdown", "migrate_send", True), ("hard_shutdown", "suspend", True),
        ("hard_shutdown", "hard_shutdown", False), ("hard_shutdown", "hard_reboot", True),
        ("hard_reboot", "hard_shutdown", False), ("hard_reboot", "hard_reboot", False),
        ("hard_reboot", "clean_shutdown", True), ("pause", "suspend", False),
    ],
)  # fmt: skip
def test_what_runs_side_by_side(operation: str, running: str, allowed: bool) -> None:
    assert may_begin_beside(operation, running) is allowed


def test_an_operation_under_way_is_named() -> None:
    error = refusal(subject(current_operations={"task": "clone"}), OPERATIONS["start"])
    assert error is not None
    assert error.description == ("OTHER_OPERATION_IN_PROGRESS", "VM", VM, "clone", "task")


def test_templates_and_snapshots() -> None:
    default = {"is_a_template": True, "is_default_template": True}
    assert code("start", is_a_template=True) == "VM_IS_TEMPLATE"
    assert code("clone", is_a_template=True) is None
    assert code("destroy", is_a_template=True) is None
    assert code("destroy", **default) == "VM_CANNOT_DELETE_DEFAULT_TEMPLATE"
    assert code("migrate_send", **default) == "VM_IS_TEMPLATE"
    assert code("start", is_a_template=True, is_a_snapshot=True) == "VM_IS_SNAPSHOT"
    assert code("changing_VCPUs", is_a_template=True, is_a_snapshot=True) == "VM_IS_SNAPSHOT"
    assert code("provision") == "PROVISION_ONLY_ALLOWED_ON_TEMPLATE"
    assert code("revert", is_a_template=True) == "REVERT_ONLY_ALLOWED_ON_SNAPSHOT"
    assert code("revert", is_a_template=True, is_a_snapshot=True) is None


@pytest.mark.parametrize(
    ("changes", "expected_code"),
    [
        ({"attached_PCIs": ("pci",)}, "VM_HAS_PCI_ATTACHED"),
        ({"VGPUs": ("vgpu",)}, "VM_HAS_VGPU"),
        ({"VUSBs": ("vusb",)}, "VM_HAS_VUSBS"),
    ],
)
def test_devices_that_cannot_be_saved(changes: dict[str, Any], expected_code: str) -> None:
    assert code("suspend", power_state="Running", **changes) == expected_code
    assert code("hard_shutdown", power_state="Running", **changes) is None


def test_immobile_guests_and_disks_reset_at_boot() -> None:
    running = {**PLAIN, "power_state": "Running"}
    immobile = refusal(Subject(VM, running, {}, immobile=True), OPERATIONS["suspend"])
    reset = refusal(Subject(VM, running, {}, reset_disk="vdi"), OPERATIONS["checkpoint"])
    assert immobile is not None
    assert immobile.description == ("VM_IS_IMMOBILE", VM)
    assert reset is not None
    assert reset.code == "VDI_ON_BOOT_MODE_INCOMPATIBLE_WITH_OPERATION"


async def test_shown_and_admitted_operations_agree(host: World) -> None:
    """In every power state, what `allowed_operations` shows is what `assert_operation_valid` says."""
    vm = await host.machine()
    ways = (
        (), ("VM.start", vm, False, False), ("VM.pause", vm), ("VM.unpause", vm), ("VM.suspend", vm),
        ("VM.resume", vm, True, False),
    )  # fmt: skip
    for way in ways:
        if way:
            await host.call(*way)
        shown = set(await host.call("VM.get_allowed_operations", vm))
        for operation in LISTED:
            try:
                await host.call("VM.assert_operation_valid", vm, operation)
                allowed = True
            except Exception:  # noqa: BLE001 - any refusal
                allowed = False
            assert allowed == (operation in shown), (way, operation)
        assert shown <= set(LISTED)
