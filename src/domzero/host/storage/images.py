"""Work that qemu-img does for drivers whose disks are files. Sizes are bytes; failures are `StorageError`."""

from __future__ import annotations

import asyncio
import logging
import os
import re
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import orjson

from domzero.finish import in_thread
from domzero.host.hypervisor.spec import DiskSource, Extent, RemoteImage
from domzero.host.process import ProcessError, run, spawn
from domzero.host.storage import numbers
from domzero.host.storage.files.formats import QCOW2, ImageFormat
from domzero.host.storage.protocol import Progress, StorageError

log = logging.getLogger(__name__)

QEMU_IMG = "qemu-img"
STALLED = 900.0
"""Seconds without any progress after which work is ended."""
ENDING = 30.0
"""Seconds that a killed program may take to go."""
SAID_LIMIT = 4096
PROGRESS = re.compile(rb"\(([0-9]+\.[0-9]+)/100%\)")
SECRET = "source-secret"  # noqa: S105 - the name under which qemu-img knows it
TARGET_SECRET = "target-secret"  # noqa: S105
MODEST = ("nice", "-n", "10")
"""How work in the background is started, which nobody waits for."""

_MEANINGS = (
    ("No space left on device", numbers.NO_SPACE),
    ("Disk quota exceeded", numbers.NO_SPACE),
    ('Failed to get "', numbers.DISK_IN_USE),
    ('Failed to get shared "', numbers.DISK_IN_USE),
    ("Failed to lock", numbers.DISK_IN_USE),
    ("No such file or directory", numbers.DISK_MISSING),
    ("output file is smaller than input file", numbers.DISK_SIZE),
    ("too large", numbers.DISK_SIZE),
    ("File too large", numbers.DISK_SIZE),
    ("Input/output error", numbers.INPUT_OUTPUT),
    ("did not finish within", numbers.INPUT_OUTPUT),
)

Argument = str | Path


async def create_image(path: Path, virtual_size: int, format: ImageFormat = QCOW2, backing: str | None = None) -> None:
    """A new image, blank or above a backing file of the same directory, which need not exist yet."""
    options = ["-o", format.options] if format.options else []
    above = ["-u", "-b", backing, "-F", "qcow2"] if backing else []
    await _qemu_img(["create", "-q", "-f", format.driver.value, *options, *above, path, str(virtual_size)])


async def resize_image(path: Path, virtual_size: int, format: ImageFormat = QCOW2) -> None:
    """Grow a qcow2 or raw image that nobody has open."""
    await _qemu_img(["resize", "-q", "-f", format.driver.value, path, str(virtual_size)])


async def rebase_image(path: Path, backing: str | None, progress: Progress = lambda _: None) -> None:
    """Put an image above a layer further down its own chain, or above none, copying what lay between into it.

    Ended early, it may leave a header that names the new backing file before all data is there.
    """
    new = ["-F", "qcow2", "-b", backing] if backing else ["-b", ""]
    await _long([*MODEST, QEMU_IMG, "rebase", "-p", "-f", "qcow2", *new, path], progress)


async def restore_backing(path: Path, backing: str) -> None:
    """Let an image's header name a backing file again, moving no data."""
    await _qemu_img(["rebase", "-q", "-u", "-f", "qcow2", "-F", "qcow2", "-b", backing, path])


async def commit_image(path: Path, lower: Path, progress: Progress) -> None:
    """Write what an image holds into the layer below it, which then has the same content. Harmless when ended."""
    await _long([*MODEST, QEMU_IMG, "commit", "-p", "-f", "qcow2", "-d", "-b", lower, path], progress)


async def convert_image(source: DiskSource, target: Path, format: ImageFormat, progress: Progress) -> None:
    """Fill a blank image, at least as large as the source, with the source's content. Zeros stay holes."""
    await _convert(source, ["--target-is-zero", "-O", format.driver.value], [target], progress)


async def overwrite_disk(source: DiskSource, target: Path | Extent, progress: Progress) -> None:
    """Write the source's content over a raw disk on a device, which is at least as large; what lies behind it stays."""
    if isinstance(target, Path):
        await _convert(source, ["-O", "raw"], [target], progress)
        return
    driver, options = ("host_device" if await _is_device(target) else "file"), _extent_options(target)
    unlocked = {"file.driver": driver, "file.filename": target.path, "file.locking": "off"}
    await _convert(source, ["--target-image-opts"], [_joined({**options, **unlocked})], progress)


async def fill_remote(source: DiskSource, target: RemoteImage, progress: Progress) -> None:
    """Fill a blank image on a server, at least as large as the source, with the source's content. Zeros stay holes."""
    with _secret(target, TARGET_SECRET) as (descriptors, secrets):
        options = _joined(_remote_options(target, TARGET_SECRET))
        new = [*secrets, "--target-is-zero", "--target-image-opts"]
        await _convert(source, new, [options], progress, descriptors)


async def virtual_size(source: DiskSource) -> int:
    """How many bytes a disk has."""
    if isinstance(source.place, Extent):
        return source.place.length
    with _secret(source.place) as (descriptors, secrets):
        argv: list[Argument] = [QEMU_IMG, "info", "--force-share", "--output=json", *secrets, *source_arguments(source)]
        try:
            said = await run(argv, pass_fds=descriptors)
        except ProcessError as error:
            raise _meaning(str(error)) from error
    return int(orjson.loads(said.stdout)["virtual-size"])


