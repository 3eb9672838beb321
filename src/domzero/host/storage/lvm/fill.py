"""Filling a volume: with zeros, or with the content of another disk. Sizes are bytes; failures are `StorageError`.

Whatever is cancelled ends its tool first.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Sequence
from pathlib import Path

from domzero.host.hypervisor.spec import DiskSource, Extent
from domzero.host.process import ProcessError, run
from domzero.host.storage import numbers
from domzero.host.storage.images import overwrite_disk, virtual_size
from domzero.host.storage.protocol import Progress, StorageError
from domzero.host.storage.worker import Workers

log = logging.getLogger(__name__)

SLOWEST = 8 << 20
"""Bytes a second that a medium must take at least."""
PATIENCE = 120.0
"""Seconds that it may take besides."""
ENDING = 10.0
"""Seconds that a tool that was killed has for its end."""
STEP = 1 << 30
"""Bytes that are zeroed by one call to the kernel, which nothing can end."""
BLOCK = 4096
"""Zeroing begins and ends at multiples of a device's own blocks, which are no larger."""


async def zero(place: Path | Extent, start: int, end: int, workers: Workers) -> None:
    """Make bytes `start` to `end` of a volume read as zeros, durably; both are multiples of `BLOCK`.

    A device that can do it by itself (thin storage, flash, a loop device) is asked to, which takes no time that
    depends on the size; any other gets zeros written (ioctl BLKZEROOUT).
    """
    if end <= start:
        return
    device, offset = _on_device(place, start)
    area = ["--offset", str(offset), "--length", str(end - start)]
    timeout = PATIENCE + (end - start) / SLOWEST
    if not await _succeeds(["fallocate", "--punch-hole", *area, device], timeout):
        argv: list[str | Path] = ["blkdiscard", "--force", "--zeroout", *area, "--step", str(STEP), device]
        if not await _succeeds(argv, timeout):
            raise StorageError(numbers.INPUT_OUTPUT, f"{end - start} bytes of {device} cannot be zeroed")
    await workers.run(_flush, device)


async def fill(place: Path | Extent, size: int, source: DiskSource, progress: Progress, workers: Workers) -> None:
    """Make a volume of `size` bytes hold the source's content, and zeros behind it, durably.

    Raises `StorageError` 79 for a source that is larger.
    """
    length = await virtual_size(source)
    if length > size:
        raise StorageError(numbers.DISK_SIZE, f"a disk of {length} bytes does not fit into one of {size}")
    await zero(place, length // BLOCK * BLOCK, size, workers)
    await overwrite_disk(source, place, progress)
    await workers.run(_flush, _on_device(place, 0)[0])


async def _succeeds(argv: Sequence[str | Path], timeout: float) -> bool:
    """Run a tool that a device which does not answer may keep from ending, and then leave it behind."""
    work = asyncio.ensure_future(run(argv, timeout=timeout, check=False))
    try:
        await asyncio.wait({work}, timeout=timeout + ENDING)
    except asyncio.CancelledError:
        work.cancel()
        await asyncio.wait({work}, timeout=ENDING)
        raise
    if not work.done():
        work.cancel()
        raise StorageError(numbers.INPUT_OUTPUT, f"{argv[0]} does not end: {argv[-1]} does not answer")
    try:
        finished = work.result()
    except ProcessError as error:
        raise StorageError(numbers.INPUT_OUTPUT, str(error)) from error
    if finished.returncode != 0:
        log.info("%s", finished.stderr.decode(errors="replace").strip()[:1000])
    return finished.returncode == 0


def _on_device(place: Path | Extent, offset: int) -> tuple[Path, int]:
    return (place.path, place.offset + offset) if isinstance(place, Extent) else (place, offset)


def _flush(device: Path) -> None:
    """Put what was written on the medium. Blocking."""
    try:
        descriptor = os.open(device, os.O_RDWR | os.O_CLOEXEC)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
    except OSError as error:
        raise numbers.from_os(error) from error
