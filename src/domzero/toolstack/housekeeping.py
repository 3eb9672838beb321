"""What the toolstack does by itself every half minute: dangling rows removed, repositories looked at."""

from __future__ import annotations

import logging
from typing import NoReturn

from domzero.engine.errors import ApiError
from domzero.toolstack.garbage import collect_garbage
from domzero.toolstack.gates import refresh_all
from domzero.toolstack.interfaces import refresh_interfaces_if_possible
from domzero.toolstack.repositories import scan
from domzero.toolstack.stack import Stack

log = logging.getLogger(__name__)

INTERVAL = 30.0
"""Seconds between two rounds."""


async def keep_house(stack: Stack) -> NoReturn:
    """What every object allows is looked at once; then one round after the other, for ever."""
    await refresh_all(stack.database, stack.gates)
    while True:
        await stack.clock.sleep(INTERVAL)
        await round_of_work(stack)


async def round_of_work(stack: Stack) -> None:
    """One round. What fails is logged and tried again in the next."""
    await collect_garbage(stack)
    await refresh_interfaces_if_possible(stack)
    for sr in stack.database.refs("SR"):
        row = stack.database.find("SR", sr)
        if row is None or row.record["other_config"].get("auto-scan") != "true":
            continue
        try:
            await scan(stack, sr, alone=False)
        except ApiError as error:
            log.warning("storage repository %s could not be scanned: %s", row.record["uuid"], error)