async def _convert(
    source: DiskSource, new: list[str], target: list[Argument], progress: Progress, further: tuple[int, ...] = ()
) -> None:
    device = isinstance(source.place, Extent) and await _is_device(source.place)
    with _secret(source.place) as (descriptors, secrets):
        arguments = source_arguments(source, is_device=device)
        await _long(
            [QEMU_IMG, "convert", "-p", *secrets, "-n", *new, *arguments, *target], progress, (*descriptors, *further)
        )


async def _is_device(extent: Extent) -> bool:
    return await in_thread(extent.path.is_block_device)


def source_arguments(source: DiskSource, *, is_device: bool = False) -> list[Argument]:
    """How a tool of QEMU's is told what to read, its format always given. `is_device`: an `Extent` is of a device.

    A secret is an object of the name `SECRET`.
    """
    place = source.place
    if isinstance(place, Extent):
        driver = "host_device" if is_device else "file"
        return _image_options({**_extent_options(place), "file.driver": driver, "file.filename": place.path})
    if isinstance(place, RemoteImage):
        return _image_options(_remote_options(place, SECRET))
    return ["-f", source.format.value, place]


def _image_options(options: dict[str, object]) -> list[Argument]:
    return ["--image-opts", _joined(options)]


def _joined(options: dict[str, object]) -> str:
    return ",".join(f"{name}={str(value).replace(',', ',,')}" for name, value in options.items())


def _extent_options(extent: Extent) -> dict[str, object]:
    return {"driver": "raw", "offset": extent.offset, "size": extent.length}


def _remote_options(image: RemoteImage, secret_name: str) -> dict[str, object]:
    secret = {f"file.{image.secret_option}": secret_name} if image.secret_option else {}
    options = {f"file.{name}": _plain(value) for name, value in image.options}
    return {"driver": "raw", "file.driver": image.driver, **options, **secret}


def _plain(value: object) -> object:
    return ("off", "on")[value] if isinstance(value, bool) else value


@contextmanager
def _secret(place: object, name: str = SECRET) -> Iterator[tuple[tuple[int, ...], list[str]]]:
    """A descriptor that holds the secret of a place, if it has one, and the arguments that tell of it."""
    if not isinstance(place, RemoteImage) or not place.secret_option:
        yield (), []
        return
    descriptor = os.memfd_create("secret", os.MFD_CLOEXEC)
    try:
        os.pwrite(descriptor, place.encoded_secret, 0)
        yield (descriptor,), ["--object", f"secret,id={name},format=base64,file=/dev/fd/{descriptor}"]
    finally:
        os.close(descriptor)


async def _long(argv: Sequence[Argument], progress: Progress, descriptors: Sequence[int] = ()) -> None:
    """Run a program that prints how far it is. Cancelling the call ends the program first."""
    try:
        process = await spawn(argv, pass_fds=descriptors)
    except ProcessError as error:
        raise StorageError(numbers.GENERAL, str(error)) from error
    if process.stdout is None or process.stderr is None:
        raise StorageError(numbers.GENERAL, "qemu-img was started without pipes")
    try:
        said, _ = await asyncio.gather(_tail(process.stderr), _report(process.stdout, progress))
        returncode = await process.wait()
    finally:
        await _end(process)
    if returncode != 0:
        raise _meaning(f"qemu-img failed with code {returncode}: {said}")
    progress(1.0)


async def _qemu_img(arguments: list[Argument]) -> None:
    try:
        await run([QEMU_IMG, *arguments])
    except ProcessError as error:
        raise _meaning(str(error)) from error


def _meaning(said: str) -> StorageError:
    for words, number in _MEANINGS:
        if words in said:
            return StorageError(number, said)
    return StorageError(numbers.GENERAL, said)


async def _end(process: asyncio.subprocess.Process) -> None:
    """Kill it, and wait for its end unless a medium that does not answer holds it."""
    if process.returncode is None:
        process.kill()
        try:
            async with asyncio.timeout(ENDING):
                await process.wait()
        except TimeoutError:
            log.error("qemu-img (process %d) does not end: its medium does not answer", process.pid)


async def _report(stream: asyncio.StreamReader, progress: Callable[[float], None]) -> None:
    rest = b""
    while chunk := await _in_time(stream.read(4096)):
        rest = (rest + chunk)[-SAID_LIMIT:]
        done = PROGRESS.findall(rest)
        if done:
            progress(min(1.0, float(done[-1]) / 100))
            rest = rest[rest.rfind(b")") + 1 :]


async def _in_time(reading: Awaitable[bytes]) -> bytes:
    try:
        async with asyncio.timeout(STALLED):
            return await reading
    except TimeoutError:
        raise StorageError(numbers.INPUT_OUTPUT, f"qemu-img got no further for {STALLED:g} seconds") from None


async def _tail(stream: asyncio.StreamReader) -> str:
    rest = b""
    while chunk := await stream.read(4096):
        rest = (rest + chunk)[-SAID_LIMIT:]
    return rest.decode(errors="replace").strip()
