"""Machines that are to run whenever the host does: they are started once after each boot of the computer.

XenServer's marks say which: `auto_poweron` = `true` in the `other_config` of the machine, and of the pool for all of
them. A start of the daemon alone starts none: who was shut down stays so.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from pathlib import Path

from domzero.durable import replace
from domzero.engine.errors import ApiError
from domzero.idl.records import Record
from domzero.idl.types import Ref
from domzero.toolstack.stack import Stack
from domzero.toolstack.vm import lifecycle
from domzero.toolstack.vm.operations import HALTED

log = logging.getLogger(__name__)

MARK = "auto_poweron"
BOOT_FILE = "last-boot"
"""Which boot of the computer was dealt with last, in the state directory."""


async def power_on_marked(stack: Stack) -> None:
    """Start the marked machines one after the other, lowest `order` first, if the computer was booted meanwhile.

    What does not start is logged and keeps nobody else from it. The boot counts as dealt with when all had their turn;
    a daemon that ends before goes on when it is back. The first daemon on a state directory starts none: whether the
    computer was booted since anything was marked is not known.
    """
    last_boot = stack.settings.state_dir / BOOT_FILE
    boot, before = await asyncio.to_thread(_boots, stack, last_boot)
    if boot == before:
        return
    if before and _is_marked(stack.database.record("pool", stack.pool)):
        for vm in marked({ref: row.record for ref, row in stack.database.rows("VM").items()}):
            await _start(stack, vm)
    await asyncio.to_thread(replace, last_boot, boot.encode())


def marked(machines: Mapping[Ref, Record]) -> list[Ref]:
    """The machines among these that are to be started, in that order."""
    found = [
        vm
        for vm, record in machines.items()
        if _is_marked(record) and record["power_state"] == HALTED and not record["is_a_template"]
    ]
    return sorted(found, key=lambda vm: (machines[vm]["order"], machines[vm]["name_label"]))


def _boots(stack: Stack, last_boot: Path) -> tuple[str, str]:
    """The computer's present boot, and the one that was dealt with last; empty where that is not known."""
    before = last_boot.read_text(errors="replace") if last_boot.exists() else ""
    return stack.facts.machine().boot_id, before


def _is_marked(record: Record) -> bool:
    return bool(record["other_config"].get(MARK) == "true")


async def _start(stack: Stack, vm: Ref) -> None:
    context = stack.contexts.background("VM.start")
    try:
        await lifecycle.start(stack, context, vm, start_paused=False, force=False)
    except ApiError as error:
        log.warning("%s, which is to run whenever the host does, could not be started: %s", vm, error)
    finally:
        stack.tasks.release(context.task)
