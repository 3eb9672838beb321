"""Keeps the chains of disks' layers short, in the background and without hurry.

Deleted snapshots leave layers that only one other reads. A driver says which could be one (`StorageDriver.merges`);
here it is decided when, and who copies: the driver itself where no running machine has the disks open, and the one
machine that has them where there is one. Disks that several running machines have open wait.

There is one merge at a time for each repository, then a pause unless many are to be done. Whoever needs a disk ends the
merge (`MergeRegister`); nothing is recorded, for what a dead daemon or an ended merge left is simply found again.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, replace
from typing import Final, NoReturn

from domzero.engine.clock import settled
from domzero.engine.context import Context
from domzero.engine.database import Database
from domzero.engine.errors import ApiError
from domzero.host.hypervisor.protocol import HypervisorError
from domzero.host.hypervisor.spec import LayerPull
from domzero.host.storage.protocol import LiveMerge, Merge, Progress
from domzero.idl.types import NULL_REF, Ref
from domzero.toolstack.stack import Stack
from domzero.toolstack.storage.merge_register import RunningMerge
from domzero.toolstack.storage.repositories import asking, attached
from domzero.toolstack.storage.sr_admission import ALONGSIDE
from domzero.toolstack.vm.device_names import parse_vbd_position

log = logging.getLogger(__name__)

INTERVAL: Final = 300.0
"""Seconds between two looks at all repositories."""
SETTLING: Final = 2.0
"""Seconds after a deletion in which more may follow: all together are worth one look."""
SHORTEST_PAUSE: Final = 1.0
LONGEST_PAUSE: Final = 60.0
"""Seconds between two merges in a repository: as many as the first took, within these."""
URGENT: Final = 8
"""With that many merges to do there is no pause: chains must not grow quicker than they shrink."""
REST: Final = 3600.0
"""Seconds that a repository is left alone after somebody has cancelled a merge there."""
SPEED: Final = "merge-bytes-per-second"
"""The key of the pool's other_config for how fast a running machine may copy; 0 is without a limit."""
DEFAULT_SPEED: Final = 64 << 20
SWITCH: Final = "auto-coalesce"
"""The key of an SR's other_config that ends merging there, with `false`."""


@dataclass(frozen=True, slots=True)
class Plan:
    """A merge to be carried out now. `vbd` is the drive of the one machine that has a disk open, or null."""

    merge: Merge
    disks: frozenset[Ref]
    vbd: Ref = NULL_REF
    vm: Ref = NULL_REF
    pending: int = 0
    """How many merges the repository has, this one among them."""


async def keep_merging(stack: Stack) -> NoReturn:
    """Look for superfluous layers at once, after deletions, and now and then; merge them."""
    workers: dict[Ref, asyncio.Task[None]] = {}
    resting: dict[Ref, float] = {}

    async def attend(sr: Ref) -> None:
        try:
            if await merge_all(stack, sr):
                resting[sr] = stack.clock.monotonic() + REST
        except Exception:  # what a driver does wrong must not end the daemon
            log.exception("merging layers of %s failed in a way that it should not", sr)
        finally:
            del workers[sr]

    wanted = stack.database.refs("SR")
    async with asyncio.TaskGroup() as group:
        while True:
            for sr in wanted:
                if sr not in workers and resting.get(sr, 0.0) <= stack.clock.monotonic():
                    workers[sr] = group.create_task(attend(sr))
            wanted = await _next_wanted(stack)


async def _next_wanted(stack: Stack) -> tuple[Ref, ...]:
    register = stack.merges
    called = asyncio.ensure_future(register.called.wait())
    try:
        if not await settled(stack.clock, called, INTERVAL):
            return stack.database.refs("SR")
    finally:
        called.cancel()
    await stack.clock.sleep(SETTLING)
    wanted = tuple(register.wanted)
    register.wanted.clear()
    register.called.clear()
    return wanted


async def merge_all(stack: Stack, sr: Ref) -> bool:
    """Carry out the repository's merges one after the other; whether somebody cancelled one, which ends it.

    Each is tried once. What fails, or had to give way, is left to the next time.
    """
    tried: set[tuple[str, str]] = set()
    while (plan := await _choose(stack, sr, tried)) is not None:
        tried.add((plan.merge.upper, plan.merge.lower))
        begun = stack.clock.monotonic()
        running = RunningMerge(sr, plan.disks, plan.vm)
        with stack.merges.entered(running):
            if await _carry_out(stack, sr, plan, running):
                return True
        if plan.pending < URGENT:
            took = stack.clock.monotonic() - begun
            await stack.clock.sleep(min(max(SHORTEST_PAUSE, took), LONGEST_PAUSE))
    return False


