"""What the toolstack does by itself: marked machines started after a boot, the log sent on, dangling rows removed,
interfaces and repositories looked at, layers merged."""

from __future__ import annotations

import asyncio
from typing import NoReturn

from domzero.toolstack.blobs.blob import collect as collect_blobs
from domzero.toolstack.garbage import collect_garbage
from domzero.toolstack.gates import refresh_all
from domzero.toolstack.host.logs import resume_sending
from domzero.toolstack.network.interfaces import refresh_interfaces_if_possible
from domzero.toolstack.stack import Stack
from domzero.toolstack.storage.merging import keep_merging
from domzero.toolstack.storage.scanning import keep_scanning
from domzero.toolstack.vm.power_on import power_on_marked

INTERVAL = 30.0
"""Seconds between two rounds."""


async def keep_house(stack: Stack) -> NoReturn:
    """What every object allows is looked at once; then one round after the other, for ever."""
    stack.machines.in_background(power_on_marked(stack), "machines that are to run")
    stack.machines.in_background(resume_sending(stack), "the log's way to its server")
    await refresh_all(stack.database, stack.gates)
    async with asyncio.TaskGroup() as chores:
        chores.create_task(keep_scanning(stack))
        chores.create_task(keep_merging(stack))
        while True:
            await stack.clock.sleep(INTERVAL)
            await round_of_work(stack)


async def round_of_work(stack: Stack) -> None:
    """One round. What fails is logged and tried again in the next."""
    await collect_garbage(stack)
    await collect_blobs(stack)
    await refresh_interfaces_if_possible(stack)
    await stack.networking.tidy()
