"""A disk of any format shown as a raw file that can only be read, by QEMU's storage daemon and FUSE.

Nothing is copied and no block device is made: what is read is read when it is asked for.
"""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import AsyncIterator
from contextlib import ExitStack, asynccontextmanager
from pathlib import Path

from domzero.finish import finish, in_thread
from domzero.host.bootloader.protocol import LoaderError
from domzero.host.contents.tool import QEMU_IMG, SLOT, STORAGE_DAEMON, end_daemon, storage_of_layer
from domzero.host.hypervisor.protocol import HypervisorError
from domzero.host.hypervisor.qemu import names, remote
from domzero.host.hypervisor.qemu.images import blockdev, prepared_chain
from domzero.host.hypervisor.spec import DiskSource, RemoteImage
from domzero.host.process import ProcessError, run, spawn

ENDING_WITH_US = ("setpriv", "--pdeathsig", "TERM", "--")
"""util-linux: the daemon is asked to go when this process ends, so that it takes its mount away."""
PATIENCE = 20.0
"""Seconds until the file must be there."""
ENDING = 10.0
"""Seconds that the daemon may take to go, after it was asked and again after it was killed."""


@asynccontextmanager
async def shown(source: DiskSource, file: Path, owner: int | None) -> AsyncIterator[None]:
    """For the time of the block the file, which exists and is empty, has the disk's content; only `owner` (else we
    ourselves) may read it. Raises `LoaderError`. Nobody may write the disk meanwhile."""
    try:
        chain = await prepared_chain(source, QEMU_IMG)
        process = await _start(chain, file)
    except (HypervisorError, ProcessError, OSError) as error:
        raise LoaderError(f"the disk cannot be read: {error}") from error
    except asyncio.CancelledError:
        await finish(_unmount(file))
        raise
    try:
        await _until_there(process)
        if owner is not None:
            await in_thread(os.chown, file, owner, owner)
        yield
    finally:
        await finish(_end(process, file))


async def _start(chain: tuple[DiskSource, ...], file: Path) -> asyncio.subprocess.Process:
    with ExitStack() as closing:
        argv: list[str] = []
        descriptors: list[int] = []
        for number, layer in enumerate(chain):
            if isinstance(layer.place, RemoteImage) and layer.place.secret:
                descriptors.append(remote.secret_pipe(layer.place))
                closing.callback(os.close, descriptors[-1])
                argv += ["--object", remote.secret_from(descriptors[-1], names.secret(SLOT, number))]
        nodes = [storage_of_layer(layer, number) for number, layer in enumerate(chain)]
        node = {**blockdev(chain, nodes, SLOT, 0, writable=False), "force-share": True}
        argv += ["--blockdev", json.dumps(node)]
        place = str(file).replace(",", ",,")
        argv += ["--export", f"type=fuse,id=view,node-name={node['node-name']},mountpoint={place},allow-other=auto"]
        # Options are worked off in their order: the monitor's greeting says that the file is there.
        argv += ["--chardev", "stdio,id=monitor", "--monitor", "monitor"]
        return await spawn(
            [*ENDING_WITH_US, STORAGE_DAEMON, *argv], pass_fds=descriptors, stdin=asyncio.subprocess.PIPE
        )


async def _until_there(process: asyncio.subprocess.Process) -> None:
    assert process.stdout is not None
    assert process.stderr is not None
    try:
        async with asyncio.timeout(PATIENCE):
            greeting = await process.stdout.readline()
            said = b"" if greeting else await process.stderr.read(4096)
    except TimeoutError:
        raise LoaderError(f"the disk cannot be read: it could not be opened within {PATIENCE:.0f} seconds") from None
    if not greeting:
        first = said.decode(errors="replace").strip().partition("\n")[0]
        raise LoaderError(f"the disk cannot be read: {first.removeprefix(f'{STORAGE_DAEMON}: ')}")


async def _end(process: asyncio.subprocess.Process, file: Path) -> None:
    """Ask it to go, which takes the mount away; when it had to be killed, or died, take that away ourselves."""
    await end_daemon(process, process.communicate, patience=ENDING)
    await _unmount(file)


async def _unmount(file: Path) -> None:
    if await in_thread(_is_mounted, file):
        await run(["umount", "--lazy", file], check=False)


def _is_mounted(file: Path) -> bool:
    """Whether the mount is still there; without its process every look at the file fails."""
    try:
        return file.stat().st_dev != file.parent.stat().st_dev
    except OSError:
        return True