async def _choose(stack: Stack, sr: Ref, tried: set[tuple[str, str]]) -> Plan | None:
    """The first merge that can be carried out at this very moment."""
    found = stack.database.find("SR", sr)
    if found is None or found.record["other_config"].get(SWITCH) == "false":
        return None
    try:
        driver, repository = attached(stack, sr)
        merges = await asking(driver.merges(repository))
    except ApiError as error:
        log.debug("no layers of %s are merged: %s", sr, error)
        return None
    found = stack.database.find("SR", sr)
    # An operation on the repository as a whole, such as unplugging it, has precedence.
    if found is None or not ALONGSIDE.issuperset(found.record["current_operations"].values()):
        return None
    by_location = {stack.database.get("VDI", vdi, "location"): vdi for vdi in found.record["VDIs"]}
    untried = (merge for merge in merges if (merge.upper, merge.lower) not in tried)
    plans = (plan_of(stack.database, by_location, merge) for merge in untried)
    chosen = next((plan for plan in plans if plan is not None), None)
    return None if chosen is None else replace(chosen, pending=len(merges))


def plan_of(database: Database, by_location: Mapping[str, Ref], merge: Merge) -> Plan | None:
    """Who carries out the merge now; None where it has to wait, because of an operation or of several machines.

    `by_location` are the repository's disks. A drive that only reads waits too: its machine may not write to the
    layers. A suspended machine has nothing open.
    """
    if any(location not in by_location for location in merge.disks):
        return None
    disks = frozenset(by_location[location] for location in merge.disks)
    drives = [vbd for vdi in sorted(disks) for vbd in database.get("VDI", vdi, "VBDs")]
    if any(database.get("VDI", vdi, "current_operations") for vdi in disks):
        return None
    if any(_is_busy(database, vbd) for vbd in drives):
        return None
    open_in = [vbd for vbd in drives if _has_open(database, vbd)]
    if not open_in:
        return Plan(merge, disks)
    drive = database.record("VBD", open_in[0])
    if len(open_in) > 1 or drive["mode"] != "RW" or database.get("VDI", drive["VDI"], "read_only"):
        return None
    return Plan(merge, disks, open_in[0], drive["VM"])


def _is_busy(database: Database, vbd: Ref) -> bool:
    drive = database.record("VBD", vbd)
    machine = database.find("VM", drive["VM"])
    return bool(drive["current_operations"] or (machine is not None and machine.record["current_operations"]))


def _has_open(database: Database, vbd: Ref) -> bool:
    drive = database.record("VBD", vbd)
    machine = database.find("VM", drive["VM"])
    if machine is None or not drive["currently_attached"]:
        return False
    return bool(machine.record["power_state"] != "Suspended")


async def _carry_out(stack: Stack, sr: Ref, plan: Plan, running: RunningMerge) -> bool:
    """Whether somebody cancelled the task by which the merge can be watched."""
    name = stack.database.get("SR", sr, "name_label")
    context = stack.contexts.background(f"Merging layers of {name}")
    try:
        context.task.ref  # noqa: B018 - stored, so that it can be seen
        await stack.tasks.call(context.task, _work(stack, sr, plan, running, context))
    except asyncio.CancelledError:
        runner = context.task.runner
        if runner is not None and not runner.done():
            context.task.cancel()
            await asyncio.wait({runner})
        raise
    except (ApiError, HypervisorError) as error:
        if running.given_up:
            log.debug("merging %s of %s gives way", plan.merge.upper, name)
        elif context.task.cancel_requested:
            log.info("merging layers of %s was cancelled; it rests for a while", name)
            return True
        else:
            log.warning("merging %s of %s failed: %s", plan.merge.upper, name, error)
    return False


async def _work(stack: Stack, sr: Ref, plan: Plan, running: RunningMerge, context: Context) -> None:
    if running.given_up:
        return
    running.stop = context.task.cancel
    driver, repository = attached(stack, sr)
    live = None if plan.vbd == NULL_REF else LiveMerge(_puller(stack, plan), _speed(stack))
    with context.task.cancellable():
        await asking(driver.merge(repository, plan.merge, context.task.set_progress, live))
    log.info("layer %s has taken in %s", plan.merge.upper, plan.merge.lower)


def _puller(stack: Stack, plan: Plan) -> Callable[[LayerPull, Progress], Awaitable[None]]:
    """Has the machine do the copying. Its turn is held only to begin: the job may take hours."""

    async def pull(layers: LayerPull, progress: Progress) -> None:
        async with stack.machines.running(plan.vm) as domain:
            drive = stack.database.record("VBD", plan.vbd)
            slot = parse_vbd_position(drive["userdevice"])
            if slot is None or not drive["currently_attached"] or drive["VDI"] not in plan.disks:
                raise HypervisorError(f"the disk is not in drive {drive['userdevice']} any more")
        await stack.hypervisor.pull_layer(domain.domid, slot, layers, progress)

    return pull


def _speed(stack: Stack) -> int:
    return speed_of(stack.database.get("pool", stack.pool, "other_config"))


def speed_of(other_config: Mapping[str, str]) -> int:
    """Bytes a second that a machine may copy; what is no number counts for nothing."""
    written = other_config.get(SPEED, "")
    return int(written) if written.isascii() and written.isdecimal() and len(written) < 16 else DEFAULT_SPEED
