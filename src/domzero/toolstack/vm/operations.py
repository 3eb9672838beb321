"""Which operation a machine takes in which power state, and which operations may run side by side: a table.

`allowed_operations`, the admission of calls and the tests all read this one table.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

HALTED: Final = "Halted"
PAUSED: Final = "Paused"
RUNNING: Final = "Running"
SUSPENDED: Final = "Suspended"

POWER_STATES: tuple[str, ...] = (HALTED, PAUSED, RUNNING, SUSPENDED)


@dataclass(frozen=True, slots=True)
class Operation:
    """One row of the table."""

    name: str
    states: tuple[str, ...]
    """Power states in which an ordinary machine takes it."""
    listed: bool = True
    """Whether it may appear in `allowed_operations`."""
    on_template: bool = False
    """Whether templates take it (default ones may be excepted, see admission)."""
    on_snapshot: bool = False
    beside: frozenset[str] | None = frozenset()
    """Operations that may be running when this one begins; None for any."""
    control_domain_states: tuple[str, ...] = ()
    """Power states in which the control domain takes it."""


ALL = POWER_STATES
NOT_HALTED = (PAUSED, RUNNING, SUSPENDED)
LONG_COPIES = frozenset({"clone", "copy", "export"})
ANY = None
NAMES: Final = (
    "snapshot", "clone", "copy", "create_template", "revert", "checkpoint", "snapshot_with_quiesce", "provision",
    "start", "start_on", "pause", "unpause", "clean_shutdown", "clean_reboot", "hard_shutdown", "power_state_reset",
    "hard_reboot", "suspend", "csvm", "resume", "resume_on", "pool_migrate", "migrate_send", "get_boot_record",
    "send_sysrq", "send_trigger", "query_services", "shutdown", "call_plugin", "changing_memory_live",
    "awaiting_memory_live", "changing_dynamic_range", "changing_static_range", "changing_memory_limits",
    "changing_shadow_memory", "changing_shadow_memory_live", "changing_VCPUs", "changing_VCPUs_live",
    "changing_NVRAM", "assert_operation_valid", "data_source_op", "update_allowed_operations", "make_into_template",
    "import", "export", "metadata_export", "reverting", "destroy", "create_vtpm",
)  # fmt: skip
"""Every operation, in the datamodel's order."""


def _all_but(*excluded: str) -> frozenset[str]:
    return frozenset(NAMES) - frozenset(excluded)


_ROWS: tuple[Operation, ...] = (
    Operation("snapshot", ALL, beside=frozenset({"snapshot_with_quiesce"})),
    Operation("clone", (HALTED, SUSPENDED), on_template=True, on_snapshot=True, beside=LONG_COPIES),
    Operation("copy", (HALTED, SUSPENDED), on_template=True, on_snapshot=True, beside=LONG_COPIES),
    Operation("create_template", (HALTED, SUSPENDED), listed=False, on_template=True, on_snapshot=True),
    Operation("revert", ALL, on_template=True, on_snapshot=True),
    Operation("checkpoint", NOT_HALTED),
    Operation("snapshot_with_quiesce", (RUNNING,)),
    Operation("provision", (HALTED,), on_template=True),
    Operation("start", (HALTED,)),
    Operation("start_on", (HALTED,)),
    Operation("pause", (RUNNING,)),
    Operation("unpause", (PAUSED,)),
    Operation("clean_shutdown", (RUNNING,), beside=frozenset({"migrate_send"})),
    Operation("clean_reboot", (RUNNING,), beside=frozenset({"migrate_send"})),
    Operation("hard_shutdown", NOT_HALTED, on_snapshot=True, beside=_all_but("hard_shutdown")),
    Operation("power_state_reset", ALL, listed=False),
    Operation("hard_reboot", (PAUSED, RUNNING), beside=_all_but("hard_shutdown", "hard_reboot")),
    Operation("suspend", (RUNNING,)),
    Operation("csvm", (SUSPENDED,), listed=False),
    Operation("resume", (SUSPENDED,)),
    Operation("resume_on", (SUSPENDED,)),
    Operation("pool_migrate", (RUNNING,)),
    Operation("migrate_send", (HALTED, RUNNING, SUSPENDED), on_template=True, on_snapshot=True),
    Operation("get_boot_record", NOT_HALTED, listed=False, on_template=True, on_snapshot=True, beside=ANY),
    Operation("send_sysrq", (RUNNING,), listed=False),
    Operation("send_trigger", (RUNNING,), listed=False),
    Operation("query_services", ALL, listed=False),
    Operation("shutdown", NOT_HALTED, listed=False),
    Operation("call_plugin", (RUNNING,), listed=False),
    Operation("changing_memory_live", (RUNNING,), listed=False),
    Operation("awaiting_memory_live", (RUNNING,), listed=False),
    Operation("changing_dynamic_range", (HALTED, RUNNING), on_template=True, control_domain_states=(RUNNING,)),
    Operation("changing_static_range", (HALTED,), on_template=True, control_domain_states=(RUNNING,)),
    Operation("changing_memory_limits", (HALTED,), listed=False, on_template=True, control_domain_states=(RUNNING,)),
    Operation("changing_shadow_memory", (HALTED,), on_template=True),
    Operation("changing_shadow_memory_live", (RUNNING,), listed=False),
    Operation("changing_VCPUs", (HALTED,), listed=False, on_template=True, control_domain_states=(RUNNING,)),
    Operation("changing_VCPUs_live", (RUNNING,)),
    Operation("changing_NVRAM", (HALTED,), on_template=True),
    Operation("assert_operation_valid", ALL, listed=False, on_template=True, on_snapshot=True, beside=ANY,
              control_domain_states=ALL),
    Operation("data_source_op", (RUNNING,), listed=False, control_domain_states=(RUNNING,)),
    Operation("update_allowed_operations", ALL, listed=False, on_template=True, on_snapshot=True, beside=ANY,
              control_domain_states=ALL),
    Operation("make_into_template", (HALTED,)),
    Operation("import", (), listed=False),
    Operation("export", (HALTED, SUSPENDED), on_template=True, on_snapshot=True, beside=LONG_COPIES),
    Operation("metadata_export", ALL, on_template=True, on_snapshot=True, beside=frozenset({"migrate_send"}),
              control_domain_states=(RUNNING,)),
    Operation("reverting", ALL, listed=False),
    Operation("destroy", (HALTED, SUSPENDED), on_template=True, on_snapshot=True),
    Operation("create_vtpm", (HALTED,)),
)  # fmt: skip

OPERATIONS: dict[str, Operation] = {row.name: row for row in _ROWS}
LISTED: tuple[str, ...] = tuple(row.name for row in _ROWS if row.listed)
"""The operations that may appear in `allowed_operations`."""

RUNS_OVER_OTHERS: frozenset[str] = frozenset({"hard_shutdown", "hard_reboot"})
"""Operations that cancel those they find under way."""


def may_begin_beside(operation: str, running: str) -> bool:
    """Whether `operation` may begin while `running` goes on. Reading the boot record never stands in the way."""
    beside = OPERATIONS[operation].beside
    if beside is None or running in beside:
        return True
    found = OPERATIONS.get(running)
    return found is not None and found.beside is None
