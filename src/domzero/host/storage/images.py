"""Work that qemu-img does for the file driver. Sizes are bytes; failures are `StorageError`."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path

from domzero.host.hypervisor.spec import DiskSource
from domzero.host.process import ProcessError, run, spawn
from domzero.host.storage import numbers
from domzero.host.storage.protocol import Progress, StorageError

QEMU_IMG = "qemu-img"
SAID_LIMIT = 4096
PROGRESS = re.compile(rb"\(([0-9]+\.[0-9]+)/100%\)")

_MEANINGS = (
    ("No space left on device", numbers.NO_SPACE),
    ("Disk quota exceeded", numbers.NO_SPACE),
    ('Failed to get "', numbers.DISK_IN_USE),
    ("Failed to lock", numbers.DISK_IN_USE),
    ("No such file or directory", numbers.DISK_MISSING),
    ("output file is smaller than input file", numbers.DISK_SIZE),
    ("too large", numbers.DISK_SIZE),
    ("File too large", numbers.DISK_SIZE),
    ("Input/output error", numbers.INPUT_OUTPUT),
)


async def create_image(path: Path, virtual_size: int, backing: str | None = None) -> None:
    """A new qcow2 file, blank or above a backing file of the same directory, which need not exist yet."""
    above = ["-u", "-b", backing, "-F", "qcow2"] if backing else []
    await _qemu_img(["create", "-q", "-f", "qcow2", *above, path, str(virtual_size)])


async def resize_image(path: Path, virtual_size: int) -> None:
    """Grow an image that nobody has open."""
    await _qemu_img(["resize", "-q", "-f", "qcow2", path, str(virtual_size)])


async def rebase_image(path: Path, backing: str) -> None:
    """Put an image above a layer further down its own chain, copying what lay between into it."""
    await _qemu_img(["rebase", "-q", "-f", "qcow2", "-F", "qcow2", "-b", backing, path], timeout=None)


async def convert_image(source: DiskSource, target: Path, progress: Progress) -> None:
    """Fill a blank qcow2 image, at least as large as the source, with the source's content. Zeros stay holes."""
    kinds = ["-f", source.format.value, "-O", "qcow2"]
    argv: list[str | Path] = [QEMU_IMG, "convert", "-p", "-n", "--target-is-zero", *kinds, source.path, target]
    try:
        process = await spawn(argv)
    except ProcessError as error:
        raise StorageError(numbers.GENERAL, str(error)) from error
    if process.stdout is None or process.stderr is None:
        raise StorageError(numbers.GENERAL, "qemu-img was started without pipes")
    try:
        said, _ = await asyncio.gather(_tail(process.stderr), _report(process.stdout, progress))
        returncode = await process.wait()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    if returncode != 0:
        raise _meaning(f"qemu-img failed with code {returncode}: {said}")
    progress(1.0)


async def _qemu_img(arguments: list[str | Path], timeout: float | None = 60.0) -> None:
    try:
        await run([QEMU_IMG, *arguments], timeout=timeout)
    except ProcessError as error:
        raise _meaning(str(error)) from error


def _meaning(said: str) -> StorageError:
    for words, number in _MEANINGS:
        if words in said:
            return StorageError(number, said)
    return StorageError(numbers.GENERAL, said)


async def _report(stream: asyncio.StreamReader, progress: Progress) -> None:
    rest = b""
    while chunk := await stream.read(4096):
        rest = (rest + chunk)[-SAID_LIMIT:]
        done = PROGRESS.findall(rest)
        if done:
            progress(min(1.0, float(done[-1]) / 100))
            rest = rest[rest.rfind(b")") + 1 :]


async def _tail(stream: asyncio.StreamReader) -> str:
    rest = b""
    while chunk := await stream.read(4096):
        rest = (rest + chunk)[-SAID_LIMIT:]
    return rest.decode(errors="replace").strip()
