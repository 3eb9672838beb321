"""Starts QEMU's storage daemon for one disk, and speaks NBD to it.

It is told each layer and its format, as a hypervisor would be (`hypervisor.qemu.images`), gets a listening socket that
has no name any more, and dies with this process, so that nothing of it can stay: neither process nor socket nor lock.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import signal
import socket
import stat
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import ExitStack, asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from uuid import uuid4

from domzero.finish import finish
from domzero.host.confinement import READING_DISKS, deprived
from domzero.host.contents.nbd import Connection
from domzero.host.contents.protocol import ContentError
from domzero.host.hypervisor.protocol import HypervisorError
from domzero.host.hypervisor.qemu import names, remote
from domzero.host.hypervisor.qemu.images import blockdev, prepared_chain
from domzero.host.hypervisor.qemu.places import file_driver
from domzero.host.hypervisor.spec import DiskSource, Extent, RemoteImage
from domzero.host.process import ProcessError, spawn
from domzero.wire.nbd import Export

log = logging.getLogger(__name__)

QEMU_IMG = "qemu-img"
STORAGE_DAEMON = "qemu-storage-daemon"
DYING_WITH_US = ("setpriv", "--pdeathsig", "KILL", "--")
"""util-linux: the kernel ends the program when this process ends, however that happens."""
KEEPS_MEMORY = {"MALLOC_MMAP_THRESHOLD_": str(16 << 20), "MALLOC_TRIM_THRESHOLD_": str(256 << 20)}
"""mallopt(3): buffers of requests are used again. To get each from the kernel takes as long as to fill it."""
EXPORT = "disk"
SLOT = 0
PATIENCE = 120.0
"""Seconds that a medium may take over one request."""
ENDING = 30.0
"""Seconds that the program may take to go, after it was asked and again after it was killed."""
AGAIN = 1.0
"""Seconds after which it is asked again: a signal just before it begins to wait for events wakes it with the next."""
SAID_LIMIT = 4096
OWN_WORDS = f"{STORAGE_DAEMON}: "


@dataclass(frozen=True, slots=True)
class Opened:
    """A disk that is open."""

    connection: Connection
    export: Export


@asynccontextmanager
async def opened(
    source: DiskSource, runtime: Path, *, writable: bool, patience: float = PATIENCE
) -> AsyncIterator[Opened]:
    """A disk for the time of the block; afterwards nobody has it open any more. Raises `ContentError`.

    `runtime` is a directory of ours alone. Unless `writable` nothing is locked: the caller knows that nobody writes.
    """
    try:
        chain = await prepared_chain(source, QEMU_IMG)
        process, connection = await _start(chain, runtime, writable=writable, patience=patience)
    except (HypervisorError, ProcessError, OSError) as error:
        raise ContentError(str(error)) from error
    said = asyncio.ensure_future(_tail(process))
    try:
        try:
            export = await connection.open(EXPORT)
        except ContentError as error:
            _signal(process, signal.SIGKILL)
            await asyncio.wait({said}, timeout=ENDING)
            raise ContentError((_reason(said.result()) if said.done() else "") or str(error)) from error
        yield Opened(connection, export)
    finally:
        connection.close()
        await finish(_end(process, said, gently=writable))


async def _start(
    chain: Sequence[DiskSource], runtime: Path, *, writable: bool, patience: float
) -> tuple[asyncio.subprocess.Process, Connection]:
    with ExitStack() as closing:
        argv: list[str] = []
        descriptors: list[int] = []
        nodes = []
        for number, layer in enumerate(chain):
            held = _held(layer)
            if held is not None:
                descriptors.append(held)
                closing.callback(os.close, held)
            nodes.append(storage_of_layer(layer, number, held))
            if held is not None and isinstance(layer.place, RemoteImage):
                argv += ["--object", remote.secret_from(held, names.secret(SLOT, number))]
        node = {**blockdev(chain, nodes, SLOT, 0, writable=writable), "force-share": not writable}
        argv += ["--blockdev", json.dumps(node)]
        listener, ours = _sockets(runtime)
        with listener:
            descriptors.append(listener.fileno())
            argv += ["--nbd-server", f"addr.type=fd,addr.str={listener.fileno()},max-connections=1"]
            access = "on" if writable else "off"
            argv += ["--export", f"type=nbd,id={EXPORT},name={EXPORT},node-name={node['node-name']},writable={access}"]
            try:
                process = await spawn(
                    [*_rights(), *DYING_WITH_US, STORAGE_DAEMON, *argv],
                    pass_fds=descriptors,
                    stdout=asyncio.subprocess.DEVNULL,
                    environment=KEEPS_MEMORY,
                )
            except BaseException:
                ours.close()
                raise
    return process, Connection(ours, patience)


def _rights() -> list[str]:
    """Root's rights without what disks do not take: images may have been written by strangers."""
    return deprived(READING_DISKS) if os.geteuid() == 0 else []


