"""What the ways to restore have in common: what a database must hold to be this host's, and how it takes over.

What is restored counts from the restart that follows it. In the short time until then changes are refused, since they
would be lost.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Collection, Sequence
from contextlib import asynccontextmanager
from secrets import token_hex

from domzero.engine.clock import moment
from domzero.engine.consistency import Finding
from domzero.engine.errors import ApiError
from domzero.engine.exchange import Peer, RequestError
from domzero.engine.replacement import DATABASE, Replacement, ReplacementError
from domzero.engine.row import Row
from domzero.engine.staging import Staging
from domzero.engine.tables import Tables
from domzero.finish import finish, in_thread
from domzero.idl.types import NULL_REF
from domzero.toolstack.stack import Stack

log = logging.getLogger(__name__)

OF_ONE_RUN = frozenset({"session", "task"})
"""Classes whose objects mean nothing in another database. A session's reference would also let its finder in."""

RESTART_AFTER = 2.0
"""Seconds in which whoever waits for the task can learn how it ended."""


def refuse_chunks(peer: Peer) -> None:
    """Raises `RequestError` for a body in chunks."""
    if peer.chunked:
        raise RequestError(411, "Send the file without Transfer-Encoding.")


@asynccontextmanager
async def gathering(stack: Stack) -> AsyncIterator[Replacement]:
    """A place for new files, which is gone afterwards unless they were committed. Raises `RequestError`."""
    replacement = Replacement(stack.settings.state_dir)
    try:
        await in_thread(replacement.begin)
    except ReplacementError as error:
        raise RequestError(503, str(error)) from error
    try:
        yield replacement
    finally:
        await in_thread(replacement.abandon)


@asynccontextmanager
async def staging(stack: Stack, replacement: Replacement) -> AsyncIterator[Staging]:
    """The new database among the new files. Raises `StoreError`."""
    made = await in_thread(stack.database.staging, replacement.incoming / DATABASE)
    try:
        yield made
    finally:
        await in_thread(made.close)


def check(tables: Tables, findings: Sequence[Finding], current: Tables) -> None:
    """Raises `ApiError` for a database that this host could not go on with."""
    for finding in findings:
        log.warning("the database to be restored: %s", finding)
    pools, hosts = tables.by_class["pool"].rows, tables.by_class["host"].rows
    if len(pools) != 1 or len(hosts) != 1:
        raise _unfit(f"it holds {len(pools)} pools and {len(hosts)} hosts, and there must be one of each")
    host, pool = next(iter(hosts)), next(iter(pools.values()))
    if pool.record["master"] != host:
        raise _unfit("its pool has a coordinator that is not there")
    domain = hosts[host].record["control_domain"]
    if domain != NULL_REF and domain not in tables.by_class["VM"].rows:
        raise _unfit("its host has a control domain that is not there")
    _check_devices(tables.by_class["PIF"].rows.values(), current.by_class["PIF"].rows.values())


def _check_devices(stored: Collection[Row], present: Collection[Row]) -> None:
    here = {row.record["device"] for row in present if row.record["physical"]}
    known = {row.record["device"] for row in stored}
    for row in present:
        if row.record["management"] and row.record["device"] not in known:
            raise ApiError("RESTORE_TARGET_MGMT_IF_NOT_IN_BACKUP")
    for row in stored:
        if row.record["physical"] and row.record["device"] not in here:
            raise ApiError("RESTORE_TARGET_MISSING_DEVICE", row.record["device"])


def _unfit(reason: str) -> ApiError:
    return ApiError("COULD_NOT_IMPORT_DATABASE", f"The database is not that of a host: {reason}.")


async def take_over(stack: Stack, replacement: Replacement, names: Collection[str]) -> None:
    """Have the gathered files count from the next start on, and start again. Raises `ApiError` when that fails."""
    await finish(_take_over(stack, replacement, names))


async def _take_over(stack: Stack, replacement: Replacement, names: Collection[str]) -> None:
    stack.hold_changes(True)
    try:
        await in_thread(replacement.commit, names, f"{moment(stack.clock.now())}-{token_hex(3)}")
    except OSError as error:
        stack.hold_changes(False)
        raise ApiError("RESTORE_SCRIPT_FAILED", f"The disk refuses: {error}") from error
    log.warning("%s will be replaced by a restart in %g s", ", ".join(sorted(names)), RESTART_AFTER)
    asyncio.get_running_loop().call_later(RESTART_AFTER, stack.restart)
