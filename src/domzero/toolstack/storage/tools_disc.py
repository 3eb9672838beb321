"""The disc with the guest tools, in a repository of its own that clients know by `is_tools_sr` and `is_tools_iso`.

The disc is made with domzero (`script/guest-tools`), not by the daemon. Each start copies it into the state directory:
a machine that has it in its drive keeps the one it has when a new version of domzero brings another.
"""

from __future__ import annotations

import asyncio
import filecmp
import logging
import os
import shutil
from pathlib import Path

from domzero.toolstack.stack import Stack
from domzero.toolstack.storage.first_repositories import Installed, create_installed
from domzero.toolstack.storage.scanning import TOOLS_DISC

log = logging.getLogger(__name__)

TOOLS = Installed(
    "XenServer Tools", "The disc with the tools for virtual machines", "iso", "iso", "xenserver-tools",
    directory="tools", auto_scan=False, is_tools=True,
)  # fmt: skip


async def ensure_tools_disc(stack: Stack) -> None:
    """Offer the disc that came with this version. Without one nothing changes, and what fails is logged."""
    disc = stack.settings.guest_tools
    if disc is None or TOOLS.type not in stack.storage:
        return
    directory = stack.settings.state_dir / TOOLS.directory
    try:
        await asyncio.to_thread(_put, disc, directory)
    except OSError as error:
        log.warning("the disc with the guest tools cannot be offered: %s", error)
        return
    if not any(row.record["is_tools_sr"] for row in stack.database.rows("SR").values()):
        await create_installed(stack, TOOLS)


def _put(disc: Path, directory: Path) -> None:
    """Have the directory hold this disc; one that is there already stays as it is, also for those who read it."""
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    place, new = directory / TOOLS_DISC, directory / f".{TOOLS_DISC}.new"
    if place.is_file() and filecmp.cmp(disc, place, shallow=False):
        return
    shutil.copyfile(disc, new)
    os.replace(new, place)