def _sockets(directory: Path) -> tuple[socket.socket, socket.socket]:
    """One that listens, and one that is connected to it already. Neither has a name that anybody could find."""
    listener, ours = (socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC) for _ in range(2))
    with ExitStack() as undo:
        undo.callback(listener.close)
        undo.callback(ours.close)
        place = os.open(directory, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            # By way of the descriptor, since a socket's path has at most 107 bytes.
            path = f"/proc/self/fd/{place}/contents-{uuid4().hex[:12]}"
            listener.bind(path)
            try:
                listener.listen(1)
                ours.connect(path)
            finally:
                os.unlink(path)
        finally:
            os.close(place)
        undo.pop_all()
    return listener, ours


def _held(layer: DiskSource) -> int | None:
    """A descriptor that the program needs for a layer: of its file, or with its password. The caller's to close.

    The file is the one that the storage driver looked at: devices may be reached by links, but a file never is, whoever
    else can write to its medium. Raises `HypervisorError`, `OSError`.
    """
    if isinstance(layer.place, RemoteImage):
        return remote.secret_pipe(layer.place) if layer.place.secret else None
    named, nameless = os.lstat(layer.path), layer.path.is_relative_to(f"/proc/{os.getpid()}/fd")
    descriptor = os.open(layer.path, os.O_PATH | os.O_CLOEXEC)
    found = os.fstat(descriptor)
    if stat.S_ISREG(found.st_mode) and not nameless and not os.path.samestat(found, named):
        os.close(descriptor)
        raise HypervisorError(f"{layer.path} is a link")
    return descriptor


def storage_of_layer(layer: DiskSource, number: int, held: int | None = None) -> dict[str, object]:
    """The node of what a layer is in; `held` is a descriptor of a local one, where the program has it.

    Raises `HypervisorError` for what cannot hold a disk, `OSError`.
    """
    place = layer.place
    if isinstance(place, RemoteImage):
        secret = names.secret(SLOT, number) if place.secret else None
        return {"node-name": names.file(SLOT, number), **remote.options(place, secret)}
    found = layer.path.stat() if held is None else os.fstat(held)
    driver = file_driver(found.st_mode, found.st_rdev)
    if driver is None:
        raise HypervisorError(f"{layer.path} is neither a file nor a block device")
    node: dict[str, object] = {
        "driver": driver,
        "node-name": names.file(SLOT, number),
        "filename": os.fspath(layer.path.absolute()) if held is None else f"/proc/self/fd/{held}",
        "auto-read-only": False,
    }
    if isinstance(place, Extent):
        node["locking"] = "off"  # one lock would cover the extents of every other disk, too
    return node


async def _end(process: asyncio.subprocess.Process, said: asyncio.Task[str], *, gently: bool) -> None:
    """See it go: asked where it has something to write down, else killed."""
    await end_daemon(process, process.wait, patience=ENDING, gently=gently)
    said.cancel()
    await asyncio.wait({said})


async def end_daemon(
    process: asyncio.subprocess.Process, over: Callable[[], Awaitable[object]], *, patience: float, gently: bool = True
) -> None:
    """See a storage daemon go: asked, with `gently`, and killed if need be. One that stays all the same is logged.

    `over` waits for its end, and may be cancelled and called again; `patience` is how many seconds it has each time.
    """
    for number in (signal.SIGTERM, signal.SIGKILL) if gently else (signal.SIGKILL,):
        if process.returncode is None and not await _ended_by(process, over, number, patience):
            log.error("%s (process %d) does not end", STORAGE_DAEMON, process.pid)


async def _ended_by(
    process: asyncio.subprocess.Process, over: Callable[[], Awaitable[object]], number: signal.Signals, patience: float
) -> bool:
    for _ in range(round(patience / AGAIN)):
        _signal(process, number)
        with suppress(TimeoutError):
            async with asyncio.timeout(AGAIN):
                await over()
                return True
    return False


def _signal(process: asyncio.subprocess.Process, number: signal.Signals) -> None:
    """One that has ended meanwhile is none to tell."""
    with suppress(ProcessLookupError):
        process.send_signal(number)


async def _tail(process: asyncio.subprocess.Process) -> str:
    """The last of what it says, when it is over."""
    assert process.stderr is not None
    rest = b""
    while chunk := await process.stderr.read(4096):
        rest = (rest + chunk)[-SAID_LIMIT:]
    return rest.decode(errors="replace").strip()


def _reason(said: str) -> str:
    """The line that says why, without the program's name; the lines after it are hints."""
    return next((line.removeprefix(OWN_WORDS) for line in said.splitlines() if line.startswith(OWN_WORDS)), said)
