"""Machines that are to run whenever the host does: they are started once after each boot of the computer.

XenServer's marks say which: `auto_poweron` = `true` in the `other_config` of the machine, and of the pool for all of
them. A start of the daemon alone starts none: who was shut down stays so. A machine whose storage has not come yet (a
server that boots as long as this host does) is started when it has, if that is within an hour.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from domzero.durable import replace
from domzero.engine.changes import Change
from domzero.engine.clock import settled
from domzero.engine.errors import ApiError
from domzero.idl.records import Record
from domzero.idl.types import Ref
from domzero.toolstack.host.power import set_enabled
from domzero.toolstack.stack import Stack
from domzero.toolstack.vm import lifecycle
from domzero.toolstack.vm.operations import HALTED
from domzero.toolstack.vm.placement import lacks_storage

log = logging.getLogger(__name__)

MARK = "auto_poweron"
BOOT_FILE = "last-boot"
"""Which boot of the computer was dealt with last, in the state directory, and who waits for storage since then."""
STORAGE_PATIENCE = 3600.0
"""Seconds in which storage that comes still has the machines started that wait for it."""


@dataclass(frozen=True, slots=True)
class Dealt:
    """A boot of the computer, as dealt with; empty where none is known."""

    boot: str = ""
    waiting: tuple[Ref, ...] = ()
    """The machines that have not had their turn, for want of their storage."""

    @classmethod
    def parse(cls, text: str) -> Dealt:
        boot, *waiting = text.split() or [""]
        return cls(boot, tuple(waiting))

    def __str__(self) -> str:
        return "\n".join((self.boot, *self.waiting))


async def power_on_marked(stack: Stack) -> None:
    """Start the marked machines one after the other, lowest `order` first, if the computer was booted meanwhile.

    A boot enables the host first: whoever reboots it has to disable it, and comes back to one that takes machines.

    What does not start is logged and keeps nobody else from it. Whose storage is not there is started when it is; who
    still waits after `STORAGE_PATIENCE` is left. The boot counts as dealt with when all others had their turn; a daemon
    that ends before goes on when it is back, as does one that ends while machines wait. The first daemon on a state
    directory starts none: whether the computer was booted since anything was marked is not known.
    """
    file = stack.settings.state_dir / BOOT_FILE
    boot, dealt = await asyncio.to_thread(_boots, stack, file)
    waiting = dealt.waiting
    if boot != dealt.boot:
        waiting = await _follow_boot(stack) if dealt.boot else ()
        await _note(file, Dealt(boot, waiting))
    if waiting:
        await _start_when_storage_comes(stack, file, Dealt(boot, waiting))


def marked(machines: Mapping[Ref, Record]) -> list[Ref]:
    """The machines among these that are to be started, in that order."""
    found = [
        vm
        for vm, record in machines.items()
        if _is_marked(record) and record["power_state"] == HALTED and not record["is_a_template"]
    ]
    return sorted(found, key=lambda vm: (machines[vm]["order"], machines[vm]["name_label"]))


def _boots(stack: Stack, file: Path) -> tuple[str, Dealt]:
    """The computer's present boot, and the one that was dealt with last."""
    before = Dealt.parse(file.read_text(errors="replace")) if file.exists() else Dealt()
    return stack.facts.machine().boot_id, before


async def _follow_boot(stack: Stack) -> tuple[Ref, ...]:
    """Enable the host and start the marked machines; gives those whose storage is not there."""
    if not stack.database.get("host", stack.host, "enabled"):
        log.info("the host was disabled when the computer went down; it is enabled")
        set_enabled(stack, stack.host, enabled=True)
    return await _start_those_with_storage(stack, stack.database.refs("VM"))


async def _note(file: Path, dealt: Dealt) -> None:
    await asyncio.to_thread(replace, file, str(dealt).encode())


def _is_marked(record: Record) -> bool:
    return bool(record["other_config"].get(MARK) == "true")


def _candidates(stack: Stack, among: Collection[Ref]) -> list[Ref]:
    if not _is_marked(stack.database.record("pool", stack.pool)):
        return []
    rows = stack.database.rows("VM")
    return marked({vm: rows[vm].record for vm in among if vm in rows})


def _lacks_storage(stack: Stack, vm: Ref) -> bool:
    row = stack.database.find("VM", vm)
    return row is not None and lacks_storage(stack.database, vm, row.record, stack.host)


async def _start_those_with_storage(stack: Stack, among: Collection[Ref]) -> tuple[Ref, ...]:
    """Start the marked ones; gives those whose storage is not there."""
    waiting: list[Ref] = []
    for vm in _candidates(stack, among):
        if _lacks_storage(stack, vm):
            log.warning("%s, which is to run whenever the host does, waits for its storage", vm)
            waiting.append(vm)
        else:
            await _start(stack, vm)
    return tuple(waiting)


async def _start_when_storage_comes(stack: Stack, file: Path, dealt: Dealt) -> None:
    """Start each when its storage is plugged, until none waits or the patience is at its end."""
    deadline = stack.clock.monotonic() + STORAGE_PATIENCE
    async with _plugging(stack) as plugged:
        while dealt.waiting and stack.clock.monotonic() < deadline:
            plugged.clear()
            ready = [vm for vm in dealt.waiting if not _lacks_storage(stack, vm)]
            if ready:
                dealt = Dealt(dealt.boot, tuple(vm for vm in dealt.waiting if vm not in ready))
                for vm in _candidates(stack, ready):
                    await _start(stack, vm)
                await _note(file, dealt)
                continue
            hearing = asyncio.ensure_future(plugged.wait())
            try:
                await settled(stack.clock, hearing, deadline - stack.clock.monotonic())
            finally:
                hearing.cancel()
    if dealt.waiting:
        log.warning("the storage of %s has not come; they are not started any more", ", ".join(dealt.waiting))
        await _note(file, Dealt(dealt.boot))


@asynccontextmanager
async def _plugging(stack: Stack) -> AsyncIterator[asyncio.Event]:
    """Within, the event is set whenever the way to a repository has changed."""
    plugged = asyncio.Event()

    def listen(changes: Sequence[Change]) -> None:
        if any(change.row.class_name == "PBD" for change in changes):
            plugged.set()

    stack.database.subscribe(listen)
    try:
        yield plugged
    finally:
        stack.database.unsubscribe(listen)


async def _start(stack: Stack, vm: Ref) -> None:
    context = stack.contexts.background("VM.start")
    try:
        await lifecycle.start(stack, context, vm, start_paused=False, force=False)
    except ApiError as error:
        log.warning("%s, which is to run whenever the host does, could not be started: %s", vm, error)
    finally:
        stack.tasks.release(context.task)
