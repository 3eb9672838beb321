"""What a daemon that was killed during an import left half done: removed at the next start, as if it had failed."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

from domzero.engine.database import Database
from domzero.engine.errors import ApiError
from domzero.engine.tasks import RESTARTED
from domzero.toolstack.stack import Stack
from domzero.toolstack.storage import disks
from domzero.toolstack.transfer.import_rows import INCOMPLETE, remove_network
from domzero.toolstack.vm import images
from domzero.toolstack.vm.creation import remove_machine

log = logging.getLogger(__name__)


async def recover(stack: Stack) -> None:
    """Remove what imports made that a restart ended. Disks that cannot be removed now stay."""
    database = stack.database
    for vm, row in list(database.rows("VM").items()):
        if _is_left_over(database, row.record):
            log.info("the import of %s was interrupted", row.record["name_label"])
            remove_machine(stack, vm)
            await images.release(stack, row.record["suspend_VDI"])
    with database.transaction() as transaction:
        for network, row in list(database.rows("network").items()):
            if _is_left_over(database, row.record):
                remove_network(database, transaction, network)
    for vdi, row in list(database.rows("VDI").items()):
        if _is_left_over(database, row.record):
            try:
                await disks.destroy_vdi(stack, vdi)
            except ApiError as error:
                log.warning("the disk %s of an interrupted import stays behind: %s", row.record["uuid"], error)


def _is_left_over(database: Database, record: Mapping[str, Any]) -> bool:
    """Whether an import that a restart ended had not completed the object: its task says so, and no client can."""
    task = database.find("task", record["other_config"].get(INCOMPLETE, ""))
    return task is not None and task.record["error_info"] == RESTARTED
