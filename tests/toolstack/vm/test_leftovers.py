"""Every operation is made to fail at every one of its steps, and must leave nothing behind."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from domzero.engine.errors import ApiError
from domzero.engine.steps import before_step
from domzero.idl.types import Ref
from tests.sampling import each
from tests.toolstack.vm.world import World, world

REASON = ("INTERNAL_ERROR", "this step fails")
NOT_COMPARED = {"VM_metrics", "VBD_metrics", "VIF_metrics", "host_metrics", "task", "session", "host_cpu"}
COUNTERS = "last_domid"
ENDED_FOR_GOOD = ("hard_reboot", "clean_reboot", "revert of a running machine")
"""Operations that end the guest on the way, which nothing can undo: a failure after that leaves the machine halted.

A clean reboot's first step comes when the guest has shut down."""

Call = tuple[str, ...]


@contextmanager
def failing_at(number: int) -> Iterator[list[str]]:
    """Let the step of that number fail; the list names the steps that were begun."""
    seen: list[str] = []

    def check(name: str) -> None:
        seen.append(name)
        if len(seen) == number + 1:
            raise ApiError(*REASON)

    token = before_step.set(check)
    try:
        yield seen
    finally:
        before_step.reset(token)


def picture(host: World) -> dict[str, Any]:
    """Everything there is, in the database and outside."""
    rows: dict[str, Any] = {
        cls: {ref: comparable(row.record) for ref, row in host.stack.database.rows(cls).items()}
        for cls in host.stack.database.graph.classes
        if cls not in NOT_COMPARED and cls in host.stack.database.layouts
    }
    return {
        **rows,
        "domains": {domid: host.hypervisor._domains[domid].state for domid in host.domids()},
        "cards": host.cards(),
        "files": host.files(),
    }


def comparable(record: Any) -> dict[str, Any]:
    fields = dict(record)
    if COUNTERS in fields.get("other_config", {}):
        fields["other_config"] = {key: value for key, value in fields["other_config"].items() if key != COUNTERS}
    return fields


async def halted(host: World) -> Ref:
    return await host.machine(disks=2, cards=2)


async def running(host: World) -> Ref:
    vm = await halted(host)
    await host.call("VM.start", vm, False, False)
    return vm


async def paused(host: World) -> Ref:
    vm = await running(host)
    await host.call("VM.pause", vm)
    return vm


async def suspended(host: World) -> Ref:
    vm = await running(host)
    await host.call("VM.suspend", vm)
    return vm


async def snapshotted(host: World) -> Ref:
    return str(await host.call("VM.snapshot", await halted(host), "a snapshot", []))


async def snapshotted_and_running(host: World) -> Ref:
    vm = await running(host)
    return str(await host.call("VM.snapshot", vm, "a snapshot", []))


async def checkpointed(host: World) -> Ref:
    return str(await host.call("VM.checkpoint", await suspended(host), "a checkpoint"))


OPERATIONS: dict[str, tuple[Callable[[World], Any], tuple[Any, ...]]] = {
    "start": (halted, ("VM.start", "it", False, False)),
    "start_on": (halted, ("VM.start_on", "it", "host", True, False)),
    "pause": (running, ("VM.pause", "it")),
    "unpause": (paused, ("VM.unpause", "it")),
    "clean_reboot": (running, ("VM.clean_reboot", "it")),
    "hard_shutdown": (running, ("VM.hard_shutdown", "it")),
    "hard_shutdown of a suspended machine": (suspended, ("VM.hard_shutdown", "it")),
    "hard_reboot": (running, ("VM.hard_reboot", "it")),
    "suspend": (running, ("VM.suspend", "it")),
    "resume": (suspended, ("VM.resume", "it", False, False)),
    "snapshot": (halted, ("VM.snapshot", "it", "name", [])),
    "snapshot of a running machine": (running, ("VM.snapshot", "it", "name", [])),
    "checkpoint": (running, ("VM.checkpoint", "it", "name")),
    "checkpoint of a suspended machine": (suspended, ("VM.checkpoint", "it", "name")),
    "revert": (snapshotted, ("VM.revert", "it")),
    "revert of a running machine": (snapshotted_and_running, ("VM.revert", "it")),
    "revert to a checkpoint": (checkpointed, ("VM.revert", "it")),
}


@pytest.fixture
async def shared(tmp_path: Path) -> AsyncIterator[World]:
    async with world(tmp_path) as running_host:
        yield running_host


@pytest.mark.parametrize("name", each(4, OPERATIONS))
async def test_a_failure_at_any_step_leaves_nothing(shared: World, name: str) -> None:
    prepare, (method, *arguments) = OPERATIONS[name]
    host = shared
    target = await prepare(host)
    params = [{"it": target, "host": host.stack.host}.get(each, each) if isinstance(each, str) else each
              for each in arguments]  # fmt: skip
    for number in range(30):
        before = picture(host)
        with failing_at(number) as seen:
            outcome = await outcome_of(host, method, *params)
        if outcome is None:
            break
        assert outcome == REASON
        await host.settle()
        if name in ENDED_FOR_GOOD and (name == "clean_reboot" or "end the domain" in seen[:-1]):
            assert_halted_cleanly(host, before)
            target = await prepare(host)
            params = [target]
        else:
            after = picture(host)
            assert after == before, (seen, differences(before, after))
    assert len(seen) == number
    assert number > 0


async def outcome_of(host: World, method: str, *params: Any) -> tuple[str, ...] | None:
    """The error of a call; None when it succeeded."""
    try:
        await host.call(method, *params)
    except ApiError as error:
        return error.description
    return None


def assert_halted_cleanly(host: World, before: dict[str, Any]) -> None:
    """The guest is gone; what served it too, and nothing new has stayed."""
    assert host.domids() == set()
    assert host.cards() == set()
    assert host.files() == before["files"]
    for ref, record in host.stack.database.rows("VBD").items():
        assert record.record["currently_attached"] is False, ref
    assert {host.power_state(vm) for vm in before["VM"]} <= {"Halted", "Running"}


def differences(before: dict[str, Any], after: dict[str, Any]) -> list[str]:
    found = []
    for part in before:
        if before[part] == after[part]:
            continue
        if not isinstance(before[part], dict):
            found.append(f"{part}: {before[part]} → {after[part]}")
            continue
        for ref in {*before[part], *after[part]}:
            old, new = before[part].get(ref), after[part].get(ref)
            if isinstance(old, dict) and isinstance(new, dict):
                found += [f"{part}.{f}: {old[f]!r} → {new[f]!r}" for f in old if old[f] != new[f]]
            elif old != new:
                found.append(f"{part} {ref}: {old} → {new}")
    return found
